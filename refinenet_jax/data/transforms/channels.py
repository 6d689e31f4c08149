"""OpenCV for pictures of any number of channels."""

from collections.abc import Callable
from typing import Any

import numpy as np

from refinenet_jax.data.transforms.example import Pixels

# Of how many OpenCV computes exactly; of two, say, warpAffine goes in steps of 1/32.
_GROUPS = (4, 3, 1)


def by_channels(function: Callable[[Pixels], Any], pixels: Pixels) -> Pixels:
    """What a function of OpenCV's makes of each channel of [H,W,C] -> [h,w,C].

    function: of up to four channels, none of which sees another.
    """
    total = pixels.shape[2]
    if total in _GROUPS:
        return _with_channels(np.asarray(function(pixels)))
    parts, first = [], 0
    while first < total:
        count = next(n for n in _GROUPS if n <= total - first)
        some = np.ascontiguousarray(pixels[..., first : first + count])
        parts.append(_with_channels(np.asarray(function(some))))
        first += count
    return np.concatenate(parts, axis=2)


def _with_channels(pixels: Pixels) -> Pixels:
    """OpenCV leaves the axis out where it is 1."""
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
