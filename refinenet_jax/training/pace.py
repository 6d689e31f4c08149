"""How fast a run goes, and how long the rest of it takes."""

import collections
import contextlib
import time
from collections.abc import Iterator

_STEPS = 100  # that the pace is measured over


class Pace:
    """The one estimate of the time left, which bar, line and page show.

    Steps take what the latest have taken on average, and evaluations what the last one
    has.

    Args:
        step: after which the run begins.
        num_steps: after which it ends.
        eval_every: steps between evaluations, of which one is at the end; 0: only that.
    """

    def __init__(self, step: int, num_steps: int, eval_every: int):
        self._step = step
        self._num_steps = num_steps
        self._eval_every = eval_every
        self._times: collections.deque[float] = collections.deque(maxlen=_STEPS + 1)
        self._paused = 0.0
        self._evaluation: float | None = None

    def step(self, step: int) -> None:
        """A step is done."""
        self._step = step
        self._times.append(time.monotonic() - self._paused)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """The time inside is that of an evaluation."""
        start = time.monotonic()
        yield
        self._evaluation = time.monotonic() - start
        self._paused += self._evaluation

    def seconds_left(self) -> float | None:
        """None before two steps are done."""
        if len(self._times) < 2:
            return None
        a_step = (self._times[-1] - self._times[0]) / (len(self._times) - 1)
        steps = self._num_steps - self._step
        return steps * a_step + self._evaluations_left() * (self._evaluation or 0.0)

    def _evaluations_left(self) -> int:
        every = self._eval_every or self._num_steps
        due = -(-self._num_steps // every)  # the last is at the end
        return due - self._step // every if self._step < self._num_steps else 0
