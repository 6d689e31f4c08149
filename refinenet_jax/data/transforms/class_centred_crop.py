"""A window around a class, so that rare classes are seen more often."""

import dataclasses

import cv2
import numpy as np

from refinenet_jax.data.transforms.geometric import Geometric
from refinenet_jax.data.transforms.random_crop import RandomCrop, random_start
from refinenet_jax.data.transforms.view import View, Window
from refinenet_jax.labels import IGNORE_LABEL


@dataclasses.dataclass(frozen=True)
class ClassCentredCrop(Geometric):
    """Cuts out a window of height x width around a pixel of a randomly drawn class.

    Each class of the picture is equally likely, then each of its pixels, as they are
    before the picture is resized. The window is centred on that pixel and moved back
    into the picture where it would stick out. Along an edge where the picture is smaller
    than the window, and in a picture whose label is 255 everywhere, it is placed as
    `RandomCrop` places it. Lin et al. 2017, released training code, model type 1:
    windows of 400 pixels.
    """

    height: int
    width: int
    fill: tuple[float, ...]

    def place(self, view: View, rng: np.random.Generator) -> View:
        """Draws class and pixel, then the place along edges that are too short."""
        view = view.uncut()
        label = view.visible_label()
        found = cv2.calcHist([label], [0], None, [256], [0, 256])
        classes = np.flatnonzero(found.ravel()[:IGNORE_LABEL])
        if len(classes) == 0:
            return RandomCrop(self.height, self.width, self.fill).place(view, rng)
        drawn_class = classes[rng.integers(len(classes))]
        places = np.flatnonzero(label.ravel() == drawn_class)
        place = int(places[rng.integers(len(places))])
        row, column = view.where(*divmod(place, label.shape[1]))
        height, width = view.size
        top = _start_around(row, height, self.height, rng)
        left = _start_around(column, width, self.width, rng)
        return view.cut(Window(top, left, self.height, self.width, self.fill))


def _start_around(
    centre: int, length: int, window: int, rng: np.random.Generator
) -> int:
    if length < window:
        return random_start(length, window, rng)
    return min(max(centre - window // 2, 0), length - window)
