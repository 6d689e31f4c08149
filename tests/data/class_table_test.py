import numpy as np
import pytest

from refinenet_jax.data.class_table import count_classes, ranges, read_class_table
from refinenet_jax.errors import UserError


def test_voc_colours_follow_the_bit_rule_of_the_devkit():
    # VOClabelcolormap.m: bit k of a class id goes to bit 7 - k // 3 of channel k % 3.
    def colour(class_id):
        channels = [0, 0, 0]
        for bit in range(8):
            channels[bit % 3] |= ((class_id >> bit) & 1) << (7 - bit // 3)
        return tuple(channels)

    table = read_class_table("voc2012")
    assert table.palette == tuple(colour(class_id) for class_id in range(21))


@pytest.mark.parametrize(
    ("name", "num_classes", "first", "last", "ignored"),
    [
        ("voc2012", 21, "background", "tvmonitor", 255),
        ("camvid", 11, "Sky", "Bicyclist", 11),
        ("shapes", 6, "background", "cross", 255),
    ],
)
def test_tables(name, num_classes, first, last, ignored):
    table = read_class_table(name)
    assert (table.class_names[0], table.class_names[-1]) == (first, last)
    assert len(table.class_names) == len(set(table.class_names)) == num_classes
    assert len(table.palette) == len(set(table.palette)) == num_classes
    expected = {value: value for value in range(num_classes)} | {ignored: 255}
    assert table.raw_to_class == expected
    assert table.source


def test_values_become_class_ids():
    raw = np.array([[0, 10, 11], [3, 11, 1]], np.uint8)
    ids = read_class_table("camvid").to_class_ids(raw, "x.png")
    assert ids.dtype == np.uint8
    assert ids.tolist() == [[0, 10, 255], [3, 255, 1]]


def test_an_undefined_value_names_file_value_and_range():
    raw = np.array([[0, 42], [255, 43]], np.uint16)
    with pytest.raises(UserError, match=r"label 42\.\.43 in X\.png is none of 0\.\.20"):
        read_class_table("voc2012").to_class_ids(raw, "X.png")
    with pytest.raises(UserError, match=r"or 255; mend the file"):
        read_class_table("voc2012").to_class_ids(raw, "X.png")
    with pytest.raises(UserError, match=r"none of 0\.\.11;"):
        read_class_table("camvid").to_class_ids(raw, "X.png")


def test_ranges():
    assert ranges([0, 1, 2, 255]) == "0..2 or 255"
    assert ranges([7]) == "7"


def test_count_classes():
    label = np.array([[0, 2, 2], [255, 0, 255]], np.uint8)
    assert count_classes(label, 3).tolist() == [2, 0, 2, 2]
