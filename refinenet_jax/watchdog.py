"""Shows where every thread waits when nothing moves on for too long."""

import contextlib
import faulthandler
from collections.abc import Iterator

_STDERR = 2  # the file itself, whatever sys.stderr is
_seconds = 0


@contextlib.contextmanager
def watching(seconds: int) -> Iterator[None]:
    """Inside, `moved_on` must be called at least every so many seconds; 0: need not.

    Where it is not, the call stacks of all threads of this process are printed on
    stderr, and again after as many seconds. Nothing is ended.
    """
    global _seconds
    _seconds = seconds
    moved_on()
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        _seconds = 0


def moved_on() -> None:
    """Something was finished; the time starts anew."""
    if _seconds:
        faulthandler.dump_traceback_later(_seconds, repeat=True, file=_STDERR)
