from tests.data import layouts
from tests.data.preparing import assert_became, prepared_labels, refusal

TO_CLASS = {0: 255} | {raw: raw - 1 for raw in range(1, 151)}


def test_folders(tmp_path):
    labels = layouts.write_ade20k(tmp_path / "given")
    found = prepared_labels("ade20k", tmp_path / "given", tmp_path / "tfds")
    assert_became(found, labels, TO_CLASS)


def test_the_unpacked_folder_itself(tmp_path):
    labels = layouts.write_ade20k(tmp_path / "given")
    folder = tmp_path / "given" / "ADEChallengeData2016"
    assert_became(prepared_labels("ade20k", folder, tmp_path / "t"), labels, TO_CLASS)


def test_archive(tmp_path):
    labels = layouts.write_ade20k(tmp_path / "unpacked")
    archive = tmp_path / "packed" / "ADEChallengeData2016.zip"
    layouts.pack(tmp_path / "unpacked", archive, ["ADEChallengeData2016"])
    found = prepared_labels("ade20k", archive.parent, tmp_path / "tfds")
    assert_became(found, labels, TO_CLASS)


def test_an_empty_folder(tmp_path):
    (tmp_path / "given").mkdir()
    message = refusal("ade20k", tmp_path / "given", tmp_path / "tfds")
    for part in (
        "config.data.manual_dir",
        "ADEChallengeData2016.zip from http://data.csail.mit.edu/places/ADEchallenge/",
    ):
        assert part in message
    assert "login" not in message


def test_a_folder_without_images(tmp_path):
    layouts.write_ade20k(tmp_path / "given")
    folder = tmp_path / "given/ADEChallengeData2016/images/validation"
    for image in folder.iterdir():
        image.unlink()
    message = refusal("ade20k", tmp_path / "given", tmp_path / "tfds")
    assert f"{folder} holds no *.jpg" in message


def test_a_missing_label(tmp_path):
    layouts.write_ade20k(tmp_path / "given")
    root = tmp_path / "given" / "ADEChallengeData2016"
    (root / "annotations/training/ADE_train_00000002.png").unlink()
    message = refusal("ade20k", tmp_path / "given", tmp_path / "tfds")
    image = root / "images/training/ADE_train_00000002.jpg"
    assert f"{image} has no label (1 such files)" in message
