"""A window anywhere."""

import dataclasses

import numpy as np

from refinenet_jax.data.transforms.geometric import Geometric
from refinenet_jax.data.transforms.view import View, Window


@dataclasses.dataclass(frozen=True)
class RandomCrop(Geometric):
    """Cuts out a window of height x width at a uniformly drawn place.

    Along an edge where the picture is smaller than the window, the picture's place in
    the window is drawn instead; around it the image is `fill` and the label 255.
    """

    height: int
    width: int
    fill: tuple[float, ...]

    def place(self, view: View, rng: np.random.Generator) -> View:
        """Draws the window's top and left; they are negative where it sticks out."""
        height, width = view.size
        top = random_start(height, self.height, rng)
        left = random_start(width, self.width, rng)
        return view.cut(Window(top, left, self.height, self.width, self.fill))


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
