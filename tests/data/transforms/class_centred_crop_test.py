import collections

import numpy as np
import pytest

from refinenet_jax.data.transforms import ClassCentredCrop, RandomCrop
from tests.data.transforms.pictures import (
    FILL,
    assert_same_again_and_input_left_alone,
    picture,
)


@pytest.mark.parametrize("size", [(30, 41), (50, 41), (64, 80)])
def test_same_generator_same_result_and_the_input_is_left_alone(size):
    assert_same_again_and_input_left_alone(ClassCentredCrop(*size, FILL))


def with_pixels(pixels: dict[tuple[int, int], int], elsewhere: int = 255) -> dict:
    """A picture of 44 x 60 with these labels, by row and column."""
    label = np.full((44, 60), elsewhere, np.uint8)
    for (row, column), class_id in pixels.items():
        label[row, column] = class_id
    return {**picture(), "label": label}


def corner(result: dict) -> tuple[int, int]:
    """Row and column of the picture that the window's first pixel shows."""
    red, green, _ = result["image"][0, 0]
    return int(green) // 4, int(red) // 4


@pytest.mark.parametrize(
    ("pixel", "expected"),
    [
        ((20, 30), (15, 26)),  # with 11 x 9, five rows above, four columns to the left
        ((5, 4), (0, 0)),
        ((6, 5), (1, 1)),
        ((0, 0), (0, 0)),
        ((38, 55), (33, 51)),
        ((39, 56), (33, 51)),
        ((43, 59), (33, 51)),
        ((43, 30), (33, 26)),
    ],
)
def test_the_window_is_centred_and_stays_in_the_picture(pixel, expected):
    given = with_pixels({pixel: 7})
    result = ClassCentredCrop(11, 9, FILL)(given, np.random.default_rng(0))
    assert result["label"].shape == (11, 9)
    assert corner(result) == expected
    row, column = pixel[0] - expected[0], pixel[1] - expected[1]
    assert result["label"][row, column] == 7
    assert np.sum(result["label"] == 7) == 1


def test_each_class_and_each_of_its_pixels_is_as_likely():
    # Class 3 has one pixel, class 254 two, class 0 all others; 255 is no class.
    pixels = {(10, 10): 3, (20, 30): 254, (30, 50): 254, (2, 2): 255, (2, 3): 255}
    given = with_pixels(pixels, elsewhere=0)
    crop = ClassCentredCrop(1, 1, FILL)
    drawn: collections.Counter[int | tuple[int, int]] = collections.Counter()
    rows = []
    for seed in range(3000):
        result = crop(given, np.random.default_rng(seed))
        class_id = int(result["label"][0, 0])
        drawn[class_id] += 1
        if class_id == 254:
            drawn[corner(result)] += 1
        if class_id == 0:
            rows.append(corner(result)[0])
    assert drawn[0] + drawn[3] + drawn[254] == 3000
    # Binomial: 1000 and 500 expected, standard deviations 26 and 20.
    assert all(abs(drawn[class_id] - 1000) < 100 for class_id in (0, 3, 254))
    assert abs(drawn[20, 30] - 500) < 80
    # Uniform over 44 rows: mean 21.5, standard error 0.4.
    assert abs(np.mean(rows) - 21.5) < 1.6 and set(rows) == set(range(44))


def test_without_a_labelled_pixel_it_is_a_random_crop():
    given = with_pixels({})
    for seed in range(20):
        result = ClassCentredCrop(30, 41, FILL)(given, np.random.default_rng(seed))
        expected = RandomCrop(30, 41, FILL)(given, np.random.default_rng(seed))
        np.testing.assert_array_equal(result["image"], expected["image"])


def test_along_an_edge_that_is_too_short_the_picture_lies_anywhere():
    given = with_pixels({(0, 30): 1})
    tops = set()
    for seed in range(200):
        result = ClassCentredCrop(47, 9, FILL)(given, np.random.default_rng(seed))
        rows, columns = np.nonzero(result["label"] == 1)
        assert list(columns) == [4]
        tops.add(int(rows[0]))
        shown = result["image"][rows[0] : rows[0] + 44]
        np.testing.assert_array_equal(shown, given["image"][:, 26:35])
        outside = np.delete(result["image"], np.s_[rows[0] : rows[0] + 44], axis=0)
        assert np.all(outside == FILL)
    assert tops == {0, 1, 2, 3}


def test_a_window_of_the_pictures_size_shows_all_of_it():
    result = ClassCentredCrop(44, 60, FILL)(picture(), np.random.default_rng(0))
    np.testing.assert_array_equal(result["image"], picture()["image"])
