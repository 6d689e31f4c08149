import io
import struct
import zlib

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from refinenet_jax.data import images
from refinenet_jax.errors import UserError
from refinenet_jax.pictures import encode, encode_photo

HEIGHT, WIDTH = 40, 56


def smooth_picture() -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    red, green, blue = 4 * columns, 255 - 5 * rows, 60 + rows + columns
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def encoded(picture: PIL.Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def ids_png(ids, **options) -> bytes:
    return encoded(PIL.Image.fromarray(np.asarray(ids, np.uint8)), "PNG", **options)


def test_colours_are_rgb():
    rgb = smooth_picture()
    decoded = images.decode_image(encoded(PIL.Image.fromarray(rgb), "PNG"), "x")
    np.testing.assert_array_equal(decoded, rgb)
    assert decoded.dtype == np.uint8 and decoded.flags.c_contiguous


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 60}])
def test_jpeg(options):
    rgb = smooth_picture()
    data = encoded(PIL.Image.fromarray(rgb), "JPEG", **options)
    decoded = images.decode_image(data, "x")
    # JPEG loses detail; swapped channels would be off by far more.
    assert np.abs(decoded.astype(int) - rgb).mean() < 6


def test_grey_alpha_and_16_bits_become_three_channels_of_8():
    grey = smooth_picture()[..., 0]
    rgba = np.dstack([smooth_picture(), np.full((HEIGHT, WIDTH), 9, np.uint8)])
    deep = PIL.Image.fromarray(grey.astype(np.uint16) * 257)
    three = np.repeat(grey[..., None], 3, axis=-1)
    for picture, expected in [
        (PIL.Image.fromarray(grey), three),
        (PIL.Image.fromarray(rgba), smooth_picture()),
        (deep, three),
    ]:
        decoded = images.decode_image(encoded(picture, "PNG"), "x")
        np.testing.assert_array_equal(decoded, expected)


def pillow_images():
    """One of each mode that a PNG or TIFF can have: (image, format)."""
    rgb, grey = smooth_picture(), smooth_picture()[..., 0]
    four = np.dstack([rgb, rgb[..., 1]])
    palette = PIL.Image.fromarray(grey)
    palette.putpalette(np.random.default_rng(0).bytes(768))
    deep = np.random.default_rng(1).integers(0, 65536, (HEIGHT, WIDTH))
    return [
        (PIL.Image.fromarray(rgb), "PNG"),
        (PIL.Image.fromarray(four), "PNG"),
        (PIL.Image.fromarray(grey), "PNG"),
        (PIL.Image.fromarray(np.dstack([grey, grey.T.reshape(grey.shape)])), "PNG"),
        (PIL.Image.fromarray(grey > 99), "PNG"),
        (palette, "PNG"),
        (PIL.Image.fromarray(deep.astype(np.uint16)), "PNG"),
        (PIL.Image.fromarray(deep.astype(np.uint16)), "TIFF"),
        (PIL.Image.fromarray(rgb), "TIFF"),
    ]


@pytest.mark.parametrize("turned", [1, 3, 6])
def test_an_image_of_pillows_is_what_its_file_is(tmp_path, turned):
    """As it is opened lazily, as it was made, and turned by its EXIF block."""
    modes = set()
    for picture, file_format in pillow_images():
        picture.getexif()[0x0112] = turned
        path = tmp_path / f"picture.{file_format}"
        picture.save(path, exif=picture.getexif())
        expected = images.read_image(path)
        assert expected.shape == ((HEIGHT, WIDTH, 3), (WIDTH, HEIGHT, 3))[turned == 6]
        # Not by its path: Pillow 13 maps a grey TIFF into memory with its sides swapped.
        opened = PIL.Image.open(io.BytesIO(path.read_bytes()))
        for form in (opened, picture):
            found = images.from_pillow(form)
            assert found.dtype == np.uint8 and found.flags.c_contiguous
            np.testing.assert_array_equal(found, expected)
            modes.add(form.mode)
    assert modes == {"RGB", "RGBA", "L", "LA", "1", "P", "I;16"}


