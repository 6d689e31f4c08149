"""Tables of the data sets against lists that were collected apart from them."""

import pytest

from refinenet_jax.data.class_table import read_class_table, read_table
from tests.references import dataset_facts

# name -> number of classes, the first and the last, the published sizes of splits.
TABLES = {
    "cityscapes": (19, "road", "bicycle", {"train": 2975, "val": 500}),
    "ade20k": (150, "wall", "flag", {"train": 20210, "val": 2000}),
    "pascal_context": (60, "background", "wood", {"train": 4998, "val": 5105}),
    "pascal_context_59": (59, "aeroplane", "wood", {"train": 4998, "val": 5105}),
    "person_part": (7, "background", "lower legs", {"train": 1716, "val": 1817}),
    "nyudv2": (40, "wall", "otherprop", {"train": 795, "test": 654}),
    "sunrgbd": (37, "wall", "bag", {"train": 5285, "test": 5050}),
    "coco_stuff_10k": (171, "person", "wood", {"train": 9000, "test": 1000}),
    "coco_stuff_164k": (171, "person", "wood", {"train": 118287, "val": 5000}),
}
# In the list of the authors too, road and skyscraper of ADE20K have one colour.
SAME_COLOUR = {"ade20k": 1}


@pytest.mark.parametrize("name", TABLES)
def test_table(name):
    num_classes, first, last, sizes = TABLES[name]
    table = read_class_table(name)
    assert (table.class_names[0], table.class_names[-1]) == (first, last)
    assert len(table.class_names) == len(set(table.class_names)) == num_classes
    assert len(table.palette) == num_classes
    assert len(set(table.palette)) == num_classes - SAME_COLOUR.get(name, 0)
    assert all(0 <= value <= 255 for colour in table.palette for value in colour)
    assert set(table.raw_to_class.values()) - {255} == set(range(num_classes))
    assert table.split_sizes == sizes
    assert table.archives and table.source


def voc_colour(index):
    # VOClabelcolormap.m: bit k of the index goes to bit 7 - k // 3 of channel k % 3.
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= ((index >> bit) & 1) << (7 - bit // 3)
    return tuple(channels)


@pytest.mark.parametrize(
    ("name", "offset"),
    [
        ("pascal_context", 0),
        ("pascal_context_59", 1),
        ("person_part", 0),
        ("nyudv2", 1),
        ("sunrgbd", 1),
    ],
)
def test_colours_of_the_voc_devkit(name, offset):
    for class_id, colour in enumerate(read_class_table(name).palette):
        assert colour == voc_colour(class_id + offset)


@pytest.mark.parametrize(
    ("name", "offset"), [("coco_stuff_10k", 0), ("coco_stuff_164k", 1)]
)
def test_colours_of_coco_stuff_follow_labels_txt(name, offset):
    table = read_class_table(name)
    for raw, class_id in table.raw_to_class.items():
        if class_id != 255:
            assert table.palette[class_id] == voc_colour(raw + offset)


@pytest.mark.parametrize(
    ("name", "reference_name"),
    [
        ("cityscapes", "cityscapes"),
        ("ade20k", "ade20k"),
        ("pascal_context", "pascal_context"),
        ("person_part", "person_part"),
        ("nyudv2", "nyudv2_40"),
        ("sunrgbd", "sunrgbd_37"),
        ("coco_stuff_10k", "coco_stuff_10k"),
        ("coco_stuff_164k", "coco_stuff_164k"),
    ],
)
def test_names_colours_and_sizes(name, reference_name):
    table, expected = read_class_table(name), dataset_facts(reference_name)
    assert list(table.class_names) == expected["classes"]
    if not name.startswith("coco_stuff"):  # whose authors publish no colours
        assert [list(colour) for colour in table.palette] == expected["palette"]
    for split, size in table.split_sizes.items():
        assert expected["splits"][split] == size


def as_classes(mapping, shift):
    """The listed mapping with string keys; `shift` is taken from what it maps to."""
    return {int(raw): mapped - shift for raw, mapped in mapping.items()}


def test_label_values():
    def listed(name, key):
        return dataset_facts(name)["label_mapping"][key]

    context = read_class_table("pascal_context").raw_to_class
    named = as_classes(listed("pascal_context", "raw459_to_official60"), 0)
    assert context == dict.fromkeys(range(460), 0) | named
    cityscapes = as_classes(listed("cityscapes", "labelId_to_trainId"), 0)
    del cityscapes[-1]  # the license plate, which no pixel has
    assert read_class_table("cityscapes").raw_to_class == cityscapes
    nyu = as_classes(listed("nyudv2_40", "raw894_to_40"), 1)
    assert read_class_table("nyudv2").raw_to_class == {0: 255} | nyu
    small = as_classes(listed("coco_stuff_10k", "raw182_to_1..171"), 1)
    assert read_class_table("coco_stuff_10k").raw_to_class == small | {0: 255}
    large = as_classes(listed("coco_stuff_164k", "raw0..181_to_0..170"), 0)
    assert read_class_table("coco_stuff_164k").raw_to_class == large | {255: 255}


def test_the_numbers_of_nyudv2():
    numbers = read_table("nyudv2")["split_numbers"]
    assert numbers == dataset_facts("nyudv2_40")["split_indices_1based"]
