import sys

import pytest
import scipy.io

from tests.data import layouts
from tests.data.preparing import assert_became, prepared_labels, refusal

TO_CLASS = {0: 255} | {raw: raw - 1 for raw in range(1, 38)}
TOOLBOX = "SUNRGBDtoolbox"


def test_folders(tmp_path):
    labels = layouts.write_sunrgbd(tmp_path / "given")
    found = prepared_labels("sunrgbd", tmp_path / "given", tmp_path / "tfds")
    assert_became(found, labels, TO_CLASS)
    assert list(found["test"]) == ["kv1_NYUdata_NYU0001"]


def test_archives(tmp_path):
    labels = layouts.write_sunrgbd(tmp_path / "unpacked")
    for top in ("SUNRGBD", TOOLBOX):
        archive = tmp_path / "packed" / f"{top}.zip"
        layouts.pack(tmp_path / "unpacked", archive, [top])
    found = prepared_labels("sunrgbd", tmp_path / "packed", tmp_path / "tfds")
    assert_became(found, labels, TO_CLASS)


def test_an_empty_folder(tmp_path):
    message = refusal("sunrgbd", tmp_path, tmp_path / "tfds")
    for part in (
        "config.data.manual_dir",
        "SUNRGBDtoolbox.zip from http://rgbd.cs.princeton.edu/data/SUNRGBDtoolbox.zip",
    ):
        assert part in message


def test_without_the_images(tmp_path):
    layouts.write_sunrgbd(tmp_path / "given")
    (tmp_path / "given" / "SUNRGBD").rename(tmp_path / "elsewhere")
    message = refusal("sunrgbd", tmp_path / "given", tmp_path / "tfds")
    assert "SUNRGBD.zip from http://rgbd.cs.princeton.edu/data/SUNRGBD.zip" in message


@pytest.mark.parametrize(
    "name",
    ["Metadata/SUNRGBDMeta", "Metadata/SUNRGBD2Dseg", "traintestSUNRGBD/allsplit"],
)
def test_a_damaged_file_of_the_toolbox(tmp_path, name):
    layouts.write_sunrgbd(tmp_path / "given")
    path = tmp_path / "given" / TOOLBOX / f"{name}.mat"
    path.write_bytes(path.read_bytes()[:150])
    message = refusal("sunrgbd", tmp_path / "given", tmp_path / "tfds")
    assert f"{path} cannot be decoded" in message


def test_lists_of_something_else(tmp_path):
    layouts.write_sunrgbd(tmp_path / "given")
    path = tmp_path / "given" / TOOLBOX / "traintestSUNRGBD" / "allsplit.mat"
    scipy.io.savemat(path, {"alltrain": [[1.0, 2.0]], "alltest": [[3.0]]})
    message = refusal("sunrgbd", tmp_path / "given", tmp_path / "tfds")
    assert f"{path} cannot be decoded: alltrain" in message


def test_a_listed_scene_without_labels(tmp_path):
    layouts.write_sunrgbd(tmp_path / "given")
    path = tmp_path / "given" / TOOLBOX / "traintestSUNRGBD" / "allsplit.mat"
    scene = layouts.cells(["/n/fs/sun3d/data/SUNRGBD/kv1/b3dodata/img_0063"])
    scipy.io.savemat(path, {"alltrain": scene, "alltest": scene})
    message = refusal("sunrgbd", tmp_path / "given", tmp_path / "tfds")
    assert f"{path} lists kv1/b3dodata/img_0063, which" in message


def test_a_missing_image(tmp_path):
    layouts.write_sunrgbd(tmp_path / "given")
    image = tmp_path / "given/SUNRGBD/kv1/NYUdata/NYU0001/image/NYU0001.jpg"
    image.unlink()
    message = refusal("sunrgbd", tmp_path / "given", tmp_path / "tfds")
    assert str(image) in message


def test_fewer_labels_than_scenes(tmp_path):
    labels = layouts.write_sunrgbd(tmp_path / "given")
    path = tmp_path / "given" / TOOLBOX / "Metadata" / "SUNRGBD2Dseg.mat"
    layouts.write_sunrgbd_labels(path, list(labels["train"].values())[:1])
    message = refusal("sunrgbd", tmp_path / "given", tmp_path / "tfds")
    assert f"{path} cannot be decoded: " in message


def test_without_h5py(tmp_path, monkeypatch):
    layouts.write_sunrgbd(tmp_path / "given")
    monkeypatch.setitem(sys.modules, "h5py", None)
    message = refusal("sunrgbd", tmp_path / "given", tmp_path / "tfds")
    assert "is an HDF5 file: pip install 'refinenet_jax[hdf5]'" in message
