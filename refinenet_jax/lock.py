"""One at a time: a file that says who works in a folder, and keeps others out.

On a disk of this host the kernel keeps the lock, and drops it with the process that
holds it, however that ends. Between hosts, and in a bucket, the file alone tells: its
holder renews it every few seconds, and one that is not renewed belongs to nobody.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

from etils import epath

from refinenet_jax import files
from refinenet_jax.errors import UserError

BEAT = 5.0  # seconds between renewals
PATIENCE = 30.0  # seconds without one, until its holder counts as dead
_POLL = 0.5


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who holds a lock; as text a phrase for people.

    Attributes:
        host: its name.
        process: its number there.
        since: when it took the lock, with the offset from UTC.
        beat: how often it has renewed it.
    """

    host: str
    process: int
    since: str
    beat: int = 0

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"


class Held(UserError):
    """Somebody else holds the lock."""

    def __init__(self, message: str, holder: Holder | None) -> None:
        super().__init__(message)
        self.holder = holder


@contextlib.contextmanager
def hold(
    path: epath.Path,
    work: str,
    *,
    remedy: str,
    say: Callable[[str], None],
    wait: bool = False,
) -> Iterator[None]:
    """Nobody else who asks for the same file does the same work within the block.

    Args:
        path: of the lock, in a folder that exists. The file stays, empty.
        work: what is done, such as "a training in runs/voc".
        remedy: for whom the lock is refused.
        say: told when it takes longer.
        wait: for whoever holds it, instead of refusing.

    Raises:
        Held: somebody else does it, and is alive.
        UserError: the file cannot be written.
    """
    me = Holder(socket.gethostname(), os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S%z"))
    told = False
    while True:
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(_File.opened(path))
                _take(file, me, work, remedy, say)
            except OSError as error:
                raise UserError(
                    f"{path} cannot be written ({error.strerror}): make that folder "
                    "writable or choose another one"
                ) from error
            except Held as held:
                if not wait:
                    raise
                if not told:
                    say(f"waiting for {work} by {held.holder or 'another process'}")
                    told = True
            else:
                with _renewed(file, me):
                    yield
                return
        time.sleep(_POLL)


class _File:
    """The file of a lock."""

    def __init__(self, path: epath.Path, descriptor: int | None):
        self._path = path
        self._descriptor = descriptor

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: epath.Path) -> Iterator["_File"]:
        """Opens the file; in a bucket there is nothing to open."""
        if files.in_bucket(path):
            yield cls(path, None)
            return
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            yield cls(path, descriptor)
        finally:
            os.close(descriptor)  # and drops the kernel's lock

    def lock(self) -> bool | None:
        """Whether the kernel gave its lock; None where it keeps none."""
        if self._descriptor is None:
            return None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a disk without locks
            return None
        return True

    def read(self) -> Holder | None:
        """None where it is empty, not there or garbled."""
        try:
            if self._descriptor is None:
                text = self._path.read_text()
            else:
                text = os.pread(self._descriptor, 4096, 0).decode()
            return Holder(**json.loads(text))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, holder: Holder | None) -> None:
        """In place: the kernel's lock is on the file, not on its name."""
        text = json.dumps(dataclasses.asdict(holder)) if holder else ""
        if self._descriptor is None:
            self._path.write_text(text)
        else:
            os.pwrite(self._descriptor, text.encode(), 0)
            os.ftruncate(self._descriptor, len(text.encode()))


def _take(
    file: _File, me: Holder, work: str, remedy: str, say: Callable[[str], None]
) -> None:
    """Makes the lock ours, or raises Held."""
    locked, holder = file.lock(), file.read()
    if (
        locked is False
        or (holder and locked is None and _is_alive_here(holder))
        or (holder and holder.host != me.host and _is_renewed(file, holder, say))
    ):
        by = str(holder) if holder else "another process"
        raise Held(f"{work} goes on already, by {by}: {remedy}", holder)
    file.write(me)
    if locked is None:  # two that came at once have both written: the last one holds it
        time.sleep(2 * _POLL)
        other = file.read()
        if other != me:
            raise Held(f"{work} begins elsewhere, by {other}: {remedy}", other)


def _is_alive_here(holder: Holder) -> bool:
    return (
        holder.host == socket.gethostname()
        and files.path(f"/proc/{holder.process}").is_dir()
    )


def _is_renewed(file: _File, holder: Holder, say: Callable[[str], None]) -> bool:
    """Watches whether another host's holder is alive; no clocks are compared."""
    say(f"watching for {PATIENCE:.0f} s whether {holder} is alive")
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(_POLL)
        found = file.read()
        if found != holder:
            return found is not None
    return False


@contextlib.contextmanager
def _renewed(file: _File, me: Holder) -> Iterator[None]:
    """Renews the lock in a thread of its own, and gives it back at the end."""
    ended = threading.Event()

    def renew() -> None:
        beat = 0
        while not ended.wait(BEAT):
            beat += 1
            with contextlib.suppress(OSError):  # the next one may do
                file.write(dataclasses.replace(me, beat=beat))

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(OSError):
            file.write(None)
