import pytest

from tests.data import layouts
from tests.data.preparing import assert_became, prepared_labels, refusal

# labels.py of the cityscapesScripts: the ids of the classes with trainId 0..18.
IDS = [7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33]
# 34 of its 35 labels: no pixel of a labelIds file is a license plate, whose id is -1.
TO_CLASS = dict.fromkeys(range(34), 255) | {raw: c for c, raw in enumerate(IDS)}


def write_packed(folder):
    labels = layouts.write_cityscapes(folder / "unpacked")
    for top, archive in (
        ("leftImg8bit", "leftImg8bit_trainvaltest.zip"),
        ("gtFine", "gtFine_trainvaltest.zip"),
    ):
        layouts.pack(folder / "unpacked", folder / "packed" / archive, [top])
    return labels, folder / "packed"


def test_folders(tmp_path):
    labels = layouts.write_cityscapes(tmp_path / "given")
    found = prepared_labels("cityscapes", tmp_path / "given", tmp_path / "tfds")
    assert_became(found, labels, TO_CLASS)
    assert sorted(found["train"]) == ["aachen_000000_000019", "zurich_000001_000019"]


def test_archives(tmp_path):
    labels, folder = write_packed(tmp_path)
    found = prepared_labels("cityscapes", folder, tmp_path / "tfds")
    assert_became(found, labels, TO_CLASS)


def test_one_of_the_archives_is_missing(tmp_path):
    _, folder = write_packed(tmp_path)
    (folder / "gtFine_trainvaltest.zip").unlink()
    message = refusal("cityscapes", folder, tmp_path / "tfds")
    for part in (
        "config.data.manual_dir",
        "gtFine_trainvaltest.zip from https://www.cityscapes-dataset.com/downloads/",
        "login",
    ):
        assert part in message
    assert "leftImg8bit_trainvaltest.zip" not in message


def test_it_is_not_downloaded(tmp_path):
    message = refusal("cityscapes", "", tmp_path / "tfds")
    for part in ("config.data.manual_dir", "leftImg8bit_trainvaltest.zip", "gtFine_"):
        assert part in message


@pytest.mark.parametrize("ending", ["leftImg8bit.png", "gtFine_labelIds.png"])
def test_a_missing_file(tmp_path, ending):
    layouts.write_cityscapes(tmp_path / "given")
    next(tmp_path.glob(f"given/*/train/zurich/*{ending}")).unlink()
    message = refusal("cityscapes", tmp_path / "given", tmp_path / "tfds")
    assert "zurich_000001_000019_" in message and "complete" in message


def test_a_damaged_label(tmp_path):
    layouts.write_cityscapes(tmp_path / "given")
    label = next(tmp_path.glob("given/gtFine/val/*/*labelIds.png"))
    label.write_bytes(label.read_bytes()[:100])
    assert str(label) in refusal("cityscapes", tmp_path / "given", tmp_path / "tfds")