def test_images_of_pillows_that_cannot_be_taken(tmp_path):
    for mode in ("I", "F"):
        with pytest.raises(UserError, match=f"Pillow image of mode {mode}: bring it"):
            images.from_pillow(PIL.Image.new(mode, (3, 2)))
    path = tmp_path / "cut.jpg"
    data = encoded(PIL.Image.fromarray(smooth_picture()), "JPEG")
    path.write_bytes(data[:-200])
    with pytest.raises(images.DataError, match=r"cut\.jpg cannot be decoded"):
        images.from_pillow(PIL.Image.open(path))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_exif_orientation(tmp_path, orientation, file_format):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    picture = PIL.Image.fromarray(smooth_picture())
    data = encoded(picture, file_format, exif=exif)
    # As stored, until it is asked to turn.
    stored = images.decode_image(data, "x")
    assert stored.shape == (HEIGHT, WIDTH, 3)
    assert images.orientation(data) == orientation
    # Pillow's own turning, which has another author.
    as_viewers_show = PIL.Image.fromarray(stored)
    as_viewers_show.getexif()[0x0112] = orientation
    expected = np.array(PIL.ImageOps.exif_transpose(as_viewers_show))
    turned = images.turn_upright(stored, orientation)
    np.testing.assert_array_equal(turned, expected)
    assert turned.flags.c_contiguous
    path = tmp_path / "photo"
    path.write_bytes(data)
    np.testing.assert_array_equal(images.read_image(path), expected)


def test_no_orientation():
    plain = PIL.Image.fromarray(smooth_picture())
    assert images.orientation(encoded(plain, "PNG")) == 1
    assert images.orientation(b"no image") == 1


COLOURS = np.repeat(
    np.array([[[200, 30, 40], [20, 180, 90], [250, 250, 10]]], np.uint8), 8, axis=1
).repeat(16, axis=0)


def test_cmyk_becomes_rgb():
    cmyk = PIL.Image.fromarray(COLOURS).convert("CMYK")
    decoded = images.decode_image(encoded(cmyk, "JPEG", quality=100), "x")
    assert np.abs(decoded.astype(int) - COLOURS).max() <= 2


def test_a_jpeg_named_png_is_what_it_is(tmp_path):
    path = tmp_path / "photo.png"
    picture = PIL.Image.fromarray(COLOURS)
    path.write_bytes(encoded(picture, "JPEG", quality=100, subsampling=0))
    assert np.abs(images.read_image(path).astype(int) - COLOURS).max() <= 2


def test_16_bits_become_8():
    deep = (np.arange(HEIGHT * WIDTH) * 40 % 65536).astype(np.uint16)
    deep = deep.reshape(HEIGHT, WIDTH)
    _, data = cv2.imencode(".png", deep)
    decoded = images.decode_image(data.tobytes(), "x")
    np.testing.assert_array_equal(decoded, np.repeat(deep[..., None] >> 8, 3, axis=2))


def test_transparency_is_dropped():
    alpha = np.full((16, 24, 1), 3, np.uint8)
    picture = PIL.Image.fromarray(np.concatenate([COLOURS, alpha], axis=2))
    decoded = images.decode_image(encoded(picture, "PNG"), "x")
    np.testing.assert_array_equal(decoded, COLOURS)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_every_truncated_jpeg_is_an_error(options, monkeypatch):
    data = encoded(PIL.Image.fromarray(smooth_picture()), "JPEG", **options)
    # As OpenCV 4 does: whatever is there decodes to something.
    something = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: something)
    for length in range(2, len(data)):
        with pytest.raises(UserError, match="image cut.jpg .* it is truncated"):
            images.decode_image(data[:length], "cut.jpg")
    images.decode_image(data, "whole.jpg")


def test_a_thumbnail_does_not_hide_truncation():
    thumbnail = encoded(PIL.Image.fromarray(smooth_picture()[::4, ::4]), "JPEG")
    data = encoded(PIL.Image.fromarray(smooth_picture()), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    data = data[:2] + segment + data[2:]
    assert images.decode_image(data, "x").shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(UserError, match="image cut.jpg .* truncated"):
        images.decode_image(data[:-60], "cut.jpg")


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.99])
def test_truncated_png(share):
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH), np.uint8)
    data = ids_png(noise)
    data = data[: int(share * len(data))]
    with pytest.raises(UserError, match="image cut.png cannot be decoded"):
        images.decode_image(data, "cut.png")
    with pytest.raises(UserError, match="label cut.png cannot be decoded"):
        images.decode_label(data, "cut.png")


