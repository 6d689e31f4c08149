import importlib.util
import itertools
import re
import zlib

import cv2
import numpy as np
import pytest
import tifffile

from refinenet_jax.data.images import DataError, read_image
from refinenet_jax.errors import UserError
from refinenet_jax.inference import tiff

needs_codecs = pytest.mark.skipif(
    not importlib.util.find_spec("imagecodecs"), reason="needs the extra large"
)
SHAPE = (75, 118)
GEOREFERENCE = (
    (33550, 12, 3, (0.5, 0.5, 0.0), True),
    (33922, 12, 6, (0.0, 0.0, 0.0, 443000.0, 4427000.25, 0.0), True),
    (34735, 3, 8, (1, 1, 0, 1, 3072, 0, 1, 32633), True),
    (34736, 12, 2, (6378137.0, 298.257223563), True),
    (34737, 2, 23, "WGS 84 / UTM zone 33N|", True),
)


def pixels(*shape, dtype=np.uint8, seed=0):
    """Smooth, so that JPEG keeps them, with values from end to end."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, *shape[2:]), np.uint8)
    values = cv2.resize(small, shape[1::-1], interpolation=cv2.INTER_CUBIC)
    values = values.reshape(shape)
    return values if dtype == np.uint8 else values.astype(dtype) * 257 - 1


def windows(shape):
    """Corners and sizes: at the corners, across all, one pixel, and odd ones."""
    height, width = shape
    yield 0, 0, height, width
    yield height - 1, width - 1, 1, 1
    for top, left in itertools.product((0, 15, 16, 31, 40), (0, 17, 64)):
        yield top, left, min(33, height - top), min(50, width - left)


def check(path, expected):
    """Every window is that part of the expected pixels."""
    with tiff.opened(path, 64) as picture:
        assert picture.shape == expected.shape[:2]
        for top, left, height, width in windows(picture.shape):
            found = picture.window(top, left, height, width)
            assert found.dtype == np.uint8 and found.flags.c_contiguous
            part = expected[top : top + height, left : left + width]
            np.testing.assert_array_equal(found, part)


COLOUR = {"photometric": "rgb"}
TILES, STRIPS = {"tile": (32, 64)}, {"rowsperstrip": 7}
LAYOUTS = {
    "tiles": (3, {**COLOUR, **TILES}),
    "strips": (3, {**COLOUR, **STRIPS}),
    "one strip": (3, {**COLOUR}),
    "deflated": (3, {**COLOUR, **TILES, "compression": "zlib"}),
    "predicted": (3, {**COLOUR, **TILES, "compression": "zlib", "predictor": True}),
    "planes": (3, {**COLOUR, **TILES, "planarconfig": "separate"}),
    "planes in strips": (3, {**COLOUR, **STRIPS, "planarconfig": "separate"}),
    "transparent": (4, {**COLOUR, **TILES, "extrasamples": ["unassalpha"]}),
    "grey": (1, {"photometric": "minisblack", **TILES}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_windows_are_parts_of_what_viewers_show(layout, dtype, byteorder, tmp_path):
    channels, options = LAYOUTS[layout]
    values = pixels(*SHAPE, channels, dtype=dtype)
    stored = np.moveaxis(values, -1, 0) if "planarconfig" in options else values
    path = tmp_path / "picture.tif"
    bigtiff = byteorder == ">"
    if channels == 1:
        stored = stored[..., 0]
    tifffile.imwrite(path, stored, byteorder=byteorder, bigtiff=bigtiff, **options)
    eight_bits = values if dtype == np.uint8 else (values >> 8).astype(np.uint8)
    check(path, np.repeat(eight_bits, 3, 2) if channels == 1 else eight_bits[..., :3])
    if channels == 3:
        check(path, read_image(path))


@needs_codecs
@pytest.mark.parametrize("compression", ["lzw", "jpeg", "zstd", "packbits"])
@pytest.mark.parametrize("layout", ["tiles", "strips"])
def test_codecs(compression, layout, tmp_path):
    values = pixels(*SHAPE, 3)
    path = tmp_path / "picture.tif"
    options = {"tile": (32, 64)} if layout == "tiles" else {"rowsperstrip": 8}
    tifffile.imwrite(
        path, values, photometric="rgb", compression=compression, **options
    )
    expected = tifffile.imread(path)
    assert np.abs(expected.astype(int) - values).mean() < 3  # JPEG has losses
    check(path, expected)


@needs_codecs
def test_jpeg_in_ycbcr_is_rgb(tmp_path):
    values = pixels(80, 128, 3)
    path = tmp_path / "picture.tif"
    options = {"photometric": "rgb", "compression": "jpeg", "subsampling": (2, 2)}
    tifffile.imwrite(path, values, **options)
    with tifffile.TiffFile(path) as file:
        assert file.pages.first.photometric.name == "YCBCR"
    check(path, tifffile.imread(path))
    with tiff.opened(path, 64) as picture:
        assert np.abs(picture.window(0, 0, 80, 128).astype(int) - values).mean() < 3


def test_palettes_and_inverted_grey(tmp_path):
    ids = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    table = np.random.default_rng(1).integers(0, 256, (256, 3), np.uint8)
    path = tmp_path / "picture.tif"
    options = {"tile": (32, 64)}
    colormap = table.T.astype(np.uint16) * 257
    tifffile.imwrite(path, ids, photometric="palette", colormap=colormap, **options)
    check(path, table[ids])
    tifffile.imwrite(path, ids, photometric="miniswhite", **options)
    check(path, np.repeat(255 - ids[..., None], 3, 2))


def test_tiles_that_were_never_written_are_black(tmp_path):
    path = tmp_path / "sparse.tif"
    values = pixels(64, 128, 3)
    tiles = [values[:32, :64], None, None, values[32:, 64:]]
    tifffile.imwrite(
        path,
        iter(tiles),
        shape=(64, 128, 3),
        dtype=np.uint8,
        tile=(32, 64),
        photometric="rgb",
    )
    values[:32, 64:] = values[32:, :64] = 0
    check(path, values)


def test_the_next_window_decodes_what_is_new(tmp_path, monkeypatch):
    path = tmp_path / "picture.tif"
    tifffile.imwrite(path, pixels(64, 256, 3), photometric="rgb", tile=(32, 32))
    decoded = []
    original = tiff.Tiff._decoded
    monkeypatch.setattr(
        tiff.Tiff, "_decoded", lambda self, n: decoded.append(n) or original(self, n)
    )
    with tiff.opened(path, 64) as picture:
        picture.window(0, 0, 64, 64)
        picture.window(0, 32, 64, 64)
    assert decoded == [0, 1, 8, 9, 2, 10]


def damaged(tmp_path, change):
    """A good file of deflated tiles, changed by `change(bytes)`."""
    path = tmp_path / "picture.tif"
    tifffile.imwrite(
        path, pixels(*SHAPE, 3), photometric="rgb", tile=(32, 64), compression="zlib"
    )
    path.write_bytes(change(bytearray(path.read_bytes())))
    return path


def test_a_file_that_is_cut_short_is_told_at_once(tmp_path):
    path = damaged(tmp_path, lambda data: data[:-9])
    with (
        pytest.raises(
            DataError, match=r"picture.tif cannot be decoded: it is cut short"
        ),
        tiff.opened(path, 64),
    ):
        pass
    for length in (0, 3, 8, 100):
        path.write_bytes(b"II*\0" + bytes(length))
        with pytest.raises(DataError, match="cannot be decoded"), tiff.opened(path, 64):
            pass
        assert tiff.shape_of(path) is None


def test_a_file_that_is_cut_short_meanwhile(tmp_path):
    path = damaged(tmp_path, bytes)
    with tiff.opened(path, 64) as picture:
        picture.window(0, 0, 10, 10)
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(DataError, match="it is cut short"):
            picture.window(40, 60, 30, 30)


def test_a_damaged_tile(tmp_path):
    with tifffile.TiffFile(damaged(tmp_path, bytes)) as file:
        offset = file.pages.first.dataoffsets[4]

    def garble(data):
        data[offset : offset + 50] = bytes(50)
        return data

    with tiff.opened(damaged(tmp_path, garble), 64) as picture:
        picture.window(0, 0, 30, 30)
        with pytest.raises(DataError, match="picture.tif cannot be decoded: "):
            picture.window(*(0, 0), *SHAPE)


def test_what_a_network_does_not_see_is_refused(tmp_path):
    path = tmp_path / "picture.tif"
    cases = {
        "channels of float32": (pixels(*SHAPE).astype(np.float32), {}),
        "5 channels of uint8, MINISBLACK": (pixels(*SHAPE, 5), {"photometric": 1}),
        "orientation 6": (pixels(*SHAPE), {"extratags": [(274, 3, 1, 6, True)]}),
    }
    for line, (values, options) in cases.items():
        planar = {"planarconfig": "contig"} if values.ndim == 3 else {}
        tifffile.imwrite(path, values, **{"photometric": 1} | planar | options)
        with pytest.raises(UserError, match=line), tiff.opened(path, 64):
            pass


def test_strips_too_large_to_read_by_window(tmp_path, monkeypatch):
    path = tmp_path / "picture.tif"
    tifffile.imwrite(
        path,
        np.zeros((300, 1000, 3), np.uint8),
        photometric="rgb",
        rowsperstrip=100,
        compression="zlib",
    )
    monkeypatch.setattr(tiff, "_MOST_BYTES", 2 * 100 * 1000 * 3)
    with tiff.opened(path, 64) as picture:
        picture.window(90, 0, 64, 64)
    monkeypatch.setattr(tiff, "_MOST_BYTES", 2 * 100 * 1000 * 3 - 1)
    line = (
        "picture.tif has strips of 100 x 1000, too large to read by window (1 MiB for "
        "64 x 64): convert it with gdal_translate -co TILED=YES"
    )
    with pytest.raises(UserError, match=re.escape(line)), tiff.opened(path, 64):
        pass


def test_a_file_that_is_not_there(tmp_path):
    path = tmp_path / "nothing.tif"
    assert not tiff.is_tiff(path)
    with pytest.raises(DataError, match="No such file"), tiff.opened(path, 64):
        pass


def test_class_maps_as_other_programs_read_them(tmp_path):
    source, path = tmp_path / "field.tif", tmp_path / "classes.tif"
    tifffile.imwrite(
        source, pixels(*SHAPE, 3), photometric="rgb", extratags=GEOREFERENCE
    )
    with tiff.opened(source, 64) as picture:
        tags = picture.georeference
    classes = np.random.default_rng(0).integers(0, 3, (96, 128), np.uint8)
    tiles = [
        zlib.compress(classes[row : row + 32, column : column + 32].tobytes())
        for row in range(0, 96, 32)
        for column in range(0, 128, 32)
    ]
    palette = [(0, 0, 0), (255, 1, 2), (9, 200, 30)]
    tiff.write_classes(path, iter(tiles), SHAPE, 32, palette, tags)
    expected = classes[: SHAPE[0], : SHAPE[1]]
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        assert file.is_bigtiff and page.is_tiled
        assert page.compression.name == "ADOBE_DEFLATE"
        np.testing.assert_array_equal(page.asarray(), expected)
        for code, dtype, count, value, _ in GEOREFERENCE:
            tag = page.tags[code]
            assert (tag.dtype, tag.count, tag.value) == (dtype, count, value)
        assert page.geotiff_tags["ProjectedCSTypeGeoKey"] == 32633
    np.testing.assert_array_equal(
        cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), np.array(palette)[expected]
    )
