"""Where a window lies in a picture, and what it shows; shared by the crops."""

import numpy as np

from refinenet_jax.data.transforms.example import Example, Pixels
from refinenet_jax.labels import IGNORE_LABEL


def random_start(length: int, window: int, rng: np.random.Generator) -> int:
    """Draws where a window starts along one edge of a picture, uniformly.

    Args:
      length: pixels of the picture along that edge.
      window: pixels of the window. Where they are more than the picture's, the
        picture lies wholly in the window and the start is 0 or negative.
      rng: the generator to draw from.
    """
    spare = length - window
    return int(rng.integers(min(spare, 0), max(spare, 0) + 1))


def cut(
    example: Example,
    *,
    top: int,
    left: int,
    height: int,
    width: int,
    fill: tuple[int, int, int],
) -> Example:
    """Cuts out a window; where it sticks out, the image is `fill` and the label 255."""
    image_fill = np.array(fill, np.uint8)
    label_fill = np.array(IGNORE_LABEL, np.uint8)
    size = (height, width)
    return {
        **example,
        "image": _cut(example["image"], top, left, size, image_fill),
        "label": _cut(example["label"], top, left, size, label_fill),
    }


def _cut(
    pixels: Pixels, top: int, left: int, size: tuple[int, int], fill: Pixels
) -> Pixels:
    window = np.empty((*size, *pixels.shape[2:]), np.uint8)
    window[...] = fill
    seen = pixels[max(top, 0) : top + size[0], max(left, 0) : left + size[1]]
    row, column = max(-top, 0), max(-left, 0)
    height, width = seen.shape[:2]
    window[row : row + height, column : column + width] = seen
    return window
