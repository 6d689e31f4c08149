"""Plans of programs that were compiled before, in the user's cache folder."""

import hashlib
import json
from typing import Any

from etils import epath

from refinenet_jax import files
from refinenet_jax.errors import UserError

# The modules that decide what a plan holds.
_READERS = (
    "analysis",
    "bound",
    "buffers",
    "collectives",
    "gpus",
    "hlo",
    "products",
    "program",
)


def key(program: str, *about: str) -> str:
    """Of a program in its text form and all else that decides what comes of it."""
    digest = hashlib.sha256(program.encode())
    for text in (*about, _own_sources()):
        digest.update(b"\0" + text.encode())
    return digest.hexdigest()


def load(name: str) -> dict[str, Any] | None:
    """What was kept under a key; None where there is nothing that can be read."""
    try:
        found = json.loads(_path(name).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def keep(name: str, values: dict[str, Any]) -> None:
    """Keeps values under a key; where the folder takes nothing, nothing is kept."""
    try:
        files.write_json(_path(name), values)
    except UserError:
        return


def _path(name: str) -> epath.Path:
    return files.user_cache() / "plans" / f"{name}.json"


def _own_sources() -> str:
    """Another way of reading programs makes another plan."""
    folder = files.path(__file__).parent
    return "\n".join((folder / f"{name}.py").read_text() for name in _READERS)
