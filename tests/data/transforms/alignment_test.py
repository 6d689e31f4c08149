"""Image and label stay together, whatever transforms a recipe chains.

The label is painted into the image: red is four times the column, green four times the
row, and the label is one of the two. Where a pixel came from can then be read from the
image and from the label, to fractions of a pixel.
"""

import dataclasses
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pytest

from refinenet_jax.data.transforms import (
    ClampShortEdge,
    ClassCentredCrop,
    ColourJitter,
    Example,
    RandomBlur,
    RandomCrop,
    RandomFlip,
    RandomRotation,
    RandomScale,
    Transform,
    transformed,
)
from tests.data.transforms.pictures import FILL, picture

Change = Callable[[Example], Example]


@dataclasses.dataclass(frozen=True)
class Case:
    """A chain of transforms and how far image and label may be apart after it.

    The bounds are what was seen. Each nearest neighbour is half a pixel away at most;
    after a resize the mean is not 0 because OpenCV's bytes come out a tenth of a level
    too low.

    Attributes:
      name: for pytest.
      chain: applied in order, with one generator.
      farthest: bound of the distance in any pixel, in pixels of the given picture.
      mean: bound of the mean signed distance of all pixels of all seeds.
      margin: pixels beside an edge that are not compared.
    """

    name: str
    chain: Sequence[Transform]
    farthest: float
    mean: float
    margin: int = 0


CASES = [
    Case("enlarged", [ClampShortEdge(80, 200)], 0.5, 0.030),
    Case("shrunk", [ClampShortEdge(10, 27)], 0.5, 0.008),
    Case("scale", [RandomScale(0.5, 2.0, 0.0)], 0.5, 0.033),
    Case("scale up", [RandomScale(1.0, 2.0, 0.0)], 0.5, 0.035),
    Case("scale in steps", [RandomScale(0.7, 1.3, 0.1)], 0.5, 0.024),
    Case("flip", [RandomFlip(0.5)], 0.0, 0.0),
    Case("crop", [RandomCrop(30, 41, FILL)], 0.0, 0.0),
    Case("crop, higher", [RandomCrop(50, 41, FILL)], 0.0, 0.0),
    Case("crop, larger", [RandomCrop(64, 80, FILL)], 0.0, 0.0),
    Case("class crop", [ClassCentredCrop(30, 41, FILL)], 0.0, 0.0),
    Case("class crop, higher", [ClassCentredCrop(50, 41, FILL)], 0.0, 0.0),
    Case("class crop, larger", [ClassCentredCrop(64, 80, FILL)], 0.0, 0.0),
    Case("rotation", [RandomRotation(30.0, FILL)], 0.5, 2e-6),
    Case("rotation, any", [RandomRotation(180.0, FILL)], 0.5, 2e-6),
    Case("blur", [RandomBlur(2.0)], 0.0, 0.0, margin=6),
    Case("no colour", [ColourJitter(0.0, 0.0, 0.0, 0.0)], 0.0, 0.0),
    Case(
        "light recipe",
        [
            ClampShortEdge(35, 200),
            RandomScale(0.5, 2.0, 0.0),
            RandomFlip(0.5),
            RandomCrop(50, 41, FILL),
        ],
        0.5,
        0.030,
    ),
    Case(
        "the paper's recipe",
        [
            ClampShortEdge(45, 110),
            RandomScale(0.7, 1.3, 0.1),
            RandomFlip(0.5),
            ClassCentredCrop(40, 47, FILL),
        ],
        0.5,
        0.031,
    ),
    Case(
        "everything",
        [
            ClampShortEdge(45, 110),
            RandomScale(0.5, 2.0, 0.0),
            RandomRotation(20.0, FILL),
            RandomFlip(0.5),
            ClassCentredCrop(60, 71, FILL),
            ColourJitter(0.0, 0.0, 0.0, 0.0),
            RandomBlur(1.0),
        ],
        0.5,
        0.002,
        margin=3,
    ),
]


