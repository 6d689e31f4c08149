import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from refinenet_jax import pictures
from refinenet_jax.data.class_table import read_class_table
from refinenet_jax.data.images import read_image
from refinenet_jax.errors import UserError
from refinenet_jax.inference import archives
from refinenet_jax.inference.submission import Classes, Submission
from tests.references import PICTURES

# Of each server: images' names, ids, size, the archive's ending, where the maps lie.
SERVERS = {
    "voc2012": (
        ["2008_000006", "2008_000011"],
        ["2008_000006", "2008_000011"],
        (50, 37),
        ".tar.gz",
        "results/VOC2012/Segmentation/comp6_test_cls/",
    ),
    "cityscapes": (
        ["berlin_000000_000019_leftImg8bit", "munich_000390_000019_leftImg8bit"],
        ["berlin_000000_000019", "munich_000390_000019"],
        (2048, 1024),
        ".zip",
        "",
    ),
    "ade20k": (
        ["ADE_val_00000001", "ADE_val_00000002"],
        ["ADE_val_00000001", "ADE_val_00000002"],
        (41, 64),
        ".zip",
        "",
    ),
}


def classes_of(server):
    table = read_class_table(server)
    return Classes(table.class_names, table.palette, table.raw_to_class)


class Split:
    """A small val split on disk: images, and predictions as mode predict leaves them."""

    def __init__(self, server, folder):
        self.server, self.folder = server, folder
        self.names, self.ids, self.size, self.suffix, self.inside = SERVERS[server]
        self.table = read_class_table(server)
        self.images = [folder / "images" / f"{name}.png" for name in self.names]
        self.predictions = folder / "predictions"
        self.labels = {}
        (folder / "images").mkdir()
        self.predictions.mkdir()
        rng = np.random.default_rng(7)
        for name, path in zip(self.names, self.images, strict=True):
            Image.new("RGB", self.size).save(path)
            coarse = rng.integers(0, len(self.table.class_names), (8, 6), np.uint8)
            self.write(name, np.array(Image.fromarray(coarse).resize(self.size, 0)))

    def write(self, name, label):
        self.labels[name] = label
        data = pictures.palette_png(label, self.table.palette)
        (self.predictions / f"{name}.png").write_bytes(data)

    def submission(self, **changes):
        given = {
            "images": self.images,
            "class_names": self.table.class_names,
            "competition": "comp6",
            "ids_file": "",
            **changes,
        }
        images = given.pop("images")
        return Submission(self.server, classes_of(self.server), images, **given)

    def submit(self, **changes):
        return self.submission(**changes).write(self.predictions, lambda: None)

    def list_ids(self, lines):
        path = self.folder / "ids.txt"
        path.write_text("\n".join(lines) + "\n")
        return str(path)


@pytest.fixture(params=SERVERS)
def split(request, tmp_path):
    return Split(request.param, tmp_path)


@pytest.fixture
def voc(tmp_path):
    return Split("voc2012", tmp_path)


