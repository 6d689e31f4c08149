import io

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from refinenet_jax.data import images
from refinenet_jax.data.images import DataError
from refinenet_jax.data.picture_files import encode_npy
from refinenet_jax.data.picture_kind import RGB, PictureKind

HEIGHT, WIDTH = 20, 31


def numbers(channels, dtype):
    rng = np.random.default_rng(channels)
    values = rng.random((HEIGHT, WIDTH, channels))
    most = 1 if dtype == "float32" else np.iinfo(dtype).max
    return (values * most).astype(dtype)


def tif(pixels, **options):
    content = io.BytesIO()
    tifffile.imwrite(content, pixels, **options)
    return content.getvalue()


def png(pixels):
    return cv2.imencode(".png", pixels)[1].tobytes()


def pillow(pixels, form, **options):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, form, **options)
    return content.getvalue()


def as_stored(data):
    """The pixels, which are of the kind that the header says, and no more than needed."""
    found = images.decode_picture(data, "x", None)
    assert PictureKind.of(found) == images.read_header(data, "x").kind
    assert found.flags.c_contiguous
    return found


GREY_16, SIX, SIX_FLOAT = (
    numbers(1, "uint16"),
    numbers(6, "uint16"),
    numbers(6, "float32"),
)
GREY, FOUR, RGB_16 = numbers(1, "uint8"), numbers(4, "uint8"), numbers(3, "uint16")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(GREY), GREY),
        (png(GREY_16), GREY_16),
        (png(RGB_16[..., ::-1]), RGB_16),
        (tif(GREY[..., 0]), GREY),
        (tif(GREY_16[..., 0]), GREY_16),
        (tif(GREY_16[..., 0], byteorder=">"), GREY_16),
        (tif(GREY_16[..., 0], compression="zlib", predictor=True), GREY_16),
        (tif(65535 - GREY_16[..., 0], photometric="miniswhite"), GREY_16),
        (tif(GREY_16[..., 0], bigtiff=True), GREY_16),
        (tif(RGB_16, photometric="rgb"), RGB_16),
        (tif(SIX, photometric="minisblack", planarconfig="contig"), SIX),
        (tif(SIX, photometric="rgb", extrasamples=["unspecified"] * 3), SIX),
        (tif(SIX_FLOAT, photometric="minisblack", tile=(16, 16)), SIX_FLOAT),
        # Planes, pages, and what tifffile makes of an array that nothing is said of.
        (
            tif(
                np.moveaxis(SIX, 2, 0),
                planarconfig="separate",
                photometric="minisblack",
            ),
            SIX,
        ),
        (tif(np.moveaxis(SIX, 2, 0), photometric="minisblack"), SIX),
        (tif(np.moveaxis(SIX, 2, 0), metadata={"axes": "CYX"}), SIX),
        (tif(SIX), SIX),
        (encode_npy(SIX_FLOAT), SIX_FLOAT),
        (encode_npy(SIX_FLOAT.astype(np.float64)), SIX_FLOAT),
        (encode_npy(GREY_16[..., 0]), GREY_16),
        (encode_npy(np.asfortranarray(SIX)), SIX),
        (encode_npy(SIX.astype(">u2")), SIX),
        (encode_npy(numbers(16, "uint8")), numbers(16, "uint8")),
    ],
)
def test_pictures_are_read_as_they_are_stored(data, expected):
    np.testing.assert_array_equal(as_stored(data), expected)


def test_photographs_are_read_as_viewers_show_them():
    colours = numbers(3, "uint8")
    for data in (
        png(colours[..., ::-1]),
        tif(colours, photometric="rgb"),
        encode_npy(colours),
        pillow(colours, "WEBP", lossless=True),
    ):
        assert images.read_header(data, "x").kind == RGB
        np.testing.assert_array_equal(as_stored(data), colours)
    jpeg = pillow(colours, "JPEG")
    np.testing.assert_array_equal(as_stored(jpeg), images.decode_image(jpeg, "x"))


