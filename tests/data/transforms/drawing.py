"""A random generator whose numbers a test chooses."""


class Drawing:
    """Draws the given values, in order, and remembers the ranges it was asked for."""

    def __init__(self, *values: float) -> None:
        self.ranges: list[tuple[float, float]] = []
        self._values = iter(values)

    def uniform(self, low: float, high: float) -> float:
        self.ranges.append((low, high))
        return next(self._values)
