import json

import numpy as np
import pytest

from refinenet_jax.data import class_maps
from refinenet_jax.data.class_maps import read_class_map
from refinenet_jax.data.class_table import read_class_table
from refinenet_jax.errors import UserError
from tests.references import dataset_facts

VOC = read_class_table("voc2012").class_names
# Of best-of-acrv/refinenet: the COCO ids of each VOC class.
COCO_IDS = [[0], [5], [2], [16], [9], [44], [6], [3, 8], [17], [62], [21], [67], [18]]
COCO_IDS += [[19], [4], [1], [64], [20], [63], [7], [72]]


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Writes a map of a test; its name is "animals"."""
    folder = tmp_path / "tables" / "maps"
    folder.mkdir(parents=True)
    monkeypatch.setattr(class_maps.resources, "files", lambda package: tmp_path)

    def write(classes: dict[str, str], other: str | None) -> None:
        fields = {"source": "", "from": "zoo", "to": "farm", "classes": classes}
        path = folder / "animals.json"
        path.write_text(json.dumps(fields | {"other": other}))

    return write


def test_coco_to_voc_is_the_map_of_the_ports():
    fields = dataset_facts("coco_stuff_164k")
    names, name_of_id = tuple(fields["classes"]), fields["labels_182"]
    expected = np.full(256, 255)
    expected[: len(names)] = 0
    for voc_id, coco_ids in enumerate(COCO_IDS):
        for coco_id in coco_ids:
            if coco_id > 0:  # 0 is "unlabeled", which is ignored here
                expected[names.index(name_of_id[str(coco_id)])] = voc_id
    class_map = read_class_map("coco_to_voc", names, VOC)
    assert class_map.table.dtype == np.uint8
    np.testing.assert_array_equal(class_map.table, expected)
    np.testing.assert_array_equal(class_map.listed, expected[: len(names)] > 0)


def test_coco_to_voc():
    names = read_class_table("coco_stuff_164k").class_names
    class_map = read_class_map("coco_to_voc", names, VOC).table
    assert VOC[class_map[names.index("truck")]] == "car"
    assert VOC[class_map[names.index("couch")]] == "sofa"
    assert VOC[class_map[names.index("giraffe")]] == "background"
    assert VOC[class_map[names.index("grass")]] == "background"
    mapped = class_map[: len(names)]
    # Each class from one, but car from two.
    counts = dict(zip(VOC, np.bincount(mapped, minlength=21).tolist(), strict=True))
    assert counts == dict.fromkeys(VOC, 1) | {"car": 2, "background": 171 - 21}
    assert np.all(class_map[len(names) :] == 255)


def test_ids_follow_the_names(table):
    table({"cow": "cattle", "ox": "cattle"}, "animal")
    class_map = read_class_map("animals", ("ox", "cat", "cow"), ("animal", "cattle"))
    assert class_map.table[:4].tolist() == [1, 0, 1, 255]
    assert class_map.listed.tolist() == [True, False, True]


def test_what_is_not_listed_can_be_ignored(table):
    table({"cow": "cattle"}, None)
    class_map = read_class_map("animals", ("cat", "cow"), ("horse", "cattle"))
    assert class_map.table[:3].tolist() == [255, 1, 255]
    assert class_map.table[255] == 255


def test_counts_of_pixels_follow_the_classes(table):
    names = ("ox", "cat", "cow")
    counts = np.array([[1, 20, 300], [4000, 0, 50_000]])
    table({"cow": "cattle", "ox": "cattle"}, "animal")
    class_map = read_class_map("animals", names, ("animal", "horse", "cattle"))
    expected = [[20, 0, 301], [0, 0, 54_000]]
    assert class_map.translate_counts(counts, 3).tolist() == expected
    table({"cow": "cattle", "ox": "cattle"}, None)
    class_map = read_class_map("animals", names, ("animal", "horse", "cattle"))
    expected = [[0, 0, 301], [0, 0, 54_000]]
    assert class_map.translate_counts(counts, 3).tolist() == expected


def test_an_unknown_map():
    message = r"^class map 'voc_to_coco'; known: coco_to_voc$"
    with pytest.raises(UserError, match=message):
        read_class_map("voc_to_coco", ("cat",), VOC)


@pytest.mark.parametrize(
    ("other", "to_names", "message"),
    [
        ("farm animal", ("cattle", "farm animal"), "from zoo: .* no class cow;"),
        ("animal", ("ham", "cattle"), "to farm: .* no class animal;"),
        (None, ("ham",), "to farm: .* no class cattle;"),
    ],
)
def test_a_class_that_the_data_set_lacks(table, other, to_names, message):
    table({"ox": "cattle"} if "to" in message else {"cow": "cattle"}, other)
    with pytest.raises(UserError, match=f"^class map animals {message}"):
        read_class_map("animals", ("cat", "ox"), to_names)
