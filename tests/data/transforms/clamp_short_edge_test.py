import numpy as np
import pytest

from refinenet_jax.data.transforms import ClampShortEdge
from tests.data.transforms.pictures import assert_same_again_and_input_left_alone


@pytest.mark.parametrize("limits", [(80, 200), (10, 31), (10, 200)])
def test_same_generator_same_result_and_the_input_is_left_alone(limits):
    assert_same_again_and_input_left_alone(ClampShortEdge(*limits))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((375, 500), (450, 600)),  # VOC images in the recipe of the paper
        ((500, 333), (676, 450)),
        ((1200, 2400), (1100, 2200)),
        ((450, 1100), (450, 1100)),
        ((600, 700), (600, 700)),
    ],
)
def test_clamp_short_edge(size, expected):
    given = {"image": np.zeros((*size, 3), np.uint8), "label": np.zeros(size, np.uint8)}
    result = ClampShortEdge(450, 1100)(given, np.random.default_rng(0))
    assert result["label"].shape == expected