def test_no_image_at_all():
    with pytest.raises(UserError, match="image a.txt cannot be decoded"):
        images.decode_image(b"no image", "a.txt")
    with pytest.raises(UserError, match="label a.txt cannot be decoded") as caught:
        images.decode_label(b"no image", "a.txt")
    assert "\n" not in str(caught.value)


def test_palette_png_gives_indices():
    ids = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 21
    ids[0, :] = 255
    picture = PIL.Image.fromarray(ids.astype(np.uint8))
    picture.putpalette([(i * 37) % 256 for i in range(768)])
    decoded = images.decode_label(encoded(picture, "PNG"), "x")
    np.testing.assert_array_equal(decoded, ids)
    assert decoded.dtype == np.uint8 and decoded.flags.c_contiguous


def grey_png(ids, bits):
    """A PNG of ids in that many bits each, which Pillow reads and does not write."""
    digits = (ids[:, :, None] >> np.arange(bits)[::-1]) & 1
    rows = np.packbits(digits.reshape(len(ids), -1), axis=1)
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)  # no filter
    header = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data))
        + name
        + data
        + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


@pytest.mark.parametrize(("bits", "classes"), [(1, 2), (2, 4), (4, 12), (8, 200)])
@pytest.mark.parametrize("palette", [False, True])
def test_shallow_png_gives_ids(bits, classes, palette):
    ids = (np.arange(HEIGHT * WIDTH) % classes).astype(np.uint8).reshape(HEIGHT, WIDTH)
    data = grey_png(ids, bits)
    if palette:
        picture = PIL.Image.fromarray(ids)
        picture.putpalette([i // 3 for i in range(3 * classes)])
        data = encoded(picture, "PNG", bits=bits)
    assert data[24] == bits
    np.testing.assert_array_equal(images.decode_label(data, "x"), ids)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "F"])
def test_a_label_of_colours_is_an_error(mode):
    colour = (1, 2, 3, 4)[: len(mode)] if len(mode) > 1 else 1.5
    file_format = "TIFF" if mode == "F" else "PNG"
    data = encoded(PIL.Image.new(mode, (4, 3), colour), file_format)
    with pytest.raises(
        images.DataError, match=f"label x has pixels of mode {mode}"
    ) as e:
        images.decode_label(data, "x")
    assert e.value.kind == "colours_for_ids"


def test_a_jpeg_is_no_label():
    data = encoded(PIL.Image.new("L", (4, 3)), "JPEG")
    with pytest.raises(images.DataError, match="label x.png is a JPEG") as caught:
        images.decode_label(data, "x.png")
    assert caught.value.kind == "jpeg_label"


def test_16_bit_ids():
    ids = np.array([[0, 1, 300], [65535, 256, 255]], np.uint16)
    _, data = cv2.imencode(".png", ids)
    decoded = images.decode_label(data.tobytes(), "x")
    assert decoded.dtype == np.uint16 and decoded.tolist() == ids.tolist()


def test_grey_ids_saved_as_rgb():
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    data = encode(np.repeat(ids[..., None], 3, axis=2), "PNG")
    assert images.decode_label(data, "x").tolist() == ids.tolist()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_label_colours(mode):
    data = encoded(PIL.Image.fromarray(COLOURS).convert(mode), "PNG")
    if mode == "P":
        picture = PIL.Image.fromarray((COLOURS[..., 0] == 20).astype(np.uint8))
        picture.putpalette([200, 30, 40, 20, 180, 90])
        data = encoded(picture, "PNG")
    decoded = images.decode_colours(data, "x")
    expected = COLOURS if mode != "P" else COLOURS[:, :16]
    np.testing.assert_array_equal(decoded[:, :16], expected[:, :16])
    with pytest.raises(UserError, match="label x is a JPEG"):
        images.decode_colours(encoded(PIL.Image.fromarray(COLOURS), "JPEG"), "x")


@pytest.mark.parametrize("shape", [(5, 9), (5, 9, 3)])
def test_a_png_loses_nothing(shape):
    pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    decode = images.decode_label if len(shape) == 2 else images.decode_image
    np.testing.assert_array_equal(decode(encode(pixels, "PNG"), "x"), pixels)
    np.testing.assert_array_equal(decode(encode_photo(pixels), "x"), pixels)


def test_read_image(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode_photo(smooth_picture()))
    np.testing.assert_array_equal(images.read_image(path), smooth_picture())
    with pytest.raises(UserError, match="b.png cannot be read: No such file"):
        images.read_image(tmp_path / "b.png")
