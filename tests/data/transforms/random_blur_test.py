import math

import numpy as np
import pytest

from refinenet_jax.data.transforms import RandomBlur
from tests.data.transforms.drawing import Drawing
from tests.data.transforms.pictures import assert_same_again_and_input_left_alone


def dot() -> dict:
    """A bright pixel at row 30, column 40 of 61 x 85; its label is 1."""
    image = np.zeros((61, 85, 3), np.uint8)
    image[30, 40] = (255, 128, 64)
    return {"image": image, "label": (image[..., 0] > 0).astype(np.uint8)}


def test_same_generator_same_result_and_the_input_is_left_alone():
    assert_same_again_and_input_left_alone(RandomBlur(2.0))


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.0])
def test_blur_is_gaussian(sigma):
    rng = Drawing(sigma)
    result = RandomBlur(3.0)(dot(), rng)
    assert rng.ranges == [(0.0, 3.0)]
    rows, columns = np.mgrid[:61, :85]
    squared_distance = (rows - 30) ** 2 + (columns - 40) ** 2
    density = np.exp(-squared_distance / (2 * sigma**2)) / (2 * math.pi * sigma**2)
    for channel, brightness in enumerate((255, 128, 64)):
        expected = brightness * density
        # Half a level is the rounding; the rest OpenCV's kernels of whole numbers.
        error = np.abs(result["image"][..., channel] - expected)
        assert error.max() < 0.9
    np.testing.assert_array_equal(result["label"], dot()["label"])


@pytest.mark.parametrize("sigma", [0.0, 1e-9, 0.1])
def test_hardly_any_blur_leaves_the_image(sigma):
    result = RandomBlur(1.0)(dot(), Drawing(sigma))
    np.testing.assert_array_equal(result["image"], dot()["image"])


def test_flat_areas_stay():
    flat = {
        "image": np.full((31, 47, 3), (255, 7, 100), np.uint8),
        "label": np.zeros((31, 47), np.uint8),
    }
    for seed in range(50):
        result = RandomBlur(3.0)(flat, np.random.default_rng(seed))
        np.testing.assert_array_equal(result["image"], flat["image"])
