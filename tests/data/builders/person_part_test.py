import shutil

import numpy as np
import PIL.Image

from tests.data import layouts
from tests.data.preparing import assert_became, prepared_labels, refusal
from tests.references import PICTURES

TO_CLASS = {raw: raw for raw in range(7)}
ROOT = "pascal_person_part"


def test_folders(tmp_path):
    labels = layouts.write_person_part(tmp_path / "given")
    found = prepared_labels("person_part", tmp_path / "given", tmp_path / "tfds")
    assert_became(found, labels, TO_CLASS)


def test_archives(tmp_path):
    labels = layouts.write_person_part(tmp_path / "unpacked")
    for top, archive in (
        ("VOCdevkit", "VOCtrainval_03-May-2010.tar"),
        (ROOT, "pascal_person_part.zip"),
    ):
        layouts.pack(tmp_path / "unpacked", tmp_path / "packed" / archive, [top])
    found = prepared_labels("person_part", tmp_path / "packed", tmp_path / "tfds")
    assert_became(found, labels, TO_CLASS)


def test_lists_of_bare_names(tmp_path):
    labels = layouts.write_person_part(tmp_path / "given")
    lists = tmp_path / "given" / ROOT / f"{ROOT}_trainval_list"
    for split, members in labels.items():
        (lists / f"{split}.txt").unlink()
        (lists / f"{split}_id.txt").write_text("\n".join(members) + "\n")
    found = prepared_labels("person_part", tmp_path / "given", tmp_path / "tfds")
    assert_became(found, labels, TO_CLASS)


def test_void_pixels_are_ignored(tmp_path):
    layouts.write_person_part(tmp_path / "given")
    label = tmp_path / "given" / ROOT / f"{ROOT}_gt" / "2008_000008.png"
    values = np.array(PIL.Image.open(label))
    values[:3] = 255
    PIL.Image.fromarray(values).save(label)
    found = prepared_labels("person_part", tmp_path / "given", tmp_path / "tfds")
    np.testing.assert_array_equal(found["val"]["2008_000008"], values)


def test_an_empty_folder(tmp_path):
    (tmp_path / "given").mkdir()
    message = refusal("person_part", tmp_path / "given", tmp_path / "tfds")
    for part in ("config.data.manual_dir", "VOCtrainval_03-May-2010.tar from http://"):
        assert part in message


def test_without_part_maps(tmp_path):
    layouts.write_voc2010(tmp_path / "given", ["2008_000003"], ["2008_000008"])
    message = refusal("person_part", tmp_path / "given", tmp_path / "tfds")
    assert "pascal_person_part.zip from http://liangchiehchen.com/data/" in message


def test_a_listed_image_is_missing(tmp_path):
    layouts.write_person_part(tmp_path / "given")
    image = tmp_path / "given/VOCdevkit/VOC2010/JPEGImages/2010_000003.jpg"
    image.unlink()
    message = refusal("person_part", tmp_path / "given", tmp_path / "tfds")
    assert str(image) in message


def test_a_missing_list(tmp_path):
    layouts.write_person_part(tmp_path / "given")
    path = tmp_path / "given" / ROOT / f"{ROOT}_trainval_list" / "val.txt"
    path.unlink()
    message = refusal("person_part", tmp_path / "given", tmp_path / "tfds")
    assert str(path) in message


def test_real_sample(tmp_path):
    sample = PICTURES / "person_part"
    names = sorted(path.stem for path in (sample / "labels").iterdir())
    splits = {"train": names[:2], "val": names[2:]}
    for split, members in splits.items():
        layouts.write_person_part_list(tmp_path / "given", split, members)
    root = tmp_path / "given"
    shutil.copytree(sample / "images", root / "VOCdevkit/VOC2010/JPEGImages")
    shutil.copytree(sample / "labels", root / ROOT / f"{ROOT}_gt")
    found = prepared_labels("person_part", root, tmp_path / "tfds")
    for split, members in splits.items():
        assert sorted(found[split]) == members
        for name, label in found[split].items():
            given = np.array(PIL.Image.open(sample / "labels" / f"{name}.png"))
            np.testing.assert_array_equal(label, given)
            assert {0} < set(np.unique(label)) <= set(range(7))
