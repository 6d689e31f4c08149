"""Processes that make records beside the one that writes them, in the same order.

They are plain subprocesses, which import this module and nothing of the program that
started them: it may be a script that does its work on import.
"""

import collections
import concurrent.futures
import contextlib
import itertools
import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import cloudpickle

from refinenet_jax.errors import UserError

Make = Callable[[Sequence[Any]], Iterator[Any]]

# As many as one process can write for.
_MOST = 32
# Records that are ready or asked for, by worker: what is in memory stays the same.
_AHEAD = 3
# Workers take seconds to start.
_SECONDS_ALONE, _SECONDS_LEFT = 2.0, 6.0
_PROGRAM = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    f"from {__name__} import serve; serve()"
)


def number_of_workers() -> int:
    """One for each core that this process may use."""
    return min(len(os.sched_getaffinity(0)), _MOST)


@contextlib.contextmanager
def making(function: Callable[[Any], Any], number: int) -> Iterator[Make]:
    """Gives what calls a function with each of some arguments, results in order.

    It begins in this process; where that takes long, workers go on.

    Args:
      function: see `Workers`.
      number: of the calls that will be made in all.
    """
    with contextlib.ExitStack() as stack:
        begin, done = time.monotonic(), 0
        workers: Workers | None = None

        def worth_it() -> bool:
            spent = time.monotonic() - begin
            left = spent * (number - done) / max(done, 1)
            return spent > _SECONDS_ALONE and left > _SECONDS_LEFT

        def make(arguments: Sequence[Any]) -> Iterator[Any]:
            nonlocal workers, done
            for place, argument in enumerate(arguments):
                cores = number_of_workers()
                if workers is None and cores > 1 and worth_it():
                    workers = stack.enter_context(
                        contextlib.closing(Workers(function, cores))
                    )
                if workers is not None:
                    yield from workers.map(arguments[place:])
                    return
                yield function(argument)
                done += 1

        yield make


class Workers:
    """A function that is called in several processes, its results in order.

    Args:
      function: what to call; it is pickled, by value where it is of `__main__`.
      number: of processes.
    """

    def __init__(self, function: Callable[[Any], Any], number: int) -> None:
        self._ahead = _AHEAD * number
        self._processes: list[subprocess.Popen[bytes]] = []
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._threads = concurrent.futures.ThreadPoolExecutor(number)
        start = pickle.dumps(sys.path) + cloudpickle.dumps(function)
        for _ in range(number):
            process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self._processes.append(process)
            _send(process, start)
            self._idle.put(process)

    def map(self, arguments: Iterable[Any]) -> Iterator[Any]:
        """The results in the arguments' order; what the function raises is raised.

        Raises:
          UserError: a process has ended, such as for want of memory.
        """
        waiting = iter(arguments)
        asked = collections.deque(
            self._threads.submit(self._ask, argument)
            for argument in itertools.islice(waiting, self._ahead)
        )
        while asked:
            result = asked.popleft().result()
            for argument in itertools.islice(waiting, 1):
                asked.append(self._threads.submit(self._ask, argument))
            yield result

    def close(self) -> None:
        """Ends the processes, whatever they do."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._threads.shutdown()
        for process in self._processes:
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # what it did not read any more
                    stream and stream.close()

    def _ask(self, argument: Any) -> Any:
        process = self._idle.get()
        try:
            _send(process, pickle.dumps(argument))
            assert process.stdout is not None
            result, error = pickle.load(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as broken:
            # Its pipe is closed a moment before it can be asked how it ended.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
            raise UserError(
                f"a process that prepares data has ended (code {process.returncode}), as "
                "it does where memory is short: begin again, where it is not"
            ) from broken
        finally:
            self._idle.put(process)
        if error is not None:
            raise error
        return result


def _send(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)
    process.stdin.flush()


def serve() -> None:
    """Answers calls until there are no more: what a worker does.

    From standard input it reads the function and then arguments; to standard output it
    writes pairs of result and exception.
    """
    # Sent to all processes of a job, it is for the one that writes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.WARNING)  # said where it was started
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    with contextlib.suppress(EOFError, BrokenPipeError):
        _answer_calls(sys.stdin.buffer, answers)


def _answer_calls(calls: BinaryIO, answers: BinaryIO) -> None:
    function = pickle.load(calls)
    while True:
        argument = pickle.load(calls)
        try:
            answer = pickle.dumps((function(argument), None))
        except Exception as error:  # noqa: BLE001 - it is raised where it was called
            answer = pickle.dumps((None, error))
        answers.write(answer)
        answers.flush()
