"""Mean and deviation of each channel of pictures that are not RGB.

They are measured while a data set is prepared or checked, and kept beside its examples.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from etils import epath

# float64 [3,C]: how many finite values there are, their mean, and their mean square
# deviation from it.
Moments = npt.NDArray[np.float64]

_DIGITS = 6  # of what is given to networks


def moments_file(folder: epath.Path, split: str) -> epath.Path:
    """Where those of the examples of a TFDS split are kept, [N,3,C]."""
    return folder / f"channels-{split}.moments"


def moments_of(pixels: npt.NDArray[Any]) -> Moments:
    """Of a picture [H,W,C]; what is no finite number does not count."""
    values = pixels.reshape(-1, pixels.shape[2])
    if values.dtype.kind != "f" or np.isfinite(values).all():
        mean = values.mean(0, dtype=np.float64)
        return np.stack(
            [np.full(mean.shape, float(len(values))), mean, _deviations(values, mean)]
        )
    return np.stack([_of_finite(channel) for channel in values.T], axis=1)


def _of_finite(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """float64 [3] of the finite ones of one channel."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.zeros(3)
    mean = finite.mean(dtype=np.float64)
    return np.array([len(finite), mean, _deviations(finite, mean)])


def _deviations(values: npt.NDArray[Any], mean: Any) -> Any:
    return np.square(values - mean).mean(0, dtype=np.float64)


def combined(moments: npt.NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation over pictures, of each channel.

    A channel that is the same everywhere has deviation 1, so that it can be divided by.

    Args:
      moments: float64 [N,3,C].
    """
    count, mean, square = moments.swapaxes(0, 1)
    total = np.maximum(count.sum(0), 1)
    overall = (count * mean).sum(0) / total
    variance = (count * (square + np.square(mean - overall))).sum(0) / total
    deviation = np.sqrt(variance)
    return _rounded(overall), _rounded(np.where(deviation > 0, deviation, 1.0))


def _rounded(values: npt.NDArray[np.float64]) -> list[float]:
    """To so many digits that the order of a sum does not show."""
    return [float(f"{value:.{_DIGITS}g}") for value in values]
