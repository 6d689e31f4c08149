import sys

import h5py
import numpy as np
import PIL.Image
import pytest

from refinenet_jax.data import images
from refinenet_jax.data.builders.examples import Pair
from refinenet_jax.data.builders.nyudv2 import NyuDv2
from refinenet_jax.data.class_table import read_class_table, read_table
from refinenet_jax.errors import UserError
from tests.data import ask, layouts
from tests.data.preparing import download_from, prepared_labels, refusal
from tests.references import PICTURES

FILE = "nyu_depth_v2_labeled.mat"
NUMBERS = read_table("nyudv2")["split_numbers"]


def write_pictures(folder, height, width):
    """All 1449 pictures, small; picture i begins with the value i, then i + 1, ..."""
    start = np.arange(1449)[:, None, None]
    labels = (start + np.arange(height * width).reshape(height, width)) % 895
    values = labels.astype(np.uint16)
    pixels = np.repeat((values % 256).astype(np.uint8)[..., None], 3, axis=-1)
    pixels[..., 1] = 255 - pixels[..., 0]
    layouts.write_nyudv2(folder, values, pixels)
    return values, pixels


@pytest.mark.slow
def test_all_pictures(tmp_path):
    values, _ = write_pictures(tmp_path / "given", 3, 5)
    found = prepared_labels("nyudv2", tmp_path / "given", tmp_path / "tfds")
    assert {split: len(labels) for split, labels in found.items()} == {
        "train": 795,
        "test": 654,
    }
    to_class = read_class_table("nyudv2").raw_to_class
    lookup = np.array([to_class[raw] for raw in range(895)])
    for split, labels in found.items():
        assert sorted(labels) == [f"{number:04d}" for number in NUMBERS[split]]
        for name, label in labels.items():
            np.testing.assert_array_equal(label, lookup[values[int(name) - 1]])


def test_every_value_and_the_picture(tmp_path):
    values, pixels = write_pictures(tmp_path, 25, 36)
    assert set(np.unique(values[700]).tolist()) == set(range(895))
    builder = NyuDv2(ask.request("nyudv2", data_dir=tmp_path, manual_dir=tmp_path))
    read = builder.read(Pair("0701", tmp_path / FILE, tmp_path / FILE, 700))
    np.testing.assert_array_equal(read.raw, values[700])
    np.testing.assert_array_equal(images.decode_image(read.encoded, ""), pixels[700])


@pytest.mark.slow
def test_download(tmp_path, monkeypatch):
    write_pictures(tmp_path / "host", 3, 5)
    addresses = download_from(tmp_path / "host", monkeypatch)
    found = prepared_labels("nyudv2", "", tmp_path / "tfds")
    assert len(found["test"]) == 654
    assert [address.rpartition("/")[2] for address in addresses] == [FILE]


def test_the_splits_have_each_picture_once():
    assert sorted(NUMBERS["train"] + NUMBERS["test"]) == list(range(1, 1450))


def test_an_empty_folder(tmp_path):
    message = refusal("nyudv2", tmp_path, tmp_path / "tfds")
    for part in (
        "config.data.manual_dir",
        f"{FILE} from http://horatio.cs.nyu.edu/mit/silberman/nyu_depth_v2/",
    ):
        assert part in message


def test_a_truncated_file(tmp_path):
    write_pictures(tmp_path, 3, 5)
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:30_000])
    message = refusal("nyudv2", tmp_path, tmp_path / "tfds")
    assert f"{path} cannot be decoded: " in message


def test_a_file_without_labels(tmp_path):
    with h5py.File(tmp_path / FILE, "w") as file:
        file["images"] = np.zeros((1449, 3, 5, 4), np.uint8)
    message = refusal("nyudv2", tmp_path, tmp_path / "tfds")
    assert f"{tmp_path / FILE} cannot be decoded: " in message and "labels" in message


def test_without_h5py(tmp_path, monkeypatch):
    write_pictures(tmp_path, 3, 5)
    monkeypatch.setitem(sys.modules, "h5py", None)
    message = refusal("nyudv2", tmp_path, tmp_path / "tfds")
    assert "is an HDF5 file: pip install 'refinenet_jax[hdf5]'" in message


def test_real_sample(tmp_path):
    """Real pictures and labels, the latter as any value that means their class."""
    to_class = read_class_table("nyudv2").raw_to_class
    raw_of = np.zeros(256, np.uint16)
    for raw, class_id in to_class.items():
        raw_of[class_id] = raw
    sample = PICTURES / "nyudv2"
    names = sorted(path.stem for path in (sample / "labels").iterdir())
    given = [np.array(PIL.Image.open(sample / f"labels/{name}.png")) for name in names]
    pixels = [images.read_image(sample / f"images/{name}.jpg") for name in names]
    layouts.write_nyudv2(tmp_path, raw_of[np.stack(given)], np.stack(pixels))
    builder = NyuDv2(ask.request("nyudv2", data_dir=tmp_path, manual_dir=tmp_path))
    for index, label in enumerate(given):
        pair = Pair(f"{index:04d}", tmp_path / FILE, tmp_path / FILE, index)
        read = builder.read(pair)
        np.testing.assert_array_equal(read.image, pixels[index])
        ids = builder.class_table.to_class_ids(read.raw, "")
        assert ids.shape == (468, 625) and len(np.unique(ids)) > 5
        np.testing.assert_array_equal(ids, label)


def test_a_picture_that_the_file_does_not_have(tmp_path):
    small = np.zeros((2, 3, 5), np.uint16)
    layouts.write_nyudv2(tmp_path, small, np.zeros((2, 3, 5, 3), np.uint8))
    with pytest.raises(UserError, match=rf"{FILE} cannot be decoded: .*ndex"):
        ask.prepare("nyudv2", data_dir=tmp_path / "tfds", manual_dir=tmp_path)
