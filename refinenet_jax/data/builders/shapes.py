"""A small data set that is drawn on the spot: five shapes on a textured ground.

It lets every command run without a download. Objects hide each other, a class's colour
is a strong hint but its form decides, and label maps have the ignored border around
objects that VOC's have.
"""

import colorsys
import hashlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds

from refinenet_jax.data.builders.records import (
    SegmentationBuilder,
    encoded_example,
)
from refinenet_jax.data.class_table import read_class_table
from refinenet_jax.data.request import Request
from refinenet_jax.errors import UserError
from refinenet_jax.labels import IGNORE_LABEL
from refinenet_jax.pictures import encode

HEIGHT = 96
WIDTH = 128
SPLIT_SIZES = {"train": 400, "val": 100}

_BORDER = 1.0  # pixels on either side of an outline that are labelled 255
_NOISE = 6.0  # standard deviation in grey levels
_HUE_SPREAD = 0.04  # of a class's colours around its own hue, in turns

Floats = npt.NDArray[np.float64]


class Shapes(SegmentationBuilder):
    """Writes the splits train and val.

    Raises:
      UserError: the request has a manual_dir: nothing is read.
    """

    name = "shapes"

    def __init__(self, request: Request) -> None:
        if request.manual_dir:
            raise UserError(
                f"config.data.manual_dir={request.manual_dir!r}: shapes is drawn, not "
                "read; leave the field empty or choose another config.data.name"
            )
        super().__init__(request)

    def find_examples(
        self, downloads: tfds.download.DownloadManager
    ) -> dict[str, Sequence[tuple[str, int]]]:
        """Split and number of each picture; see `SegmentationBuilder`."""
        del downloads
        recipe = f"{self.name} {self.VERSION} {HEIGHT}x{WIDTH} {SPLIT_SIZES}"
        self.info.metadata.update(
            manual_dir="",
            fingerprint=hashlib.sha256(recipe.encode()).hexdigest(),
            state="",
            left_out=[],
        )
        return {
            split: [(split, index) for index in range(size)]
            for split, size in SPLIT_SIZES.items()
        }

    def example(self, origin: tuple[str, int]) -> dict[str, Any]:
        """Draws one; see `SegmentationBuilder`."""
        split, index = origin
        image, label = draw_scene(split, index)
        num_classes = len(self.class_table.class_names)
        name = f"{split}_{index:04d}"
        return encoded_example(encode(image, "PNG"), label, name, num_classes)


def draw_scene(
    split: str, index: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draws picture `index` of a split, always the same.

    Returns:
      image uint8 [96,128,3] RGB, label uint8 [96,128] with 255 around each object.
    """
    rng = np.random.default_rng([list(SPLIT_SIZES).index(split), index])
    image = _background(rng)
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    for _ in range(rng.integers(2, 6)):
        class_id = int(rng.integers(1, len(_DISTANCES) + 1))
        x, y, size = _place(rng)
        distance = _DISTANCES[class_id - 1](x, y, size)
        opacity = np.clip(0.5 - distance, 0.0, 1.0)[..., None]
        image = image + opacity * (_paint(class_id, x / size, rng) - image)
        label[distance < 0.0] = class_id
        label[np.abs(distance) <= _BORDER] = IGNORE_LABEL
    image = image * rng.uniform(0.7, 1.2) + rng.normal(0.0, _NOISE, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), label


def _place(rng: np.random.Generator) -> tuple[Floats, Floats, float]:
    """Coordinates [96,128] around a random centre, turned at random, and a size."""
    size = rng.uniform(12.0, 26.0)
    angle = rng.uniform(0.0, 2.0 * np.pi)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    rows -= rng.uniform(0.1, 0.9) * HEIGHT
    columns -= rng.uniform(0.1, 0.9) * WIDTH
    x = np.cos(angle) * columns + np.sin(angle) * rows
    y = np.cos(angle) * rows - np.sin(angle) * columns
    return x, y, size


def _background(rng: np.random.Generator) -> Floats:
    """A ramp between two colours with smooth blotches on it: float [96,128,3]."""
    start, end = (_colour(rng.uniform(), 0.3, rng) for _ in range(2))
    x, _, _ = _place(rng)
    ramp = np.clip(0.5 + x / WIDTH, 0.0, 1.0)[..., None]
    coarse = rng.normal(0.0, 14.0, (7, 9, 3))
    blotches = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return start + ramp * (end - start) + blotches


def _paint(class_id: int, along: Floats, rng: np.random.Generator) -> Floats:
    """The colour of an object, lighter on one side: float [96,128,3]."""
    own_hue = class_id / len(_DISTANCES)
    colour = _colour(rng.normal(own_hue, _HUE_SPREAD), 1.0, rng)
    return colour * (1.0 + 0.15 * np.clip(along, -1.0, 1.0))[..., None]


def _colour(hue: float, most_saturated: float, rng: np.random.Generator) -> Floats:
    """RGB of a hue in turns, else random: float [3] in 0..255."""
    saturation = most_saturated * rng.uniform(0.5, 1.0)
    value = rng.uniform(0.4, 1.0)
    return 255.0 * np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


# Signed distances to the outlines in pixels, negative inside. x, y: float [H,W].


def _disk(x: Floats, y: Floats, size: float) -> Floats:
    return np.hypot(x, y) - size


def _box(x: Floats, y: Floats, half_width: float, half_height: float) -> Floats:
    dx, dy = np.abs(x) - half_width, np.abs(y) - half_height
    outside = np.hypot(np.maximum(dx, 0.0), np.maximum(dy, 0.0))
    return outside + np.minimum(np.maximum(dx, dy), 0.0)


def _square(x: Floats, y: Floats, size: float) -> Floats:
    return _box(x, y, 0.85 * size, 0.85 * size)


def _triangle(x: Floats, y: Floats, size: float) -> Floats:
    """Equilateral: the largest of the distances to its three sides."""
    slanted = np.sqrt(0.75) * np.abs(x) + 0.5 * y
    return np.maximum(slanted, -y) - 0.6 * size


def _ring(x: Floats, y: Floats, size: float) -> Floats:
    return np.abs(np.hypot(x, y) - 0.75 * size) - 0.25 * size


def _cross(x: Floats, y: Floats, size: float) -> Floats:
    arm = 0.3 * size
    return np.minimum(_box(x, y, size, arm), _box(x, y, arm, size))


# In the order of the class ids 1..5.
_DISTANCES = (_disk, _square, _triangle, _ring, _cross)
assert len(_DISTANCES) + 1 == len(read_class_table("shapes").class_names)
