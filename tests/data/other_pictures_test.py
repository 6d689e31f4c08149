"""Folders whose pictures are not RGB, prepared and opened."""

import dataclasses

import numpy as np
import pytest
import tifffile
from PIL import Image

from refinenet_jax.data import datasets, preparation
from refinenet_jax.data.channel_moments import moments_file
from refinenet_jax.data.images import DataError
from refinenet_jax.data.mixture import Ingredient, decode
from refinenet_jax.data.picture_kind import RGB, PictureKind
from refinenet_jax.data.pipeline import train_batches
from refinenet_jax.data.transforms import RandomCrop
from refinenet_jax.errors import UserError
from refinenet_jax.files import path
from tests.data import ask

HEIGHT, WIDTH = 20, 31
RNG = np.random.default_rng(0)
SIX = RNG.integers(0, 65536, (4, HEIGHT, WIDTH, 6)).astype(np.uint16)
GREY = RNG.integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)
COLOURS = RNG.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)


def tif(pixels):
    return lambda file: tifffile.imwrite(
        f"{file}.tif", pixels, photometric="minisblack"
    )


def png(pixels):
    return lambda file: Image.fromarray(pixels).save(f"{file}.png")


def npy(pixels):
    return lambda file: np.save(f"{file}.npy", pixels)


def folder(root, *saves):
    """Two to train and the others to evaluate on; labels are 0, 1, 2 by row."""
    for number, save in enumerate(saves):
        split = "train" if number < 2 else "val"
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        save(root / f"images/{split}/{number}")
        label = np.arange(HEIGHT, dtype=np.uint8)[:, None].repeat(WIDTH, 1) % 3
        Image.fromarray(label).save(root / f"labels/{split}/{number}.png")
    (root / "classes.txt").write_text("a\nb\nc\n")
    return root


def prepared(tmp_path, *saves, listener=None, **asked):
    """The builder; `asked`: fields of the request."""
    if not (tmp_path / "photos").exists():
        folder(tmp_path / "photos", *saves)
    request = ask.request(
        "folder", manual_dir=tmp_path / "photos", data_dir=tmp_path / "data"
    )
    request = dataclasses.replace(request, **asked)
    return preparation.prepare(request, listener or ask.Listener())


def opened(tmp_path, *saves, split="train", **asked):
    return datasets.open_split(prepared(tmp_path, *saves, **asked), split)


def test_six_channels_come_back_as_they_were(tmp_path):
    listener = ask.Listener()
    source = opened(tmp_path, *map(tif, SIX), listener=listener)
    assert "the pictures have 6 channels of 16 bits" in listener.lines
    assert source.kind == PictureKind(6, "uint16")
    for index in range(2):
        np.testing.assert_array_equal(
            decode(source[index], source.kind)["image"], SIX[index]
        )
    mean, std = source.mean_and_std(ask.Listener())
    pixels = SIX[:2].reshape(-1, 6).astype(float)
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-5)
    np.testing.assert_allclose(std, pixels.std(0), rtol=1e-5)


def test_what_was_measured_is_made_anew_where_it_is_lost(tmp_path):
    builder = prepared(tmp_path, *map(tif, SIX))
    source = datasets.open_split(builder, "train")
    before = source.mean_and_std(ask.Listener())
    file = moments_file(path(builder.data_path), "train")
    file.write_bytes(b"broken")
    listener = ask.Listener()
    assert source.mean_and_std(listener) == before
    assert listener.units == {"measuring channels": [2, 2]}
    listener = ask.Listener()
    assert source.mean_and_std(listener) == before
    assert listener.units == {}


@pytest.mark.parametrize("keep_decoded", [False, True])
def test_batches_are_of_the_kind_of_the_data(tmp_path, keep_decoded):
    source = opened(tmp_path, *map(tif, SIX))
    crop = RandomCrop(12, 40, tuple(range(6)))
    ingredient = Ingredient(source, keep_decoded=keep_decoded)
    batches = iter(train_batches([ingredient], [crop], batch_size=4, seed=0))
    batch = next(batches)
    batches.close()
    assert batch["image"].shape == (4, 12, 40, 6)
    assert batch["image"].dtype == np.uint16
    around = batch["label"] == 255
    assert around.any()
    assert (batch["image"][around] == np.arange(6)).all()
    assert batch["image"][~around].mean() > 20_000


def test_grey_among_rgb_is_shown_as_rgb(tmp_path):
    source = opened(tmp_path, png(GREY), png(COLOURS), png(GREY))
    assert source.kind == RGB
    shown = decode(source[0], source.kind)["image"]
    np.testing.assert_array_equal(shown, np.repeat(GREY[..., None], 3, 2))
    builder = prepared(tmp_path)
    assert "pictures" not in builder.info.metadata
    assert not moments_file(path(builder.data_path), "train").exists()


def test_grey_alone_has_one_channel_or_three_as_is_asked_for(tmp_path):
    source = opened(tmp_path, *[png(GREY)] * 3)
    assert source.kind == PictureKind(1)
    np.testing.assert_array_equal(
        decode(source[0], source.kind)["image"], GREY[..., None]
    )
    source = opened(tmp_path, channels=3)
    assert source.kind == RGB
    np.testing.assert_array_equal(decode(source[0], source.kind)["image"][..., 2], GREY)
    with pytest.raises(UserError, match="1 channel of 8 bits, but the network sees 6"):
        opened(tmp_path, channels=6)


def test_kinds_that_differ_end_with_both_files(tmp_path):
    with pytest.raises(DataError) as caught:
        prepared(tmp_path, tif(SIX[0]), png(GREY), png(GREY))
    message = str(caught.value)
    assert "1.png has 1 channel of 8 bits" in message
    assert "0.tif has 6 channels of 16 bits" in message
    assert not list((tmp_path / "data").glob("folder/*/*/dataset_info.json"))


def test_transparency_is_counted(tmp_path):
    with_alpha = np.dstack([COLOURS, GREY])
    listener = ask.Listener()
    source = opened(
        tmp_path, png(with_alpha), png(COLOURS), png(COLOURS), listener=listener
    )
    assert "1 pictures have transparency, which is dropped" in listener.lines
    np.testing.assert_array_equal(decode(source[0], source.kind)["image"], COLOURS)


def test_nan_is_refused_or_does_not_count(tmp_path):
    values = SIX[..., :2].astype(np.float32)
    values[0, 3, 4, 1], values[0, 5, 6, 0] = np.nan, np.inf
    with pytest.raises(UserError, match="2 of 620 pixels that are NaN or infinite"):
        prepared(tmp_path, *map(npy, values))
    listener = ask.Listener()
    source = opened(tmp_path, not_finite="ignore", listener=listener)
    assert (
        "1 pictures hold NaN or infinity; those pixels do not count" in listener.lines
    )
    hidden = np.argwhere(decode(source[0], source.kind)["label"] == 255).tolist()
    assert hidden == [[3, 4], [5, 6]]
    assert source.class_pixels(ask.Listener())[:, -1].tolist() == [2, 0]
    assert np.isfinite(source.mean_and_std(ask.Listener())).all()
    with pytest.raises(UserError, match="with 1 pictures that hold NaN"):
        prepared(tmp_path)


def test_a_picture_that_is_stored_turned_is_set_upright(tmp_path):
    def turned(file):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(np.rot90(GREY)).save(f"{file}.png", exif=exif)

    source = opened(tmp_path, *[turned] * 3)
    assert source.kind == PictureKind(1)
    np.testing.assert_array_equal(
        decode(source[0], source.kind)["image"], GREY[..., None]
    )
