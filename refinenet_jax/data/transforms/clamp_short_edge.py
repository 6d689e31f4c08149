"""Keeps pictures from being too small or too large."""

import dataclasses

import numpy as np

from refinenet_jax.data.transforms.example import Example
from refinenet_jax.data.transforms.resize import resize


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
        return resize(
            example, height=height * clamped / short, width=width * clamped / short
        )
