"""Tells what is compiled, for how long, and how long it took last time."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator

import jax
from etils import epath

from refinenet_jax import files, log
from refinenet_jax.errors import UserError

_SILENT = 5.0  # seconds of compiling that are not worth a line of their own
_MOST = 300  # durations that are kept

_on = False


@contextlib.contextmanager
def announced() -> Iterator[None]:
    """Within the block compiling is told of; elsewhere, as in a library, it is not."""
    global _on
    before, _on = _on, True
    try:
        yield
    finally:
        _on = before


@contextlib.contextmanager
def told(what: str, about: str = "") -> Iterator[None]:
    """Tells, where `announced`, that the block compiles something.

    On a terminal a line counts the seconds; elsewhere one is written where it takes
    long. Another tells at the end. Durations are kept in the user's cache folder.

    Args:
        what: such as "the training step".
        about: what else its duration depends on, such as the network.
    """
    if not _on or jax.process_index() != 0:
        yield
        return
    device = jax.devices()[0].device_kind
    key = " ".join(filter(None, (what, about, f"on {jax.device_count()} × {device}")))
    before = _durations().get(key)
    last = "" if before is None else f"last time {log.duration(before)}"
    start = time.monotonic()
    with _counting(what, last):
        yield
    seconds = time.monotonic() - start
    log.say(
        f"compiled {what} in {log.duration(seconds)}" + (f", {last}" if last else "")
    )
    _keep(key, seconds)


@contextlib.contextmanager
def _counting(what: str, last: str) -> Iterator[None]:
    done = threading.Event()

    def tell() -> None:
        if not done.wait(_SILENT):
            log.say(
                f"compiling {what}" + (f": {last}" if last else " for the first time")
            )

    teller = threading.Thread(target=tell, daemon=True)
    with log.elapsed(f"compiling {what}", last) as shown:
        if not shown:
            teller.start()
        try:
            yield
        finally:
            done.set()
            if not shown:
                teller.join()


def _durations() -> dict[str, float]:
    """Seconds by what was compiled, the latest last."""
    try:
        found = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _keep(key: str, seconds: float) -> None:
    """Where the folder takes nothing, nothing is kept."""
    durations = _durations()
    durations.pop(key, None)
    durations[key] = round(seconds, 1)
    with contextlib.suppress(UserError):
        files.write_json(_file(), dict(list(durations.items())[-_MOST:]))


def _file() -> epath.Path:
    return files.user_cache() / "compiling.json"
