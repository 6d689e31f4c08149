"""A window anywhere."""

import dataclasses

import numpy as np

from refinenet_jax.data.transforms.example import Example
from refinenet_jax.data.transforms.window import cut, random_start


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
        height, width = example["label"].shape
        return cut(
            example,
            top=random_start(height, self.height, rng),
            left=random_start(width, self.width, rng),
            height=self.height,
            width=self.width,
            fill=self.fill,
        )
