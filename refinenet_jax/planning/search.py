"""The largest batch that fits, found with few compilations.

What a program needs grows in a line with its batch: two plans tell about where it meets
the memory of a device, and a third one says whether it does.
"""

from collections.abc import Callable
from typing import Any

_MOST_TRIES = 6
_LEAST_GAIN = 1.05  # of a batch, that is worth another compilation


def rounded(number: float) -> int:
    """Down to a batch that devices are quick at: 3.9 → 3, 13.2 → 12, 50 → 48."""
    step = 1 if number < 8 else 4 if number < 16 else 8
    return int(number) // step * step


def estimate(plan: dict[str, Any], batch: float) -> int:
    """About the largest batch of a device, from the plan of one; at least 0.

    batch: images of a device, less than 1 where several share one.
    """
    sizes = plan["bytes_per_device"]
    fixed = sum(sizes.get(kind, 0) for kind in ("parameters", "optimizer", "average"))
    slope = (sizes["total"] - fixed) / batch
    return max(0, rounded((sizes["available"] - fixed) / max(slope, 1)))


def largest(
    plan_of: Callable[[int], dict[str, Any]], first: int
) -> tuple[int, dict[str, Any] | None]:
    """The largest batch of a device that fits, and its plan.

    Args:
        plan_of: the plan for a batch of a device.
        first: the batch to begin with.

    Returns:
        0 and None where not even one image fits.
    """
    tried: dict[int, dict[str, Any]] = {}
    batch = first
    while batch > 0 and batch not in tried and len(tried) < _MOST_TRIES:
        tried[batch] = plan_of(batch)
        batch = _next(tried)
    fitting = [size for size, plan in tried.items() if plan["fits"]]
    best = max(fitting, default=0)
    return best, tried.get(best)


def _next(tried: dict[int, dict[str, Any]]) -> int:
    """Where the line meets the memory, between what fits and what does not."""
    fits = max((size for size, plan in tried.items() if plan["fits"]), default=0)
    too_large = min(
        (size for size, plan in tried.items() if not plan["fits"]), default=2**31
    )
    needs = {size: p["bytes_per_device"]["total"] for size, p in tried.items()}
    available = next(iter(tried.values()))["bytes_per_device"]["available"]
    sizes = sorted(needs, key=lambda size: abs(needs[size] - available))[:2]
    if len(sizes) < 2:
        guess = estimate(tried[sizes[0]], sizes[0])
    else:
        one, other = sizes
        slope = (needs[one] - needs[other]) / (one - other)
        guess = rounded(one + (available - needs[one]) / max(slope, 1))
    if guess >= too_large:  # the line was too low
        guess = rounded((fits + too_large) / 2)
    if fits and guess <= _LEAST_GAIN * fits:
        return fits
    return guess or min(1, too_large - 1)
