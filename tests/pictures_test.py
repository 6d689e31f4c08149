import io

import numpy as np
import pytest
from PIL import Image

from refinenet_jax import pictures
from refinenet_jax.errors import UserError
from refinenet_jax.labels import VOID_COLOUR

PALETTE = ((0, 0, 0), (200, 0, 0), (0, 100, 50))
LABEL = np.asarray([[0, 1, 2], [255, 2, 1]], np.uint8)


def test_palette_png_holds_the_class_ids():
    picture = Image.open(io.BytesIO(pictures.palette_png(LABEL, PALETTE)))
    assert picture.mode == "P"
    assert np.asarray(picture).tolist() == LABEL.tolist()
    assert np.asarray(picture.convert("RGB"))[0, 1].tolist() == [200, 0, 0]


def test_overlay_mixes_by_hand():
    image = np.full((2, 3, 3), 100, np.uint8)
    mixed = pictures.overlay(image, LABEL, PALETTE)
    assert mixed[0, 1].tolist() == [150, 50, 50]
    assert mixed[0, 0].tolist() == [50, 50, 50]


@pytest.mark.parametrize("width", [1, 40, 300, 3000])
def test_a_legend_names_what_occurs(width):
    names = ["background", "an exceedingly long name of a class " * 3, "cat"]
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (50, width, 3)).astype(np.uint8)
    label = np.zeros((50, width), np.uint8)
    one = pictures.with_legend(picture, label, names, PALETTE)
    label[:, 0] = 2
    label[:3, 0] = 255
    three = pictures.with_legend(picture, label, names, PALETTE)
    for found in (one, three):
        assert found.dtype == np.uint8
        assert found.shape[1:] == (width, 3)
        assert np.array_equal(found[:50], picture)
    if width >= 40:
        shown = {tuple(pixel) for pixel in three[50:].reshape(-1, 3).tolist()}
        assert {*PALETTE, VOID_COLOUR} - shown == {PALETTE[1]}
        # Dark letters on white, readable: at least as high as a line of small print.
        inked = (three[50:] == 0).all(-1).any(1).sum()
        assert inked >= 8


def test_names_that_do_not_fit_are_cut_or_take_another_line():
    picture = np.zeros((8, 130, 3), np.uint8)
    label = np.resize(np.asarray([0, 1, 2], np.uint8), (8, 130))
    short = pictures.with_legend(picture, label, ["a", "b", "c"], PALETTE)
    long = pictures.with_legend(picture, label, ["dining table " * 9] * 3, PALETTE)
    assert long.shape[0] - 8 > 2 * (short.shape[0] - 8)
    assert (long[8:, -4:] == 255).all()  # no letter touches the edge


def test_lines_run_where_classes_meet():
    label = np.zeros((6, 8), np.uint8)
    label[:, 4:] = 1
    image = np.full((6, 8, 3), 90, np.uint8)
    plain, lined = (
        pictures.overlay(image, label, PALETTE, outlined=outlined)
        for outlined in (False, True)
    )
    assert (lined[:, 3] == 0).all() and (lined[:, 4] == 255).all()
    others = [0, 1, 2, 5, 6, 7]
    assert np.array_equal(lined[:, others], plain[:, others])
    assert np.array_equal(
        pictures.overlay(image, label * 0, PALETTE, outlined=True),
        pictures.overlay(image, label * 0, PALETTE),
    )


@pytest.mark.parametrize("width", [1, 64, 333, 1920])
def test_a_legend_of_so_many_lines_has_one_height(width):
    names = [f"class number {i}" for i in range(200)]
    palette = np.random.default_rng(0).integers(0, 256, (200, 3)).tolist()
    picture = np.zeros((9, width, 3), np.uint8)
    heights = set()
    for classes in (1, 3, 200):
        label = np.arange(classes, dtype=np.uint8)[None].repeat(9, 0)
        drawn = pictures.with_legend(
            picture, label, names, palette, heading="film.mp4  0:01", lines=2
        )
        heights.add(len(drawn))
    assert len(heights) == 1
    assert (heights.pop() - 9) % 2 == 0


