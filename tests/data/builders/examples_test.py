"""Faults in the files of a data set, shown with CamVid's layout."""

import numpy as np
import PIL.Image
import pytest

from refinenet_jax.errors import UserError
from tests.data import ask


@pytest.fixture
def camvid(tmp_path, writer):
    return writer.camvid(tmp_path / "camvid")


@pytest.fixture
def message_of(tmp_path, camvid):
    def prepare():
        with pytest.raises(UserError) as caught:
            ask.prepare(
                "camvid", data_dir=str(tmp_path / "tfds"), manual_dir=str(camvid)
            )
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "tfds" / "camvid" / "1.1.0").exists()
        return str(caught.value)

    return prepare


def overwrite_label(path, label):
    PIL.Image.fromarray(label).save(path)


def test_an_undecodable_image(camvid, message_of):
    image = sorted((camvid / "train").iterdir())[1]
    image.write_bytes(image.read_bytes()[:-200])
    assert f"image {image} cannot be decoded" in message_of()


def test_an_undecodable_label(camvid, message_of):
    label = min((camvid / "valannot").iterdir())
    label.write_bytes(b"")
    assert f"label {label} cannot be decoded" in message_of()


def test_sizes_that_differ(camvid, message_of):
    label = sorted((camvid / "trainannot").iterdir())[2]
    image = sorted((camvid / "train").iterdir())[2]
    overwrite_label(label, np.zeros((30, 20), np.uint8))
    message = message_of()
    assert (
        f"{image} is 30x20 but its label {label} is 20x30 (width x height)" in message
    )


def test_a_value_outside_the_table(camvid, message_of):
    label = min((camvid / "testannot").iterdir())
    overwrite_label(label, np.full((20, 30), 12, np.uint8))
    assert f"label 12 in {label} is none of 0..11" in message_of()


@pytest.mark.parametrize("folder", ["train", "trainannot"])
def test_a_missing_file(camvid, message_of, folder):
    path = min((camvid / folder).iterdir())
    path.unlink()
    assert path.stem in message_of()


def test_a_missing_list(camvid, message_of):
    (camvid / "val.txt").unlink()
    assert f"{camvid / 'val.txt'} cannot be read" in message_of()


def test_an_empty_list(camvid, message_of):
    (camvid / "val.txt").write_text("\n")
    assert f"{camvid / 'val.txt'} lists no image" in message_of()


def test_a_name_listed_twice(camvid, message_of):
    first = (camvid / "train.txt").read_text().splitlines()[0]
    (camvid / "train.txt").write_text(f"{first}\n{first}\n")
    assert "twice" in message_of()
