"""What the transforms that move pixels share: they decide, and a view computes."""

import abc
from collections.abc import Sequence

import numpy as np

from refinenet_jax.data.transforms.example import Example, Transform
from refinenet_jax.data.transforms.view import View


class Geometric(abc.ABC):
    """A transform that only moves pixels, image and label alike."""

    @abc.abstractmethod
    def place(self, view: View, rng: np.random.Generator) -> View:
        """Draws what it does, and says so without computing a pixel."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """See `Transform`: what `place` says, alone."""
        return self.place(View.of(example), rng).render()


def transformed(
    example: Example, transforms: Sequence[Transform], rng: np.random.Generator
) -> View:
    """Applies transforms in order, with one random generator.

    Those in a row that are `Geometric` draw one after the other, and what comes of all
    of them is computed once, of the last window alone: an image that is still encoded is
    decoded only then, in less detail where less is seen.

    Args:
      example: label uint8 [H,W], image [H,W,C] or an `EncodedImage`.
      transforms: any.
      rng: of this example.

    Returns:
      A view, whose `render` gives the example.

    Raises:
      UserError: the image cannot be decoded.
    """
    view = View.of(example)
    for transform in transforms:
        if isinstance(transform, Geometric):
            view = transform.place(view, rng)
        else:
            view = View.of(transform(view.render(), rng))
    return view
