"""Curves as pages draw them: places in a picture of fixed size, and numbers along it."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT = 62, 14  # beside the curve
_TOP, _BOTTOM = 10, 28
_MOST_POINTS = 300  # of a curve; of more, means are drawn
_TICKS = 5

Place = tuple[float, str]


@dataclasses.dataclass(frozen=True)
class Curve:
    """What a template needs to draw one.

    Attributes:
        title: what is drawn.
        told: the latest value and the range, in words.
        points: x and y of each, from the top left corner.
        across: x and text of each number on the lower edge.
        upward: y and text of each number on the left edge.
        marked: whether each point is a mark.
    """

    title: str
    told: str
    points: list[tuple[float, float]]
    across: list[Place]
    upward: list[Place]
    marked: bool

    @property
    def line(self) -> str:
        """The points as SVG has them."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


def curve(
    title: str,
    steps: Sequence[int],
    values: Sequence[float],
    last_step: int,
    *,
    digits: str = ".3g",
    marked: bool = False,
) -> Curve | None:
    """One value over the steps of a run, which ends with last_step; None without any.

    digits: how numbers are written, as `format` has it.
    """
    if not values:
        return None
    y_ticks = _ticks(min(values), max(values))
    low, high = y_ticks[0], y_ticks[-1]
    x_ticks = [x for x in _ticks(0, last_step) if x <= last_step]
    told = (
        f"{values[-1]:{digits}} at step {steps[-1]:,}; least {min(values):{digits}}, "
        f"greatest {max(values):{digits}}"
    )
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - _TOP - _BOTTOM

    def x_of(step: float) -> float:
        return LEFT + width * step / last_step

    def y_of(value: float) -> float:
        return _TOP + height * (high - value) / (high - low)

    points = zip(_thinned(steps), _thinned(values), strict=True)
    return Curve(
        title,
        told,
        [(x_of(step), y_of(value)) for step, value in points],
        [(x_of(tick), _short(tick)) for tick in x_ticks],
        [(y_of(tick), f"{tick:.4g}") for tick in y_ticks],
        marked,
    )


def _thinned(values: Sequence[float]) -> list[float]:
    """At most so many, means of those that follow each other."""
    parts = np.array_split(
        np.asarray(values, np.float64), min(len(values), _MOST_POINTS)
    )
    return [float(part.mean()) for part in parts]


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from below `low` to above `high`, two to six."""
    span = (high - low) or abs(high) or 1.0
    rough = span / (_TICKS - 1)
    size = 10.0 ** math.floor(math.log10(rough))
    gap = next(size * by for by in (1, 2, 5, 10) if size * by >= rough)
    first = math.floor(low / gap + 1e-9)
    last = max(math.ceil(high / gap - 1e-9), first + 1)
    return [gap * place for place in range(first, last + 1)]


def _short(step: float) -> str:
    """20000 → "20k"."""
    return f"{step / 1000:g}k" if step >= 10_000 else f"{step:g}"
