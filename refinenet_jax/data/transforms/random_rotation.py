"""Turned pictures."""

import dataclasses
import math

import cv2
import numpy as np
import numpy.typing as npt

from refinenet_jax.data.transforms.example import Example
from refinenet_jax.labels import IGNORE_LABEL


@dataclasses.dataclass(frozen=True)
class RandomRotation:
    """Turns the picture about its centre; its size stays.

    The image is interpolated linearly, the label is the nearest pixel's. Where the
    result shows what lay outside, the image is `fill` and the label 255.

    Attributes:
      degrees: the angle is drawn uniformly from [-degrees, degrees]; counter-clockwise
        is positive.
      fill: RGB, 0..255.
    """

    degrees: float
    fill: tuple[int, int, int]

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Draws the angle."""
        image, label = example["image"], example["label"]
        matrix = _source_of_target(
            label.shape, rng.uniform(-self.degrees, self.degrees)
        )
        nearest = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        size = label.shape[::-1]
        turned_label = cv2.warpAffine(
            label, matrix, size, flags=nearest, borderValue=IGNORE_LABEL
        )
        # At the edge, `fill` must not shine into pixels whose label counts.
        turned_image = cv2.warpAffine(
            image,
            matrix,
            size,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        inside = cv2.warpAffine(np.ones_like(label), matrix, size, flags=nearest)
        turned_image[inside == 0] = self.fill
        return {**example, "image": turned_image, "label": turned_label}


def _source_of_target(
    shape: tuple[int, int], degrees: float
) -> npt.NDArray[np.float64]:
    """float64 [2,3]: (column, row, 1) of the result -> (column, row) of the picture.

    OpenCV counts pixel centres: the first pixel's is 0, the picture's (length - 1) / 2.
    """
    row, column = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array(
        [
            [cosine, -sine, column - cosine * column + sine * row],
            [sine, cosine, row - sine * column - cosine * row],
        ]
    )
