import colorsys

import numpy as np
import pytest

from refinenet_jax.data.transforms import ColourJitter
from tests.data.transforms.drawing import Drawing
from tests.data.transforms.pictures import (
    assert_same_again_and_input_left_alone,
    picture,
)

RED, GREEN, BLUE, CYAN = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 255, 255)


def jittered(pixels, *, brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0):
    """The pixels of a picture of one row, changed by these factors and these turns."""
    image = np.array([pixels], np.uint8)
    given = {"image": image, "label": np.zeros(image.shape[:2], np.uint8)}
    changes = [factor != 1.0 for factor in (brightness, contrast, saturation)]
    strengths = [1.0 if changed else 0.0 for changed in changes]
    jitter = ColourJitter(*strengths, 0.5 if hue else 0.0)
    result = jitter(given, Drawing(brightness, contrast, saturation, hue))
    return [tuple(int(channel) for channel in pixel) for pixel in result["image"][0]]


@pytest.mark.parametrize(
    "strengths",
    [(0.4, 0.0, 0.0, 0.0), (0.0, 0.4, 0.0, 0.0), (0.0, 0.0, 0.4, 0.0)]
    + [(0.0, 0.0, 0.0, 0.1), (0.5, 0.5, 0.5, 0.5), (0.0, 0.0, 0.0, 0.0)],
)
def test_same_generator_same_result_and_the_input_is_left_alone(strengths):
    assert_same_again_and_input_left_alone(ColourJitter(*strengths))


def test_ranges_of_the_factors():
    rng = Drawing(1.0, 1.0, 1.0, 0.0)
    ColourJitter(0.25, 1.5, 0.0, 0.1)(picture(), rng)
    assert rng.ranges == [(0.75, 1.25), (0.0, 2.5), (1.0, 1.0), (-0.1, 0.1)]


def test_brightness_multiplies():
    assert jittered([(100, 200, 50)], brightness=1.5) == [(150, 255, 75)]
    assert jittered([(100, 200, 51)], brightness=0.25) == [(25, 50, 13)]
    assert jittered([(100, 200, 50)], brightness=0.0) == [(0, 0, 0)]


def test_contrast_keeps_the_mean_grey():
    greys = [(100, 100, 100), (200, 200, 200)]
    assert jittered(greys, contrast=0.5) == [(125, 125, 125), (175, 175, 175)]
    assert jittered(greys, contrast=2.0) == [(50, 50, 50), (250, 250, 250)]
    # Grey of red, green and blue: 0.299, 0.587 and 0.114 of 255; their mean is 85.
    colours = [RED, GREEN, BLUE]
    assert jittered(colours, contrast=0.0) == [(85, 85, 85)] * 3
    # The mean grey of one of them is its own.
    assert jittered([RED], contrast=0.0) == [(76, 76, 76)]
    assert jittered([GREEN], contrast=0.0) == [(150, 150, 150)]
    assert jittered([BLUE], contrast=0.0) == [(29, 29, 29)]


def test_saturation_keeps_each_pixels_grey():
    assert jittered([RED, BLUE], saturation=0.0) == [(76, 76, 76), (29, 29, 29)]
    # Red: half of 255 and half of 76.245; half of 0 and half of 76.245.
    assert jittered([RED], saturation=0.5) == [(166, 38, 38)]
    # Grey 64.95; twice the pixel less the grey.
    assert jittered([(100, 50, 50)], saturation=2.0) == [(135, 35, 35)]
    assert jittered([(9, 9, 9)], saturation=2.0) == [(9, 9, 9)]


def test_hue_turns_the_colours_of_the_wheel():
    assert jittered([RED, GREEN, BLUE], hue=1 / 3) == [GREEN, BLUE, RED]
    assert jittered([RED, GREEN, BLUE], hue=-1 / 3) == [BLUE, RED, GREEN]
    assert jittered([RED, CYAN], hue=0.5) == [CYAN, RED]
    assert jittered([(7, 7, 7), (255, 255, 255)], hue=0.2) == [(7,) * 3, (255,) * 3]


@pytest.mark.parametrize("turns", [-0.5, -0.21, 0.04, 0.37])
def test_hue_is_that_of_hsv(turns):
    pixels = np.random.default_rng(0).integers(0, 256, (500, 3))
    changed = jittered(pixels, hue=turns)
    for pixel, result in zip(pixels / 255, changed, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        expected = colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value)
        # Half a level is the rounding; float32 adds less than a thousandth.
        np.testing.assert_allclose(result, 255 * np.array(expected), rtol=0, atol=0.501)


def test_the_order_is_brightness_contrast_saturation_hue_and_one_rounding():
    pixels = [(101, 31, 11), (60, 90, 200)]
    changed = jittered(pixels, brightness=1.3, contrast=0.7, saturation=1.6, hue=0.25)
    image = np.clip(1.3 * np.array(pixels), 0, 255)
    grey = image @ (0.299, 0.587, 0.114)
    image = np.clip(0.7 * image + 0.3 * grey.mean(), 0, 255)
    grey = image @ (0.299, 0.587, 0.114)
    image = np.clip(1.6 * image - 0.6 * grey[:, np.newaxis], 0, 255)
    for result, pixel in zip(changed, image / 255, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        expected = colorsys.hsv_to_rgb((hue + 0.25) % 1, saturation, value)
        np.testing.assert_allclose(result, 255 * np.array(expected), rtol=0, atol=0.501)


def test_the_label_and_a_picture_without_changes_stay():
    result = ColourJitter(0.4, 0.4, 0.4, 0.1)(picture(), np.random.default_rng(0))
    np.testing.assert_array_equal(result["label"], picture()["label"])
    result = ColourJitter(0.0, 0.0, 0.0, 0.0)(picture(), np.random.default_rng(0))
    np.testing.assert_array_equal(result["image"], picture()["image"])


def test_factors_cover_their_range():
    given = {"image": np.full((1, 1, 3), 100, np.uint8), "label": np.zeros((1, 1))}
    jitter = ColourJitter(0.5, 0.0, 0.0, 0.0)
    levels = [
        int(jitter(given, np.random.default_rng(seed))["image"][0, 0, 0])
        for seed in range(400)
    ]
    assert 50 <= min(levels) <= 52 and 148 <= max(levels) <= 150
    # Uniform in [50, 150]: mean 100, standard error 1.4.
    assert abs(np.mean(levels) - 100) < 6
