"""Files appear whole or not at all."""

import contextlib
import errno
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from refinenet_jax.errors import UserError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_IN_THE_WAY = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR}


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to, and moves that into place at the end.

    It has the ending of `path`. Where the block raises, it is deleted, and what was at
    `path` before stays.

    Raises:
        UserError: the folder cannot be made or written to, or is full.
    """
    partial = path.with_name(f".partial-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            partial.replace(path)
        finally:
            # What was moved is not there any more.
            with contextlib.suppress(OSError):
                partial.unlink()
    except OSError as error:
        raise UserError(
            f"cannot write {path.name} into {path.parent} "
            f"({error.strerror or error}): {_remedy(error)}"
        ) from error


def make_folder(folder: Path, flag: str) -> None:
    """Makes a folder that `flag`, such as "--workdir", names.

    Raises:
        UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag}={folder} cannot be made: {error}") from error


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file; see `replacing`.

    Raises:
        UserError: the folder cannot be made or written to, or is full.
    """
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """As indented JSON; NaN is refused, since readers other than Python's do so.

    Raises:
        UserError: the folder cannot be made or written to, or is full.
    """
    text = json.dumps(value, indent=2, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def sha256(path: Path) -> str:
    """Of the content of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remedy(error: OSError) -> str:
    if error.errno in _FULL:
        return "make room there or choose another --workdir"
    if error.errno in _IN_THE_WAY:
        return "move away what has the name of a file or folder to be written"
    return "make that folder writable or choose another --workdir"
