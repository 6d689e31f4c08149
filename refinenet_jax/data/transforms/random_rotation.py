"""Turned pictures."""

import dataclasses

import numpy as np

from refinenet_jax.data.transforms.geometric import Geometric
from refinenet_jax.data.transforms.view import View


@dataclasses.dataclass(frozen=True)
class RandomRotation(Geometric):
    """Turns the picture about its centre; its size stays.

    The image is interpolated linearly, the label is the nearest pixel's. Where the
    result shows what lay outside, the image is `fill` and the label 255.

    Attributes:
      degrees: the angle is drawn uniformly from [-degrees, degrees]; counter-clockwise
        is positive.
      fill: a value for each channel.
    """

    degrees: float
    fill: tuple[float, ...]

    def place(self, view: View, rng: np.random.Generator) -> View:
        """Draws the angle."""
        return view.turned(rng.uniform(-self.degrees, self.degrees), self.fill)
