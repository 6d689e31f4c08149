import collections

import numpy as np
import pytest

from refinenet_jax.data.transforms import RandomScale
from tests.data.transforms.pictures import (
    assert_same_again_and_input_left_alone,
    picture,
)


@pytest.mark.parametrize("step", [0.0, 0.1])
def test_same_generator_same_result_and_the_input_is_left_alone(step):
    assert_same_again_and_input_left_alone(RandomScale(0.5, 2.0, step))


def sizes(transform: RandomScale, given: dict, count: int) -> list[tuple[int, int]]:
    return [
        transform(given, np.random.default_rng(seed))["label"].shape
        for seed in range(count)
    ]


def test_scale_covers_its_range_evenly():
    heights = [
        height for height, _ in sizes(RandomScale(0.5, 2.0, 0.0), picture(), 400)
    ]
    assert 22 <= min(heights) <= 23 and 87 <= max(heights) <= 88
    # A uniform factor has mean 1.25; 400 draws have a standard error of 0.022.
    assert abs(np.mean(heights) / 44 - 1.25) < 0.1


@pytest.mark.parametrize(
    ("minimum", "maximum", "step", "tenths"),
    [
        (0.7, 1.3, 0.1, [7, 8, 9, 10, 11, 12, 13]),  # the paper's
        (0.5, 2.0, 0.25, [5, 7.5, 10, 12.5, 15, 17.5, 20]),
        (0.5, 1.0, 0.3, [5, 8]),
        (0.1, 0.8, 0.1, [1, 2, 3, 4, 5, 6, 7, 8]),
        (1.2, 1.2, 0.1, [12]),
        (1.0, 1.0, 0.0, [10]),
    ],
)
def test_steps_from_the_smallest_factor_to_the_largest(minimum, maximum, step, tenths):
    given = picture(40, 60)
    drawn = collections.Counter(sizes(RandomScale(minimum, maximum, step), given, 400))
    assert sorted(drawn) == [(4 * tenth, 6 * tenth) for tenth in tenths]
    # Each factor is as likely: binomial, three to six standard deviations.
    assert min(drawn.values()) > 0.55 * 400 / len(tenths)


@pytest.mark.slow
def test_every_range_of_whole_steps_ends_with_its_maximum():
    given = {
        "image": np.zeros((100, 1, 3), np.uint8),
        "label": np.zeros((100, 1), np.uint8),
    }
    for lowest in range(1, 10):
        for steps in range(1, 15):
            maximum = (lowest + steps) / 10
            transform = RandomScale(lowest / 10, maximum, 0.1)
            heights = {height for height, _ in sizes(transform, given, 200)}
            assert min(heights) == 10 * lowest
            assert max(heights) == 10 * (lowest + steps)
