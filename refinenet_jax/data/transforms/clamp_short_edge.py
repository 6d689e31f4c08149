"""Keeps pictures from being too small or too large."""

import dataclasses

import numpy as np

from refinenet_jax.data.transforms.geometric import Geometric
from refinenet_jax.data.transforms.view import View


@dataclasses.dataclass(frozen=True)
class ClampShortEdge(Geometric):
    """Brings the short edge of a picture into [minimum, maximum] pixels.

    The aspect ratio is kept up to rounding. Lin et al. 2017, released training code:
    [450, 1100] before augmentation.
    """

    minimum: int
    maximum: int

    def place(self, view: View, rng: np.random.Generator) -> View:
        """Draws nothing from rng."""
        height, width = view.size
        short = min(height, width)
        clamped = min(max(short, self.minimum), self.maximum)
        return view.resized(height * clamped / short, width * clamped / short)
