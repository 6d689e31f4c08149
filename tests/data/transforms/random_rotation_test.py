import numpy as np
import pytest

from refinenet_jax.data.transforms import RandomRotation
from tests.data.transforms.drawing import Drawing
from tests.data.transforms.pictures import (
    FILL,
    assert_same_again_and_input_left_alone,
    picture,
)


def turned(given: dict, degrees: float) -> dict:
    return RandomRotation(180.0, FILL)(given, Drawing(degrees))


def test_same_generator_same_result_and_the_input_is_left_alone():
    assert_same_again_and_input_left_alone(RandomRotation(30.0, FILL))


def test_range_of_the_angle():
    rng = Drawing(3.0)
    RandomRotation(10.0, FILL)(picture(), rng)
    assert rng.ranges == [(-10.0, 10.0)]


def test_no_angle_changes_nothing():
    result = RandomRotation(0.0, FILL)(picture(), np.random.default_rng(0))
    np.testing.assert_array_equal(result["image"], picture()["image"])
    np.testing.assert_array_equal(result["label"], picture()["label"])


@pytest.mark.parametrize("key", ["image", "label"])
def test_half_a_turn_is_exact(key):
    result = turned(picture(), 180.0)
    np.testing.assert_array_equal(result[key], picture()[key][::-1, ::-1])


@pytest.mark.parametrize("degrees", [90.0, -90.0])
def test_a_quarter_turn_is_exact_and_what_lies_outside_is_ignored(degrees):
    # Both lengths are even: pixel centres come to lie on pixel centres.
    result = turned(picture(), degrees)
    quarters = 1 if degrees > 0 else -1
    image, label = picture()["image"], picture()["label"]
    seen = np.rot90(image[:, 8:52], quarters), np.rot90(label[:, 8:52], quarters)
    np.testing.assert_array_equal(result["image"][:, 8:52], seen[0])
    np.testing.assert_array_equal(result["label"][:, 8:52], seen[1])
    for side in (np.s_[:, :8], np.s_[:, 52:]):
        assert np.all(result["image"][side] == FILL)
        assert np.all(result["label"][side] == 255)


@pytest.mark.parametrize("degrees", [-170.0, -33.0, -2.0, 1.0, 14.0, 45.0, 100.0])
@pytest.mark.parametrize("size", [(44, 60), (45, 31)])
def test_every_pixel_comes_from_where_geometry_says(degrees, size):
    height, width = size
    result = turned(picture(height, width), degrees)
    # Complex numbers turn counter-clockwise where up is positive: rows count down.
    rows, columns = np.mgrid[:height, :width]
    place = (columns - (width - 1) / 2) - 1j * (rows - (height - 1) / 2)
    source = place * np.exp(-1j * np.radians(degrees))
    column, row = source.real + (width - 1) / 2, -source.imag + (height - 1) / 2
    beyond = np.maximum(
        np.abs(column - (width - 1) / 2) - width / 2,
        np.abs(row - (height - 1) / 2) - height / 2,
    )
    inside = result["label"] != 255
    # OpenCV's coordinates are exact to a thousandth of a pixel or better.
    assert np.all(inside[beyond < -1e-3]) and not np.any(inside[beyond > 1e-3])
    assert np.all(result["image"][~inside] == FILL)
    nearest = np.abs(result["label"][inside] - column[inside])
    assert nearest.max() <= 0.5 + 1e-3
    # At most half a pixel beyond the outermost centres, its value goes on.
    columns_shown = np.clip(column, 0, width - 1)[inside]
    rows_shown = np.clip(row, 0, height - 1)[inside]
    red, green, constant = np.moveaxis(result["image"][inside].astype(float), -1, 0)
    # Half a level is the rounding.
    assert np.abs(red - 4 * columns_shown).max() <= 0.5 + 4e-3
    assert np.abs(green - 4 * rows_shown).max() <= 0.5 + 4e-3
    assert np.all(constant == 77)
