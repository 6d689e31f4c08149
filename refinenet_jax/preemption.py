"""Pre-emption: SIGTERM and SIGINT end the program so that the same command goes on.

The first signal: a run that trains finishes its step, saves and ends; what has nothing
to save ends at once. The second signal ends at once. All of them with `EXIT_CODE`.

Of several processes only some may be told, so JAX's own service has all of them agree on
the place to end at. It sets a handler of SIGTERM when the processes join; since that
would not end anything at the second signal, ours is set again and calls it.
"""

import atexit
import contextlib
import ctypes
import dataclasses
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, start it again
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_IGNORE = 1  # SIG_IGN of C
_STOP_LISTENING = b"\0"


class Preempted(Exception):
    """The program was asked to end, and did; the message says what is kept."""


@dataclasses.dataclass
class _State:
    """Of this process.

    Attributes:
        received: names of the signals.
        defers: whether the first signal waits for `reached` to be asked.
        tell_jax: JAX's handler of SIGTERM, where there are several processes.
        questions: how often `reached` was asked.
        reached: its answer.
    """

    received: list[str] = dataclasses.field(default_factory=list)
    defers: bool = False
    tell_jax: Callable[[int], None] | None = None
    questions: int = 0
    reached: bool = False


_state = _State()


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Catches the signals inside; for the main thread."""
    global _state
    _state = _State()
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    listener = threading.Thread(target=_listen, args=(read_end,), daemon=True)
    # Python runs handlers between two of its own instructions, which a compilation
    # holds up for minutes; this tells a thread at once.
    fd_before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    before = {each: signal.signal(each, lambda *_: None) for each in _SIGNALS}
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(fd_before)
        for each, handler in before.items():
            signal.signal(each, handler)
        atexit.register(_ignore)  # all is done, and JAX takes seconds to end
        os.write(write_end, _STOP_LISTENING)
        listener.join()
        os.close(read_end)
        os.close(write_end)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Inside, the first signal ends nothing by itself: `reached` is asked."""
    _state.defers = True
    try:
        yield
    finally:
        _state.defers = False


def hand_on_to_jax() -> None:
    """From now on JAX is told of the first signal: its processes have just joined."""
    take = ctypes.CDLL(None).signal
    take.argtypes, take.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    handler = take(signal.SIGTERM, _IGNORE)
    signal.signal(signal.SIGTERM, lambda *_: None)
    _state.tell_jax = ctypes.CFUNCTYPE(None, ctypes.c_int)(handler)


def reached() -> bool:
    """Whether the program is to end here.

    Of several processes each must ask equally often: all are told so at the same
    question.
    """
    if not _state.reached:
        import jax  # not above: the command line listens before it is imported
        from jax.experimental import multihost_utils

        _state.questions += 1
        if jax.process_count() > 1:
            _state.reached = multihost_utils.reached_preemption_sync_point(
                _state.questions
            )
        else:
            _state.reached = bool(_state.received)
    return _state.reached


def _ignore() -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)


def _listen(read_end: int) -> None:
    while (byte := os.read(read_end, 1)) != _STOP_LISTENING:
        if byte[0] in _SIGNALS:
            _take(signal.Signals(byte[0]))


def _take(received: signal.Signals) -> None:
    name = received.name
    _state.received.append(name)
    if len(_state.received) > 1:
        _say(f"stopped at once by a second signal, {name}; the same command goes on")
        end_process(EXIT_CODE)
    if not (_state.tell_jax or _state.defers):
        _say(f"stopped by {name}; the same command goes on")
        end_process(EXIT_CODE)
    _say(f"{name}: finishing the step and saving; once more to stop at once")
    if _state.tell_jax:
        _state.tell_jax(signal.SIGTERM)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def end_process(code: int) -> NoReturn:
    """Ends this process and its workers, whatever they do, with nothing cleaned up."""
    for worker in multiprocessing.active_children():
        worker.kill()
    if sys.stdout.isatty():
        os.write(1, b"\x1b[?25h")  # a progress bar had hidden the cursor
    os._exit(code)
