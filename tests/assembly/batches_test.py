"""What the config asks for arrives in the batches."""

import contextlib
import re

import numpy as np
import pytest

from refinenet_jax.assembly import batches
from refinenet_jax.assembly.data import find_dataset, open_data
from refinenet_jax.config import ConfigDict, default
from refinenet_jax.data import transforms
from refinenet_jax.data.class_table import read_class_table
from refinenet_jax.data.mixture import decode
from refinenet_jax.errors import UserError
from tests.data.conftest import Writer
from tests.data.layouts import write_coco_stuff_164k

MEAN = (123.7, 116.3, 103.5)


@pytest.fixture
def voc(tmp_path) -> ConfigDict:
    """Three images for training, two to evaluate."""
    Writer().voc(tmp_path / "voc", ["a", "b", "c"], ["d", "e"])
    config = default()
    config.model.num_classes = 21
    config.data.name = "voc2012"
    config.data.manual_dir = str(tmp_path / "voc")
    config.data.dir = str(tmp_path / "prepared")
    config.data.crop_size = 32
    config.train.batch_size = 8
    return config


def take(config: ConfigDict, count: int) -> np.ndarray:
    endless = batches.build_batches(config, open_data(config, "train"), MEAN)
    with contextlib.closing(iter(endless)) as iterator:
        return np.concatenate([next(iterator)["label"] for _ in range(count)])


def test_the_recipe_of_the_paper():
    config = default()
    config.data.short_edge = (450, 1100)
    config.data.scale_step = 0.1
    config.data.crop = "class_centred"
    assert batches._transforms(config, MEAN) == [
        transforms.ClampShortEdge(450, 1100),
        transforms.RandomScale(0.7, 1.3, 0.1),
        transforms.RandomFlip(0.5),
        transforms.ClassCentredCrop(96, 96, (124, 116, 104)),
    ]


def test_every_transform():
    config = default()
    config.data.rotation = 10.0
    config.data.blur = 2.0
    config.data.colour_jitter = (0.0, 0.0, 0.2, 0.0)
    names = [type(each).__name__ for each in batches._transforms(config, MEAN)]
    assert names == [
        "ClampShortEdge",
        "RandomScale",
        "RandomRotation",
        "RandomFlip",
        "RandomCrop",
        "ColourJitter",
        "RandomBlur",
    ]


def test_class_balanced_sampling(voc):
    voc.data.sampling = "class_balanced"
    voc.data.images_per_class = 1
    # An epoch has one image for each of the 21 classes, from three that have them all.
    assert take(voc, 3).shape == (24, 32, 32)


def mix(coco, **changes):
    other = {
        "name": "coco_stuff_164k",
        "split": "train",
        "weight": 3.0,
        "manual_dir": str(coco),
        "class_map": "coco_to_voc",
        "min_pixels": 1,
    }
    return (other | changes,)


@pytest.fixture
def coco(tmp_path):
    write_coco_stuff_164k(
        tmp_path / "coco", [0, 120, 120, 120], "images", "annotations"
    )
    return tmp_path / "coco"


def test_a_mixture_speaks_of_the_classes_of_the_first(voc, coco):
    plain = take(voc, 4)
    voc.data.mix = mix(coco)
    mixed = take(voc, 4)
    assert set(np.unique(mixed)) <= {*range(21), 255}
    # COCO's pictures are mostly background, VOC's have 21 classes in equal shares.
    mostly_background = (mixed == 0).mean(axis=(1, 2)) > 0.2
    assert not ((plain == 0).mean(axis=(1, 2)) > 0.2).any()
    # One quarter of 32 is VOC's, exactly.
    assert mostly_background.sum() == 24


def test_images_with_too_few_pixels_are_left_out(voc, coco):
    voc.data.mix = mix(coco, min_pixels=10**6)
    with pytest.raises(UserError, match="none of the 2 images of a training split"):
        take(voc, 1)


def test_other_classes_need_a_map(voc, coco):
    voc.data.mix = mix(coco, class_map="")
    with pytest.raises(
        UserError, match="coco_stuff_164k has other classes than voc2012"
    ):
        take(voc, 1)
    voc.data.mix = mix(coco, class_map="coco_to_camvid")
    with pytest.raises(
        UserError, match="class map 'coco_to_camvid'; known: coco_to_voc"
    ):
        take(voc, 1)


def test_the_classes_of_a_folder_are_counted(tmp_path):
    config = default()
    config.data.name = "camvid"
    config.model.num_classes = 0
    assert find_dataset(config).num_classes == 11
    assert config.model.num_classes == 0  # the config is the person's
    config.model.num_classes = 12
    with pytest.raises(UserError, match="num_classes=12, but camvid has 11 classes"):
        find_dataset(config)
    assert len(read_class_table("camvid").class_names) == 11


def test_decoded_examples_are_kept_where_they_fit(voc, capsys):
    plain = take(voc, 3)
    voc.data.decoded_cache = 0.5
    np.testing.assert_array_equal(take(voc, 3), plain)
    told = re.search(
        r"3 decoded examples take (\S+) GiB and are kept", capsys.readouterr().out
    )
    source = open_data(voc, "train").sources["train"]
    pixels = sum(decode(source[i])["label"].size for i in range(3))
    assert told and float(told[1]) == pytest.approx(4 * pixels / 2**30, rel=0.01)
    voc.data.decoded_cache = 1e-6
    with pytest.raises(UserError, match="decoded_cache=1e-06 GiB, but 3 decoded"):
        take(voc, 1)
