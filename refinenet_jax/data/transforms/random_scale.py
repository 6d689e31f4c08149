"""Larger or smaller pictures."""

import dataclasses
import math

import numpy as np

from refinenet_jax.data.transforms.geometric import Geometric
from refinenet_jax.data.transforms.view import View


@dataclasses.dataclass(frozen=True)
class RandomScale(Geometric):
    """Resizes by a factor drawn uniformly from [minimum, maximum], in steps or not.

    Lin et al. 2017, released training code: one of 0.7, 0.8, ..., 1.3.

    Attributes:
      minimum: the smallest factor.
      maximum: the largest factor; drawn itself only if it is a whole number of steps
        above the smallest.
      step: distance of neighbouring factors; 0.0 for any factor of the range.
    """

    minimum: float
    maximum: float
    step: float

    def place(self, view: View, rng: np.random.Generator) -> View:
        """Draws the factor."""
        height, width = view.size
        factor = self._factor(rng)
        return view.resized(height * factor, width * factor)

    def _factor(self, rng: np.random.Generator) -> float:
        if self.step == 0.0:
            return rng.uniform(self.minimum, self.maximum)
        # (1.3 - 0.7) / 0.1 is a little more than 6; others are a little less.
        steps = math.floor((self.maximum - self.minimum) / self.step + 1e-6)
        return self.minimum + self.step * int(rng.integers(steps + 1))
