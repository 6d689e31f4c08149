import numpy as np
import pytest

from refinenet_jax.data.transforms import RandomCrop
from tests.data.transforms.pictures import (
    FILL,
    assert_same_again_and_input_left_alone,
    picture,
)


@pytest.mark.parametrize("size", [(30, 41), (50, 41), (64, 80)])
def test_same_generator_same_result_and_the_input_is_left_alone(size):
    assert_same_again_and_input_left_alone(RandomCrop(*size, FILL))


def test_crop_positions_are_uniform():
    tops, lefts = np.zeros(5, int), np.zeros(4, int)
    for seed in range(2000):
        rng = np.random.default_rng(seed)
        result = RandomCrop(40, 57, FILL)(picture(), rng)
        assert result["label"].shape == (40, 57)
        tops[result["image"][0, 0, 1] // 4] += 1
        lefts[result["label"][0, 0]] += 1
    # Binomial: 400 and 500 expected with standard deviations 18 and 19.
    assert np.all(np.abs(tops - 400) < 80) and np.all(np.abs(lefts - 500) < 80)


def test_crop_pads_a_small_picture_somewhere_and_keeps_all_of_it():
    corners = set()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        result = RandomCrop(46, 63, FILL)(picture(), rng)
        inside = result["label"] != 255
        assert inside.sum() == 44 * 60
        rows, columns = np.nonzero(inside)
        top, left = rows.min(), columns.min()
        corners.add((int(top), int(left)))
        shown = result["image"][top : top + 44, left : left + 60]
        np.testing.assert_array_equal(shown, picture()["image"])
        assert np.all(result["image"][~inside] == FILL)
    assert corners == {(top, left) for top in range(3) for left in range(4)}


def test_crop_of_a_picture_that_is_small_along_one_edge():
    result = RandomCrop(50, 41, FILL)(picture(), np.random.default_rng(1))
    ignored_rows = np.all(result["label"] == 255, axis=1)
    assert result["label"].shape == (50, 41) and ignored_rows.sum() == 6
    first = int(result["label"][~ignored_rows][0, 0])
    np.testing.assert_array_equal(
        result["label"][~ignored_rows], picture()["label"][:, first : first + 41]
    )
