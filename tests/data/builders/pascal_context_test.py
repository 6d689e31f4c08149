import numpy as np
import pytest
import scipy.io

from refinenet_jax.data.class_table import read_class_table
from tests.data import layouts
from tests.data.preparing import assert_became, prepared_labels, refusal

# labels.txt of the authors at the 59 names of 59_labels.txt: VOC's 20 classes first.
# fmt: off
RAW = [
    2, 23, 25, 31, 34, 45, 59, 65, 72, 98, 397, 113, 207, 258, 284, 308, 347, 368, 416,
    427, 9, 18, 22, 33, 44, 46, 68, 80, 85, 104, 115, 144, 158, 159, 162, 187, 189, 220,
    232, 259, 260, 105, 296, 355, 295, 324, 326, 349, 354, 360, 366, 19, 415, 420, 424,
    440, 445, 454, 458,
]
# fmt: on
TO_CLASS = dict.fromkeys(range(460), 0) | {r: c for c, r in enumerate(RAW, start=1)}
TO_CLASS_59 = dict.fromkeys(range(460), 255) | {r: c for c, r in enumerate(RAW)}
NAMES = ("pascal_context", "pascal_context_59")


@pytest.mark.parametrize(
    ("name", "to_class"), list(zip(NAMES, (TO_CLASS, TO_CLASS_59), strict=True))
)
def test_folders(tmp_path, name, to_class):
    labels = layouts.write_pascal_context(tmp_path / "given")
    found = prepared_labels(name, tmp_path / "given", tmp_path / "tfds")
    assert_became(found, labels, to_class)


def test_archives(tmp_path):
    labels = layouts.write_pascal_context(tmp_path / "unpacked")
    for top, archive in (
        ("VOCdevkit", "VOCtrainval_03-May-2010.tar"),
        ("trainval", "trainval.tar.gz"),
    ):
        layouts.pack(tmp_path / "unpacked", tmp_path / "packed" / archive, [top])
    found = prepared_labels("pascal_context", tmp_path / "packed", tmp_path / "tfds")
    assert_became(found, labels, TO_CLASS)


def test_the_59_classes_are_the_60_without_background():
    sixty, fifty_nine = (read_class_table(name) for name in NAMES)
    assert sixty.class_names[0] == "background"
    assert sixty.class_names[1:] == fifty_nine.class_names
    assert sixty.palette[1:] == fifty_nine.palette
    for raw, class_id in sixty.raw_to_class.items():
        assert fifty_nine.raw_to_class[raw] == (class_id - 1 if class_id else 255)


def test_an_empty_folder(tmp_path):
    (tmp_path / "given").mkdir()
    message = refusal("pascal_context", tmp_path / "given", tmp_path / "tfds")
    for part in (
        "config.data.manual_dir",
        "VOCtrainval_03-May-2010.tar from http://host.robots.ox.ac.uk/pascal/VOC/",
    ):
        assert part in message


def test_without_label_maps(tmp_path):
    layouts.write_voc2010(tmp_path / "given", ["2008_000002"], ["2008_000033"])
    message = refusal("pascal_context", tmp_path / "given", tmp_path / "tfds")
    assert "trainval.tar.gz from https://cs.stanford.edu/~roozbeh/" in message


def test_a_listed_image_without_label(tmp_path):
    layouts.write_pascal_context(tmp_path / "given")
    label = tmp_path / "given" / "trainval" / "2008_000033.mat"
    label.unlink()
    message = refusal("pascal_context", tmp_path / "given", tmp_path / "tfds")
    assert str(label) in message


def damage_truncate(label):
    label.write_bytes(label.read_bytes()[:200])


def damage_other_variable(label):
    scipy.io.savemat(label, {"Other": np.zeros((24, 40), np.uint16)})


def damage_fractions(label):
    scipy.io.savemat(label, {"LabelMap": np.full((24, 40), 2.5)})


@pytest.mark.parametrize(
    "damage", [damage_truncate, damage_other_variable, damage_fractions]
)
def test_a_damaged_label(tmp_path, damage):
    layouts.write_pascal_context(tmp_path / "given")
    label = tmp_path / "given" / "trainval" / "2008_000033.mat"
    damage(label)
    message = refusal("pascal_context", tmp_path / "given", tmp_path / "tfds")
    assert f"{label} cannot be decoded" in message