def test_a_grey_jpeg_has_one_channel_and_becomes_three_among_rgb():
    data = pillow(GREY[..., 0], "JPEG", quality=100)
    grey = as_stored(data)
    assert np.abs(grey.astype(int) - GREY).max() <= 4
    shown = images.decode_picture(data, "x", RGB)
    np.testing.assert_array_equal(shown, np.repeat(grey, 3, axis=2))
    data = png(GREY_16)
    shown = images.decode_picture(data, "x", PictureKind(3, "uint16"))
    np.testing.assert_array_equal(shown, np.repeat(GREY_16, 3, axis=2))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(FOUR), FOUR[..., 2::-1]),
        (tif(FOUR, photometric="rgb"), None),  # as OpenCV shows it, on black
        (
            tif(SIX[..., :4], photometric="rgb", extrasamples=["unassalpha"]),
            SIX[..., :3],
        ),
        (
            tif(SIX[..., :2], photometric="minisblack", extrasamples=["assocalpha"]),
            SIX[..., :1],
        ),
        (pillow(FOUR, "WEBP", lossless=True), None),
    ],
)
def test_transparency_is_dropped_and_told(data, expected):
    assert images.read_header(data, "x").has_alpha
    found = as_stored(data)
    if expected is not None:
        np.testing.assert_array_equal(found, expected)
    assert not images.read_header(png(FOUR[..., :3]), "x").has_alpha


def test_a_compressed_tiff_of_few_channels_needs_no_further_package():
    data = pillow(GREY_16[..., 0], "TIFF", compression="tiff_lzw")
    np.testing.assert_array_equal(as_stored(data), GREY_16)


def test_a_tiff_is_turned_as_it_says():
    tag = [(274, "H", 1, 6, True)]
    data = tif(GREY_16[..., 0], extratags=tag)
    np.testing.assert_array_equal(as_stored(data), np.rot90(GREY_16, -1))


def test_a_heic_is_a_photograph():
    pillow_heif = pytest.importorskip("pillow_heif")
    smooth = cv2.resize(numbers(3, "uint8")[:4, :5], (64, 48))
    content = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(smooth)).save(content, quality=95)
    data = content.getvalue()
    assert images.read_header(data, "x").kind == RGB
    found = as_stored(data)
    assert found.shape == smooth.shape
    assert np.abs(found.astype(int) - smooth).mean() < 4  # its chroma is halved
    np.testing.assert_array_equal(images.decode_picture(data, "x", RGB), found)


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (encode_npy(SIX.astype(np.int32)), "unknown_form", "its numbers are int32"),
        (encode_npy(numbers(17, "uint8")), "unknown_form", "at most 16 channels"),
        (encode_npy(np.moveaxis(SIX, 2, 0)), "unknown_form", "[6, 20, 31]"),
        (encode_npy(np.zeros(5, np.uint8)), "unknown_form", "[5]"),
        (encode_npy(np.zeros((0, 5), np.uint8)), "unknown_form", "no pixel"),
        (tif(SIX.astype(np.int16)), "unknown_form", "int16"),
        (encode_npy(SIX)[:-9], "damaged", "truncated"),
        (
            tif(SIX, photometric="minisblack", planarconfig="contig")[:-400],
            "damaged",
            "cannot be decoded",
        ),
        (tif(SIX)[:60], "damaged", "cannot be decoded"),
        (b"\x93NUMPY\x01\x00\x06\x00{'a':", "damaged", "cannot be decoded"),
    ],
)
def test_what_is_no_such_picture_is_told_in_a_line(data, kind, words, capfd):
    with pytest.raises(DataError) as caught:
        images.decode_picture(data, "a.tif", None)
    assert caught.value.kind == kind
    assert words in str(caught.value)
    assert "a.tif" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_objects_in_an_npy_are_not_opened():
    content = io.BytesIO()
    np.save(content, np.array([[object]], object), allow_pickle=True)
    with pytest.raises(DataError, match="its numbers are object"):
        images.decode_picture(content.getvalue(), "x", None)


def test_a_picture_of_another_kind_is_refused():
    with pytest.raises(DataError, match="6 channels of 16 bits, not RGB of 8 bits"):
        images.decode_picture(encode_npy(SIX), "x", RGB)
    with pytest.raises(
        DataError, match="1 channel of 8 bits, not 1 channel of 16 bits"
    ):
        images.decode_picture(png(GREY), "x", PictureKind(1, "uint16"))


def test_kinds_that_differ_are_told_with_their_files():
    grey, six = PictureKind(1), PictureKind(6)
    assert images.common_kind({grey: "a", RGB: "b"}) == RGB
    with pytest.raises(
        DataError, match="image c has 6 channels of 8 bits, but image a has 1"
    ):
        images.common_kind({grey: "a", RGB: "b", six: "c"})
