"""Mirrored pictures."""

import dataclasses

import numpy as np

from refinenet_jax.data.transforms.example import Example


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
