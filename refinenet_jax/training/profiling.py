"""A trace of some steps, for xprof."""

from collections.abc import Callable
from typing import Any

import jax
from etils import epath


class Profile:
    """Traces the steps from `first` to `last` and writes what they did, and when.

    Attributes:
        folder: `xprof --logdir` opens it; operations have the names of their layers.

    Args:
        folder: on disk or in a bucket; each process writes a file of its own.
        steps: first and last, or none.
        say: told when the trace is written.
    """

    def __init__(
        self, folder: epath.Path, steps: tuple[int, ...], say: Callable[[str], None]
    ):
        self.folder = folder
        self._first, self._last = steps or (0, 0)
        self._say = say
        self._tracing = False
        self._traced: list[int] = []

    def before(self, step: int) -> None:
        """To be called before each step's batch is taken."""
        if self._first <= step <= self._last and not self._tracing:
            jax.profiler.start_trace(str(self.folder))
            self._tracing = True
        if self._tracing:
            self._traced.append(step)

    def after(self, step: int, results: Any) -> None:
        """To be called with what the step returns, which only the last waits for."""
        if self._tracing and step >= self._last:
            jax.block_until_ready(results)
            self.close()

    def close(self) -> None:
        """Writes the trace, also where the run ends before the last of the steps."""
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
            self._say(
                f"traced steps {self._traced[0]} to {self._traced[-1]}: pip install "
                f"xprof, and xprof --logdir={self.folder}"
            )
        elif self._last and not self._traced:
            self._say(
                f"config.train.profile=({self._first}, {self._last}): the run had none "
                "of these steps, and nothing is traced"
            )
