"""Random transforms of training examples; image and label move together.

Every transform is called with an example and the random generator of that example:
`transform(example, rng) -> example`. An example holds `image`, uint8 [H,W,3] RGB, and
`label`, uint8 [H,W] class ids with 255 = ignore; other entries are passed through.
"""

import dataclasses
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from refinenet_jax.labels import IGNORE_LABEL

Example = dict[str, Any]
Pixels = npt.NDArray[np.uint8]


class Transform(Protocol):
    """Anything that turns an example into another one."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Returns the transformed example and leaves the given one as it is."""


@dataclasses.dataclass(frozen=True)
class ClampShortEdge:
    """Brings the short edge of a picture into [minimum, maximum] pixels.

    The aspect ratio is kept up to rounding. Lin et al. 2017, released training code:
    [450, 1100] before augmentation.
    """

    minimum: int
    maximum: int

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Draws nothing from rng."""
        height, width = example["label"].shape
        short = min(height, width)
        clamped = min(max(short, self.minimum), self.maximum)
        return _resize(
            example,
            height=_rounded(height * clamped / short),
            width=_rounded(width * clamped / short),
        )


@dataclasses.dataclass(frozen=True)
class RandomScale:
    """Resizes by a factor drawn uniformly from [minimum, maximum)."""

    minimum: float
    maximum: float

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Draws the factor."""
        height, width = example["label"].shape
        factor = rng.uniform(self.minimum, self.maximum)
        return _resize(
            example, height=_rounded(height * factor), width=_rounded(width * factor)
        )


@dataclasses.dataclass(frozen=True)
class RandomFlip:
    """Mirrors left and right with the given probability."""

    probability: float

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Draws whether to mirror."""
        if rng.random() >= self.probability:
            return example
        return {
            **example,
            "image": np.ascontiguousarray(example["image"][:, ::-1]),
            "label": np.ascontiguousarray(example["label"][:, ::-1]),
        }


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """Cuts out a window of height x width at a uniformly drawn place.

    Along an edge where the picture is smaller than the window, the picture's place in
    the window is drawn instead; around it the image is `fill` and the label 255.
    """

    height: int
    width: int
    fill: tuple[int, int, int]

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Draws the window's top and left; they are negative where it sticks out."""
        spare_height = example["label"].shape[0] - self.height
        spare_width = example["label"].shape[1] - self.width
        top = int(rng.integers(min(spare_height, 0), max(spare_height, 0) + 1))
        left = int(rng.integers(min(spare_width, 0), max(spare_width, 0) + 1))
        image_fill = np.array(self.fill, np.uint8)
        label_fill = np.array(IGNORE_LABEL, np.uint8)
        return {
            **example,
            "image": self._cut(example["image"], top, left, image_fill),
            "label": self._cut(example["label"], top, left, label_fill),
        }

    def _cut(self, pixels: Pixels, top: int, left: int, fill: Pixels) -> Pixels:
        window = np.empty((self.height, self.width, *pixels.shape[2:]), np.uint8)
        window[...] = fill
        seen = pixels[max(top, 0) : top + self.height, max(left, 0) : left + self.width]
        row, column = max(-top, 0), max(-left, 0)
        height, width = seen.shape[:2]
        window[row : row + height, column : column + width] = seen
        return window


def _rounded(length: float) -> int:
    return max(1, round(length))


def _resize(example: Example, *, height: int, width: int) -> Example:
    """Resizes image and label to the same size with the same pixel centres.

    Target pixel i lies at (i + 0.5) * source / target - 0.5 in all three modes.
    OpenCV's plain INTER_NEAREST does not follow this: it drops the halves, which
    shifts labels by up to half a pixel.
    """
    image, label = example["image"], example["label"]
    if label.shape == (height, width):
        return example
    shrinking = height < label.shape[0]
    size = (width, height)
    return {
        **example,
        "image": cv2.resize(
            image, size, interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
        ),
        "label": cv2.resize(label, size, interpolation=cv2.INTER_NEAREST_EXACT),
    }
