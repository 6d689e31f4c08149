import dataclasses

import numpy as np
import pytest

from refinenet_jax.data.class_table import ClassTable, read_class_table
from refinenet_jax.data.doctor import encodings
from refinenet_jax.data.doctor.encodings import explain
from refinenet_jax.data.doctor.values import Values

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


def values(pixels, table, inner=(), others=(), file="classes.txt"):
    return Values(
        pixels=pixels,
        all=frozenset([*pixels, *others]),
        inner=dict(inner),
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
        (ones(0, 1, 2, 3, 4), FOUR, ["one_too_many"]),
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
    assert codes(ones(1, 4), FOUR, others=[0, 1]) == ["one_too_many"]
    assert codes(ones(0, 255), FOUR, others=[3]) == []


def test_many_unknown_values_in_areas_are_missing_classes():
    pixels = ones(0, 1, 2, *range(40, 60))
    inner = dict.fromkeys(range(40, 60), 75)
    assert codes(pixels, FOUR, inner=inner) == ["unknown_values"]


AREAS = dict.fromkeys(range(11), 90)  # of 100 pixels
LIKE_CAMVID = {**AREAS, 2: 35, 9: 71, 11: 74}


@pytest.mark.parametrize(
    ("inner", "code", "first", "second"),
    [
        # As measured on CamVid's labels.
        (LIKE_CAMVID, "last_is_void", "ignore=(255, 11)", "offset=-1"),
        (
            LIKE_CAMVID | {0: 50, 11: 90},
            "zero_is_void",
            "offset=-1",
            "ignore=(255, 11)",
        ),
        (LIKE_CAMVID | {11: 88}, "one_too_many", "ignore=(255, 11)", "offset=-1"),
    ],
)
def test_what_explains_the_labels_best_goes_first(inner, code, first, second):
    pixels = ones(*range(12)) | {11: 99}
    ((found, message),) = explain(values(pixels, own_table(11), inner=inner))
    assert found == code
    assert message.index(first) < message.index(second) < message.index("add the miss")


def test_a_remedy_that_leaves_something_unexplained_is_not_given():
    # Ignoring 4 leaves one class of four; adding 1 leaves one, too.
    ((code, message),) = explain(values(ones(0, 4), FOUR, inner={0: 9, 4: 90}))
    assert code == "one_too_many" and "config.data" not in message


def test_a_class_in_the_place_of_void():
    table = own_table(11, first=1, ignored=(0, 255))
    found = values(ones(*range(12)), table, inner=LIKE_CAMVID)
    message = encodings.hides_a_class(dataclasses.replace(found, pixels=ones(0, 5, 11)))
    assert "offset=0 and config.data.folder.ignore=(255, 11)" in message
    assert not encodings.hides_a_class(
        values(ones(0, 5, 11), table, inner=LIKE_CAMVID | {0: 60, 11: 74})
    )


def test_unknown_outlines_are_void_first():
    pixels = ones(0, 1, 2, 3, 9)
    ((_, thin),) = explain(values(pixels, FOUR, inner={9: 10}))
    ((_, area),) = explain(values(pixels, FOUR, inner={9: 90}))
    assert thin.index("ignore=(255, 9)") < thin.index("list the missing classes")
    assert area.index("ignore=(255, 9)") > area.index("list the missing classes")


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
