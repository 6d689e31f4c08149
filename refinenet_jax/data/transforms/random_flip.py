"""Mirrored pictures."""

import dataclasses

import numpy as np

from refinenet_jax.data.transforms.geometric import Geometric
from refinenet_jax.data.transforms.view import View


@dataclasses.dataclass(frozen=True)
class RandomFlip(Geometric):
    """Mirrors left and right with the given probability."""

    probability: float

    def place(self, view: View, rng: np.random.Generator) -> View:
        """Draws whether to mirror."""
        return view.flipped() if rng.random() < self.probability else view
