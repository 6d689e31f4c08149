import numpy as np
import pytest

from refinenet_jax import palettes
from refinenet_jax.data.class_table import read_class_table
from refinenet_jax.labels import VOID_COLOUR


@pytest.mark.parametrize("name", ["camvid", "voc2012", "cityscapes", "ade20k"])
def test_any_eyes_tell_more_apart_than_in_the_data_sets_own(name):
    own = np.array(read_class_table(name).palette)
    distinct = np.array(palettes.distinct(len(own)))
    assert len(np.unique(distinct, axis=0)) == len(own)
    found, before = map(palettes.least_distance, (distinct, own))
    # Differences from 0.02 on are seen at a glance.
    assert found > 0.02
    assert found > 4 * before


def test_red_and_green_are_near_to_eyes_without_a_kind_of_cones():
    pairs = {
        "red and green": [(200, 60, 0), (110, 110, 0)],
        "black and white": [(0, 0, 0), (255, 255, 255)],
    }
    far = {
        name: palettes.least_distance(np.array(pair)) for name, pair in pairs.items()
    }
    assert far["red and green"] < 0.1
    assert far["black and white"] > 0.7


def test_fewer_colours_are_the_first_of_more_and_none_is_voids():
    assert palettes.distinct(30)[:8] == palettes.distinct(8)
    assert palettes.distinct(1) == ((0, 0, 0),)
    colours = np.array([*palettes.distinct(20), VOID_COLOUR])
    assert palettes.least_distance(colours) > 0.05