def unpacked(archive):
    """Name and content of every file in an archive."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as packed:
            modes = {entry.external_attr >> 16 for entry in packed.infolist()}
            assert modes == {0o644}
            return {name: packed.read(name) for name in packed.namelist()}
    with tarfile.open(archive) as packed:
        entries = packed.getmembers()
        assert all(entry.isreg() for entry in entries)
        return {entry.name: packed.extractfile(entry).read() for entry in entries}


def confusion(truth, prediction, num_classes):
    counts = np.zeros((num_classes, num_classes), np.int64)
    counted = truth != 255
    np.add.at(counts, (truth[counted], prediction[counted]), 1)
    return counts


def mean_iou(counts):
    union = counts.sum(0) + counts.sum(1) - np.diag(counts)
    return np.mean(np.diag(counts)[union > 0] / union[union > 0])


def test_scoring_the_archive_is_scoring_the_predictions(split):
    archive = split.submit()
    assert archive == split.predictions / f"submission_{split.server}{split.suffix}"
    content = unpacked(archive)
    assert list(content) == [f"{split.inside}{id}.png" for id in split.ids]
    num_classes = len(split.table.class_names)
    # As a server has the truth: in the values of the data set's own label files.
    to_class = np.full(256, 255, np.uint8)
    for raw, class_id in split.table.raw_to_class.items():
        to_class[raw] = class_id
    rng = np.random.default_rng(3)
    expected = found = np.zeros((num_classes, num_classes), np.int64)
    for name, id in zip(split.names, split.ids, strict=True):
        picture = Image.open(io.BytesIO(content[f"{split.inside}{id}.png"]))
        assert picture.size == split.size
        values = np.asarray(picture)
        assert values.dtype == np.uint8
        label = split.labels[name]
        moved = np.roll(label, label.shape[1] // 4, 1)
        truth = np.where(rng.random(label.shape) < 0.7, label, moved)
        truth = np.where(rng.random(label.shape) < 0.1, 255, truth).astype(np.uint8)
        expected = expected + confusion(truth, label, num_classes)
        found = found + confusion(truth, to_class[values], num_classes)
    assert np.array_equal(found, expected)
    assert mean_iou(found) == mean_iou(expected)
    assert 0.3 < mean_iou(found) < 0.9


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("voc2012", list(range(21))),
        # cityscapesscripts/helpers/labels.py, the ids of the trainIds 0..18.
        (
            "cityscapes",
            [7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33],
        ),
        ("ade20k", list(range(1, 151))),
    ],
)
def test_values_of_the_servers(server, expected):
    assert classes_of(server).raw_values().tolist() == expected


def test_voc_maps_have_the_colours_of_voc(voc):
    content = unpacked(voc.submit(competition="comp5"))
    folder = "results/VOC2012/Segmentation/comp5_test_cls"
    picture = Image.open(io.BytesIO(content[f"{folder}/2008_000006.png"]))
    assert picture.mode == "P"
    # The development kit's VOClabelcolormap.m.
    colours = [
        [
            sum((i >> (3 * bit + c) & 1) << (7 - bit) for bit in range(3))
            for c in range(3)
        ]
        for i in range(21)
    ]
    assert np.reshape(picture.getpalette()[: 3 * 21], (21, 3)).tolist() == colours


def test_grey_maps_for_the_others(tmp_path):
    for server in ("cityscapes", "ade20k"):
        (tmp_path / server).mkdir()
        content = unpacked(Split(server, tmp_path / server).submit())
        modes = {Image.open(io.BytesIO(data)).mode for data in content.values()}
        assert modes == {"L"}


def test_the_same_predictions_make_the_same_bytes(split):
    first = split.submit().read_bytes()
    again = split.submit(images=split.images[::-1]).read_bytes()
    assert first == again
    assert len(list(split.predictions.iterdir())) == 3


def test_real_labels_of_voc_come_back(tmp_path):
    root = PICTURES / "voc2012" / "VOCdevkit" / "VOC2012"
    names = (root / "ImageSets/Segmentation/val.txt").read_text().split()
    images = [root / "JPEGImages" / f"{name}.jpg" for name in names]
    truths = {}
    table = read_class_table("voc2012")
    for name, image in zip(names, images, strict=True):
        truths[name] = np.array(Image.open(root / "SegmentationClass" / f"{name}.png"))
        assert truths[name].shape == read_image(image).shape[:2]
        perfect = np.where(truths[name] == 255, 0, truths[name])
        data = pictures.palette_png(perfect, table.palette)
        (tmp_path / f"{name}.png").write_bytes(data)
    made = Submission(
        "voc2012",
        classes_of("voc2012"),
        images,
        class_names=table.class_names,
        competition="comp6",
        ids_file=str(root / "ImageSets/Segmentation/val.txt"),
    )
    content = unpacked(made.write(tmp_path, lambda: None))
    counts = np.zeros((21, 21), np.int64)
    for name, truth in truths.items():
        data = content[f"results/VOC2012/Segmentation/comp6_test_cls/{name}.png"]
        counts += confusion(truth, np.asarray(Image.open(io.BytesIO(data))), 21)
    assert mean_iou(counts) == 1
    assert counts.sum() == sum((truth != 255).sum() for truth in truths.values())


@pytest.mark.parametrize(
    ("server", "name"),
    [
        ("voc2012", "2008_6"),
        ("voc2012", "my_photo"),
        ("voc2012", "2008_000006_copy"),
        ("cityscapes", "berlin_0_19"),
        ("cityscapes", "2008_000006"),
        ("ade20k", "ADE_train_00000001"),
        ("ade20k", "ADE_val_1"),
    ],
)
def test_names_that_the_server_does_not_know(server, name, tmp_path):
    split = Split(server, tmp_path)
    with pytest.raises(
        UserError, match=f"the server knows no '{name}'; names are like"
    ):
        split.submission(images=[tmp_path / f"{name}.png"])


def test_one_id_twice(tmp_path):
    split = Split("cityscapes", tmp_path)
    twice = tmp_path / "berlin_000000_000019.png"
    with pytest.raises(UserError, match="berlin_000000_000019.png have the same id"):
        split.submission(images=[*split.images, twice])


def test_a_network_of_other_classes(split):
    names = split.table.class_names
    for others in (names[:-1], [*names[:-1], "cheese"], names[::-1]):
        with pytest.raises(UserError, match="needs a network with the .* classes of"):
            split.submission(class_names=others)


def test_images_of_another_size(tmp_path):
    split = Split("cityscapes", tmp_path)
    Image.new("RGB", (1024, 512)).save(split.images[1])
    with pytest.raises(UserError, match="is 1024x512 .* the server takes 2048x1024"):
        split.submission()


def test_an_image_that_is_none(voc):
    voc.images[0].write_text("no image")
    with pytest.raises(UserError, match="2008_000006.png cannot be decoded"):
        voc.submission()


def test_missing_and_unexpected_ids_are_named(split):
    with_both = split.list_ids(split.ids + [""])
    split.submission(ids_file=with_both)
    assert len(split.submission(ids_file=split.list_ids(split.names))) == 2
    with pytest.raises(UserError, match=f"missing: {split.ids[1]}$"):
        split.submission(images=split.images[:1], ids_file=with_both)
    with pytest.raises(UserError, match=f"not expected: {split.ids[0]}$"):
        split.submission(ids_file=split.list_ids(split.ids[1:]))


def test_many_missing_ids_are_counted(voc):
    ids = [f"2009_{index:06}" for index in range(100)]
    with pytest.raises(UserError) as error:
        voc.submission(ids_file=voc.list_ids(ids))
    assert "2009_000004 and 95 more; not expected: 2008_000006, 2008" in str(
        error.value
    )
    assert "\n" not in str(error.value)


def test_lists_that_are_none(voc):
    with pytest.raises(UserError, match="nowhere.txt cannot be read"):
        voc.submission(ids_file="nowhere.txt")
    with pytest.raises(UserError, match="config.predict.ids=.*knows no 'aeroplane'"):
        voc.submission(ids_file=voc.list_ids(["aeroplane"]))


@pytest.mark.parametrize("fault", ["size", "value", "missing", "damaged"])
def test_label_maps_that_are_wrong_make_no_archive(fault, split):
    name = split.names[1]
    path = split.predictions / f"{name}.png"
    if fault == "size":
        split.write(name, np.zeros((4, 9), np.uint8))
    elif fault == "value":
        label = split.labels[name].copy()
        label[3, 4] = len(split.table.class_names)
        split.write(name, label)
    elif fault == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-30])
    message = {
        "size": "is 9x4 .* config.predict.overwrite=True",
        "value": f"holds {len(split.table.class_names)}, which is no class",
        "missing": "cannot be read",
        "damaged": "cannot be read",
    }[fault]
    with pytest.raises(UserError, match=message) as error:
        split.submit()
    assert str(path) in str(error.value)
    assert {p.suffix for p in split.predictions.iterdir()} == {".png"}


def test_an_archive_that_cannot_be_read_back_is_not_kept(split, monkeypatch):
    whole = archives.members

    def damaged(path):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        return whole(path)

    monkeypatch.setattr(archives, "members", damaged)
    with pytest.raises(UserError, match="damaged.*check the disk"):
        split.submit()
    monkeypatch.setattr(archives, "members", lambda path: [*whole(path)][:1])
    with pytest.raises(UserError, match="lacks label maps"):
        split.submit()
    assert {p.suffix for p in split.predictions.iterdir()} == {".png"}


def test_progress_counts_each_label_twice(voc):
    calls = []
    made = voc.submission()
    made.write(voc.predictions, lambda: calls.append(1))
    assert len(calls) == 2 * len(made)
