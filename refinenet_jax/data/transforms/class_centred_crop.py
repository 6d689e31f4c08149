"""A window around a class, so that rare classes are seen more often."""

import dataclasses

import numpy as np

from refinenet_jax.data.transforms.example import Example, Pixels
from refinenet_jax.data.transforms.random_crop import RandomCrop
from refinenet_jax.data.transforms.window import cut, random_start
from refinenet_jax.labels import IGNORE_LABEL


@dataclasses.dataclass(frozen=True)
class ClassCentredCrop:
    """Cuts out a window of height x width around a pixel of a randomly drawn class.

    Each class of the picture is equally likely, then each of its pixels. The window is
    centred on that pixel and moved back into the picture where it would stick out.
    Along an edge where the picture is smaller than the window, and in a picture whose
    label is 255 everywhere, it is placed as `RandomCrop` places it. Lin et al. 2017,
    released training code, model type 1: windows of 400 pixels.
    """

    height: int
    width: int
    fill: tuple[int, int, int]

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Draws class and pixel, then the place along edges that are too short."""
        label = example["label"]
        pixels_of_class = np.bincount(label.ravel(), minlength=256)[:IGNORE_LABEL]
        classes = np.flatnonzero(pixels_of_class)
        if len(classes) == 0:
            return RandomCrop(self.height, self.width, self.fill)(example, rng)
        drawn_class = classes[rng.integers(len(classes))]
        row, column = _nth_pixel(
            label, drawn_class, int(rng.integers(pixels_of_class[drawn_class]))
        )
        height, width = label.shape
        return cut(
            example,
            top=_start_around(row, height, self.height, rng),
            left=_start_around(column, width, self.width, rng),
            height=self.height,
            width=self.width,
            fill=self.fill,
        )


def _nth_pixel(label: Pixels, class_id: int, nth: int) -> tuple[int, int]:
    """Row and column of a class's pixel, counted from 0 in reading order."""
    row, column = divmod(np.flatnonzero(label.ravel() == class_id)[nth], label.shape[1])
    return int(row), int(column)


def _start_around(
    centre: int, length: int, window: int, rng: np.random.Generator
) -> int:
    if length < window:
        return random_start(length, window, rng)
    return min(max(centre - window // 2, 0), length - window)
