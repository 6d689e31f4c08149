import shutil

import numpy as np
import pytest

from refinenet_jax.data import images
from refinenet_jax.errors import UserError
from tests.data import ask
from tests.references import PICTURES

TRAIN = ["2007_000032", "2007_000039", "2007_000063"]
VAL = ["2007_000033", "2007_000042"]
# Two of SBD's images are in VOC's lists and must not come back as training images.
SBD_TRAIN = ["2008_000008", TRAIN[1], VAL[0]]
SBD_VAL = ["2008_000015", "2008_000019"]


def open_split(folder, data_dir, split):
    return ask.open_split(
        "voc2012", split, data_dir=str(data_dir), manual_dir=str(folder)
    )


def labels_of(source):
    return {
        source[index]["name"]: images.decode_label(source[index]["label"], "")
        for index in range(len(source))
    }


def assert_labels(source, writer, names):
    labels = labels_of(source)
    assert sorted(labels) == sorted(names)
    for name in names:
        np.testing.assert_array_equal(labels[name], writer.labels[name])


@pytest.mark.parametrize("inside", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_folders(tmp_path, writer, inside):
    folder = tmp_path / "voc"
    writer.voc(folder, TRAIN, VAL)
    for split, names in [("train", TRAIN), ("val", VAL), ("trainval", TRAIN + VAL)]:
        source = open_split(folder / inside, tmp_path / "tfds", split)
        assert_labels(source, writer, names)
    # The image is kept as it was.
    jpeg = folder / "VOCdevkit/VOC2012/JPEGImages" / f"{source[0]['name']}.jpg"
    assert source[0]["image"] == jpeg.read_bytes()


def test_archives_with_sbd(tmp_path, writer, pack_tar):
    writer.voc(tmp_path / "voc", TRAIN, VAL)
    writer.sbd(tmp_path / "sbd", SBD_TRAIN, SBD_VAL)
    folder = tmp_path / "given"
    folder.mkdir()
    pack_tar(tmp_path / "voc", folder / "VOCtrainval_11-May-2012.tar")
    pack_tar(tmp_path / "sbd", folder / "benchmark.tgz")
    before = sorted(folder.rglob("*"))
    source = open_split(folder, tmp_path / "tfds", "train_aug")
    added = ["2008_000008", "2008_000015", "2008_000019"]
    assert_labels(source, writer, TRAIN + added)
    assert sorted(folder.rglob("*")) == before
    # The unpacked files are the same data set.
    writer.sbd(tmp_path / "voc", SBD_TRAIN, SBD_VAL)
    shutil.rmtree(tmp_path / "voc" / "benchmark_RELEASE")
    shutil.copytree(tmp_path / "sbd", tmp_path / "voc", dirs_exist_ok=True)
    assert len(open_split(tmp_path / "voc", tmp_path / "tfds", "train_aug")) == 6


def test_sbd_beside_a_devkit_that_is_named_itself(tmp_path, writer):
    writer.voc(tmp_path / "voc", TRAIN, VAL)
    writer.sbd(tmp_path / "voc", SBD_TRAIN, SBD_VAL)
    voc = tmp_path / "voc" / "VOCdevkit" / "VOC2012"
    assert len(open_split(voc, tmp_path / "tfds", "train_aug")) == 6


def test_train_aug_without_sbd_says_what_to_put_where(tmp_path, writer):
    writer.voc(tmp_path / "voc", TRAIN, VAL)
    with pytest.raises(UserError) as caught:
        open_split(tmp_path / "voc", tmp_path / "tfds", "train_aug")
    message = str(caught.value)
    for part in ("'train_aug'", "benchmark.tgz", "benchmark_RELEASE/"):
        assert part in message
    prepared = str(tmp_path / "tfds" / "voc2012" / "1.1.0")
    assert f"config.data.manual_dir, then delete {prepared}" in message
    # What it says works.
    writer.sbd(tmp_path / "voc", SBD_TRAIN, SBD_VAL)
    shutil.rmtree(prepared)
    assert len(open_split(tmp_path / "voc", tmp_path / "tfds", "train_aug")) == 6


def test_a_folder_without_voc_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        open_split(tmp_path / "empty", tmp_path / "tfds", "train")
    message = str(caught.value)
    for part in ("config.data.manual_dir", "VOCdevkit/VOC2012/", "VOCtrainval_11-May"):
        assert part in message
    assert "host.robots.ox.ac.uk" in message
    with pytest.raises(UserError, match=r"config\.data\.manual_dir=.*is not a folder"):
        open_split(tmp_path / "missing", tmp_path / "tfds", "train")


def test_a_damaged_mat_is_named(tmp_path, writer):
    writer.voc(tmp_path / "voc", TRAIN, VAL)
    sbd = writer.sbd(tmp_path / "voc", SBD_TRAIN, SBD_VAL)
    mat = sbd / "cls" / "2008_000015.mat"
    mat.write_bytes(mat.read_bytes()[:150])
    with pytest.raises(UserError, match=r"2008_000015\.mat cannot be decoded"):
        open_split(tmp_path / "voc", tmp_path / "tfds", "train_aug")


def test_real_sample(tmp_path):
    folder = PICTURES / "voc2012"
    voc = folder / "VOCdevkit" / "VOC2012"
    for split in ("train", "val"):
        source = open_split(folder, tmp_path, split)
        names = (voc / "ImageSets/Segmentation" / f"{split}.txt").read_text().split()
        assert sorted(labels_of(source)) == sorted(names)
        for name, label in labels_of(source).items():
            path = voc / "SegmentationClass" / f"{name}.png"
            given = images.decode_label(path.read_bytes(), name)
            np.testing.assert_array_equal(label, given)
            assert {0, 255} < set(np.unique(label)) <= {*range(21), 255}