def distances(case: Case, seed: int, change: Change) -> np.ndarray:
    """Image minus label, in columns or in rows, where there is a picture.

    Args:
      case: the transforms.
      seed: decides the picture's size and the random numbers; even: the label is the
        column, odd: the row.
      change: what is done to the given picture first.
    """
    rng = np.random.default_rng(seed)
    half_height, half_width = rng.integers(15, 30, 2).tolist()
    given = picture(2 * half_height, 2 * half_width + 1)
    channel = seed % 2
    given["label"] = np.ascontiguousarray(given["image"][..., channel] // 4)
    values = {*np.unique(given["label"]).tolist(), 255}
    example = transformed(change(given), case.chain, rng).render()
    image, label = example["image"], example["label"]
    assert image.shape == (*label.shape, 3)
    assert image.dtype == label.dtype == np.uint8
    assert image.flags.c_contiguous and label.flags.c_contiguous
    assert example["name"] == "x"
    assert set(np.unique(label).tolist()) <= values
    inside = _away_from_edges(label != 255, case.margin)
    return image[..., channel][inside] / 4 - label[inside]


def _away_from_edges(inside: np.ndarray, margin: int) -> np.ndarray:
    kernel = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
    return cv2.erode(
        inside.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0
    ).astype(bool)


def farthest_and_mean(
    case: Case, num_seeds: int, change: Change
) -> tuple[float, float]:
    """The largest distance of all seeds, and the mean signed distance of all pixels."""
    found = [distances(case, seed, change) for seed in range(num_seeds)]
    together = np.concatenate(found)
    return float(np.abs(together).max()), float(abs(together.mean()))


def unchanged(given: Example) -> Example:
    return given


def image_moved(given: Example, pixels: float) -> Example:
    """Down and to the right, without the label; at the edges its values go on."""
    matrix = np.array([[1, 0, pixels], [0, 1, pixels]])
    size = given["label"].shape[::-1]
    moved = cv2.warpAffine(
        given["image"],
        matrix,
        size,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return {**given, "image": moved}


def label_turned(given: Example) -> Example:
    """By half a turn, without the image: rows and columns are mirrored."""
    return {**given, "label": np.ascontiguousarray(given["label"][::-1, ::-1])}


by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.mark.first_cases(8)
@by_name
def test_image_and_label_stay_aligned(case):
    farthest, mean = farthest_and_mean(case, 1000, unchanged)
    assert farthest <= case.farthest
    assert mean <= case.mean


@by_name
def test_the_bounds_notice_half_a_pixel(case):
    farthest, mean = farthest_and_mean(case, 100, lambda x: image_moved(x, 0.5))
    assert farthest > case.farthest
    assert mean > 0.4 > 5 * case.mean


@by_name
def test_the_bounds_notice_a_pixel(case):
    farthest, mean = farthest_and_mean(case, 100, lambda x: image_moved(x, 1.0))
    assert farthest > case.farthest
    assert mean > 0.8 > 5 * case.mean


@by_name
def test_the_bounds_notice_a_label_that_is_mirrored_alone(case):
    farthest, _ = farthest_and_mean(case, 20, label_turned)
    assert farthest > 20


def plain_nearest(example: Example, rng: np.random.Generator) -> Example:
    """A resize with the label interpolation that drops the halves."""
    size = (93, 70)
    return {
        **example,
        "image": cv2.resize(example["image"], size, interpolation=cv2.INTER_LINEAR),
        "label": cv2.resize(example["label"], size, interpolation=cv2.INTER_NEAREST),
    }


def label_about_the_corner(example: Example, rng: np.random.Generator) -> Example:
    """A turn by 20 degrees whose label turns about a centre half a pixel away."""
    height, width = example["label"].shape

    def turned(pixels: np.ndarray, column: float, row: float, **options) -> np.ndarray:
        matrix = cv2.getRotationMatrix2D((column, row), 20.0, 1.0)
        return cv2.warpAffine(pixels, matrix, (width, height), **options)

    image = turned(
        example["image"],
        (width - 1) / 2,
        (height - 1) / 2,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    label = turned(
        example["label"],
        width / 2,
        height / 2,
        flags=cv2.INTER_NEAREST,
        borderValue=255,
    )
    return {**example, "image": image, "label": label}


@pytest.mark.parametrize(
    ("wrong", "right"),
    [(plain_nearest, "scale up"), (label_about_the_corner, "rotation")],
)
def test_the_bounds_notice_wrong_pixel_centres(wrong, right):
    (bounds,) = [case for case in CASES if case.name == right]
    case = dataclasses.replace(bounds, chain=[wrong])
    farthest, mean = farthest_and_mean(case, 100, unchanged)
    assert farthest > bounds.farthest + 0.1
    assert mean > bounds.mean