def test_the_largest_classes_are_kept_and_the_rest_is_counted():
    names = [f"class {i}" for i in range(60)]
    palette = [(0, i, 200) for i in range(60)]
    label = np.concatenate([np.arange(60), np.full(90, 57)]).astype(np.uint8)[None]
    picture = np.zeros((5, 300, 3), np.uint8)
    drawn = pictures.with_legend(picture, label, names, palette, lines=2)[5:]
    shown = {pixel[1] for pixel in drawn.reshape(-1, 3).tolist() if pixel[2] == 200}
    shown -= {200}
    assert 57 in shown
    assert shown - {57} == set(range(len(shown) - 1))
    assert 4 < len(shown) < 20


def test_strip_has_a_row_for_each_example_under_headings_and_a_legend_below():
    rows = [
        (np.full((2, 3, 3), 9, np.uint8), LABEL, LABEL),
        (
            np.full((5, 2, 3), 8, np.uint8),
            np.zeros((5, 2), np.uint8),
            np.ones((5, 2), np.uint8),
        ),
    ]
    strip = pictures.strip(rows, ["a", "b", "c"], PALETTE)
    head = 2 * pictures.text_size(9)
    assert strip.shape[1] == 9
    body = strip[head : head + 7]
    assert body[0, 3:6].tolist() == pictures.colours(LABEL, PALETTE)[0].tolist()
    assert body[2:, 6:8].tolist() == [[[200, 0, 0]] * 2] * 5
    assert len(strip) > head + 7 + pictures.text_size(9)
    captioned = pictures.strip(rows, ["a", "b", "c"], PALETTE, ["first", "second"])
    assert len(captioned) == len(strip) + 2 * head
    assert pictures.strip([], [], PALETTE).size == 0


def test_headings_stand_over_their_columns():
    label = np.zeros((20, 100), np.uint8)
    rows = [(np.zeros((20, 100, 3), np.uint8), label, label)]
    head = pictures.strip(rows, ["a"], PALETTE)[: 2 * pictures.text_size(300)]
    inked = (head < 128).all(-1).any(0)
    for start in (0, 100, 200):
        assert inked[start : start + 100].sum() > 15


def test_encoded_image_reads_back():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    decoded = np.asarray(Image.open(io.BytesIO(pictures.encode(image, "PNG"))))
    assert decoded.tolist() == image.tolist()


def test_rgb_is_shown_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    assert pictures.STRETCHED.rgb(image) is image


def test_other_pictures_are_stretched_between_percentiles():
    image = np.zeros((10, 11, 4), np.uint16)
    image[..., 0] = np.arange(110).reshape(10, 11) * 300 + 5
    image[..., 3] = 7
    shown = pictures.Shown((0, 3, 0), (0.0, 100.0)).rgb(image)
    assert shown.dtype == np.uint8
    steps = np.rint(np.arange(110).reshape(10, 11) / 109 * 255)
    np.testing.assert_array_equal(shown[..., 0], steps)
    np.testing.assert_array_equal(shown[..., 2], steps)
    assert not shown[..., 1].any()
    # Beyond the percentiles all is black or white.
    narrow = pictures.Shown((0,), (20.0, 80.0)).rgb(image)
    assert (narrow == 0).sum() >= 3 * 22
    assert (narrow == 255).sum() >= 3 * 22
    assert (narrow[..., 0] == narrow[..., 2]).all()


def test_what_is_no_number_is_black():
    image = np.linspace(-9, 9, 20, dtype=np.float32).reshape(4, 5, 1)
    image[0, 0], image[3, 4] = np.nan, np.inf
    shown = pictures.STRETCHED.rgb(image)
    assert shown.shape == (4, 5, 3)
    assert not shown[0, 0].any()
    assert not shown[3, 4].any()
    assert shown[3, 3].min() > 250
    assert not pictures.STRETCHED.rgb(np.full((2, 3, 2), np.nan, np.float32)).any()


def test_a_channel_that_is_not_there_is_named():
    with pytest.raises(UserError, match="have 2 channels, 0 to 1"):
        pictures.Shown((2,)).rgb(np.zeros((2, 3, 2), np.uint16))
    with pytest.raises(UserError, match="one channel or three"):
        pictures.Shown((0, 1))
