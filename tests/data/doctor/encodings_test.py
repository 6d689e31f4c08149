import numpy as np
import pytest

from refinenet_jax.data.class_table import ClassTable, read_class_table
from refinenet_jax.data.doctor.encodings import Values, explain

OTHERS = read_class_table("voc2012")


def own_table(num_classes, first=0, ignored=(255,)):
    classes = {first + i: i for i in range(num_classes)}
    return ClassTable(
        class_names=tuple("abcdefghijklmnopqrstuvwxyz"[:num_classes]),
        palette=OTHERS.palette[:num_classes],
        raw_to_class={**classes, **dict.fromkeys(ignored, 255)},
        split_sizes={},
        archives=(),
        source="classes.txt",
    )


def values(pixels, table, flat=0, others=(), file="classes.txt"):
    return Values(
        pixels=pixels,
        all=frozenset([*pixels, *others]),
        flat=flat,
        table=table,
        file=file,
        authors=table.source,
    )


def codes(*arguments, **keywords):
    return [code for code, _ in explain(values(*arguments, **keywords))]


def ones(*numbers):
    return dict.fromkeys(numbers, 100)


FOUR = own_table(4)


@pytest.mark.parametrize(
    "pixels, table, expected",
    [
        ({}, FOUR, []),
        (ones(1, 2, 3, 4), FOUR, ["shifted_up"]),
        (ones(2, 4, 255), FOUR, ["shifted_up"]),
        (ones(0, 1, 2, 3, 4), FOUR, ["zero_is_void"]),
        (ones(1, 2, 3, 4, 255), own_table(4, ignored=()), None),
        (ones(0, 1, 5), FOUR, ["unknown_values"]),
        (ones(1, 2, 3, 4, 5), own_table(4, first=1, ignored=(0,)), ["unknown_values"]),
        (ones(0, 1, 255), own_table(4, ignored=()), ["ignore_not_declared"]),
        (ones(0, 255), FOUR, ["binary_mask"]),
        (ones(0, 255), own_table(4, ignored=()), ["binary_mask"]),
        (ones(0, 38, 75, 113), FOUR, ["palette_as_grey"]),  # VOC's, rounded
        (ones(0, 38, 75, 113, 220), FOUR, ["palette_as_grey"]),  # and void
        (ones(0, 38, 75, 1), FOUR, ["unknown_values"]),
        (ones(0, 1, 2, *range(40, 60)), FOUR, ["interpolated"]),
    ],
)
def test_the_first_explanation_that_fits(pixels, table, expected):
    if expected is None:  # two causes, two findings
        expected = ["shifted_up", "ignore_not_declared"]
    assert codes(pixels, table) == expected


def test_a_zero_in_another_split_counts():
    assert codes(ones(1, 4), FOUR, others=[0, 1]) == ["zero_is_void"]
    assert codes(ones(0, 255), FOUR, others=[3]) == []


def test_many_unknown_values_in_areas_are_missing_classes():
    pixels = ones(0, 1, 2, *range(40, 60))
    assert codes(pixels, FOUR, flat=1500) == ["unknown_values"]


def test_grey_shades_as_pillow_makes_them():
    from PIL import Image

    colours = np.array(OTHERS.palette, np.uint8)[None]
    shades = np.asarray(Image.fromarray(colours).convert("L"))[0]
    found = codes(ones(*shades.tolist()), own_table(21))
    assert found == ["palette_as_grey"]


@pytest.mark.parametrize(
    "pixels", [ones(1, 21), ones(0, 21), ones(0, 99), ones(*range(30, 60))]
)
def test_the_data_sets_of_others_are_to_be_had_from_their_authors(pixels):
    ((_, message),) = explain(values(pixels, OTHERS, file=""))
    assert OTHERS.source in message and "config.data.folder" not in message
