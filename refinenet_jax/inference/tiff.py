"""TIFF files: read window by window, and class maps of any size written.

tifffile decodes single tiles and strips by itself, so that neither zarr nor GDAL is
needed.
"""

import contextlib
import itertools
import logging
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import tifffile
from etils import epath
from tifffile import COMPRESSION, PHOTOMETRIC

from refinenet_jax import files
from refinenet_jax.data.images import DataError, refuse_special
from refinenet_jax.errors import UserError, first_line
from refinenet_jax.inference.protocol import Shape
from refinenet_jax.pictures import Palette, colours

# What it has to say stands in its exceptions.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Decoded, of the tiles or strips that one window lies in: those of a window of 1024 in
# 8-bit RGB as wide as 87,000 pixels in strips of one row.
_MOST_BYTES = 2**28
# OGC 19-008r4, GeoTIFF 1.1: scale, tie points, transformation, keys with their numbers
# and texts; and OGC's rational polynomials. GDAL's own tags, metadata and no-data, are
# of the source's channels and not of classes.
_GEOREFERENCE = (33550, 33922, 34264, 34735, 34736, 34737, 50844)
_SHOWN = (
    PHOTOMETRIC.MINISWHITE,
    PHOTOMETRIC.MINISBLACK,
    PHOTOMETRIC.RGB,
    PHOTOMETRIC.PALETTE,
)
_JPEG = (COMPRESSION.OJPEG, COMPRESSION.JPEG)  # whose YCbCr is decoded to RGB
_UPRIGHT = 1

Tag = tuple[int, int, int, Any, bool]


def is_tiff(path: epath.Path) -> bool:
    """By the first bytes of the file; False where it cannot be read."""
    try:
        refuse_special(path)
        with path.open("rb") as file:
            return file.read(4) in _STARTS
    except (OSError, DataError):
        return False


def shape_of(path: epath.Path) -> Shape | None:
    """Height and width of a TIFF's first picture; None where it is damaged."""
    try:
        with path.open("rb") as file, tifffile.TiffFile(file) as tiff:
            page = tiff.pages.first
            return page.imagelength, page.imagewidth
    except Exception:  # noqa: BLE001 (it raises whatever damaged values lead to)
        return None


class TiffError(UserError):
    """A TIFF that is whole and cannot be predicted in windows."""


class Tiff:
    """The first picture of a TIFF file, read window by window; one thread's.

    Attributes:
        shape: height and width.
        channels: of the windows.
        dtype: likewise.
        georeference: its GeoTIFF tags, for `write_classes`.
    """

    channels = 3
    dtype = np.dtype(np.uint8)

    def __init__(self, path: epath.Path, file: BinaryIO, window: int):
        """See `opened`."""
        self._path, self._file = path, file
        try:
            self._page = page = tifffile.TiffFile(file).pages.first
        except Exception as error:
            raise self._damaged(first_line(error)) from error
        self.shape: Shape = page.imagelength, page.imagewidth
        self.georeference: tuple[Tag, ...] = tuple(
            (tag.code, int(tag.dtype), tag.count, tag.value, True)
            for tag in map(page.tags.get, _GEOREFERENCE)
            if tag is not None
        )
        if page.is_tiled:
            self._segment = page.tilelength, page.tilewidth
        else:
            self._segment = min(page.rowsperstrip, page.imagelength), page.imagewidth
        self._kept: dict[int, np.ndarray] = {}
        self._refuse_unknown()
        self._refuse_large_segments(window)
        ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))
        if max(ends, default=0) > os.fstat(self._file.fileno()).st_size:
            raise self._damaged("it is cut short")

    def window(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """A part that lies within the picture: uint8 [height,width,3] RGB.

        Raises:
            DataError: the file is damaged there, or was cut short meanwhile.
            TiffError: what decodes it is not installed.
        """
        page = self._page
        down, across = (
            math.ceil(length / part)
            for length, part in zip(self.shape, self._segment, strict=True)
        )
        rows, columns = (
            range(start // part, math.ceil((start + length) / part))
            for start, length, part in zip(
                (top, left), (height, width), self._segment, strict=True
            )
        )
        separate = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
        planes = range(page.samplesperpixel if separate else 1)
        places = {
            (plane * down + row) * across + column: (plane, row, column)
            for plane, row, column in itertools.product(planes, rows, columns)
        }
        # The next window has most of them too, or in strips all.
        self._kept = {n: part for n, part in self._kept.items() if n in places}
        values = np.empty((height, width, page.samplesperpixel), page.dtype)
        for number, (plane, row, column) in places.items():
            if number not in self._kept:
                self._kept[number] = self._decoded(number)
            corner = row * self._segment[0] - top, column * self._segment[1] - left
            target = values[..., plane : plane + 1] if separate else values
            _put(self._kept[number], corner, target)
        return self._rgb(values)

    def _decoded(self, number: int) -> np.ndarray:
        """A tile or strip, [height,width,channels]."""
        page = self._page
        offset, count = page.dataoffsets[number], page.databytecounts[number]
        data = os.pread(self._file.fileno(), count, offset) if count else None
        if data is not None and len(data) < count:
            raise self._damaged("it is cut short")
        try:
            values, _, shape = page.decode(
                data, number, jpegtables=page.jpegtables, jpegheader=page.jpegheader
            )
        except Exception as error:  # each codec raises its own
            if "imagecodecs" in str(error):
                raise TiffError(
                    f"{self._path} is compressed ({COMPRESSION(page.compression).name}) in a way "
                    "that needs imagecodecs: pip install 'refinenet_jax[large]'"
                ) from error
            raise self._damaged(first_line(error)) from error
        if values is None:  # a tile that was never written
            return np.full(shape[1:], page.nodata, page.dtype)
        return np.asarray(values[0])

    def _rgb(self, values: np.ndarray) -> np.ndarray:
        """Values of the file as viewers show them: uint8 [H,W,3]."""
        page = self._page
        if page.photometric == PHOTOMETRIC.PALETTE:
            table = np.asarray(page.colormap).T
            values = table[values[..., 0]]
        if values.dtype == np.uint16:
            values = (values >> 8).astype(np.uint8)
        if page.photometric == PHOTOMETRIC.MINISWHITE:
            values = 255 - values
        if values.shape[2] < 3:  # grey, or grey with transparency
            values = np.repeat(values[..., :1], 3, axis=2)
        return np.ascontiguousarray(values[..., :3])

    def _refuse_unknown(self) -> None:
        """Raises TiffError where the values are not what a network sees."""
        page = self._page
        known = page.photometric in _SHOWN or (
            page.photometric == PHOTOMETRIC.YCBCR and page.compression in _JPEG
        )
        bits = (page.dtype or np.dtype("O"), page.bitspersample)
        known &= bits in ((np.uint8, 8), (np.uint16, 16)) and page.imagedepth == 1
        grey = page.photometric not in (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR)
        if not known or (grey and page.samplesperpixel > 2):
            kind = PHOTOMETRIC(page.photometric or 0).name
            raise TiffError(
                f"{self._path} has {page.samplesperpixel} channels of {page.dtype}, "
                f"{kind}: bring it to RGB or grey of 8 or 16 bits, such as with "
                "gdal_translate -ot Byte -b 1 -b 2 -b 3"
            )
        orientation = page.tags.valueof(274, _UPRIGHT)
        if orientation != _UPRIGHT:
            raise TiffError(
                f"{self._path} is to be turned when it is shown (orientation "
                f"{orientation}): turn it before, such as with vips autorot"
            )

    def _refuse_large_segments(self, window: int) -> None:
        """Raises TiffError where a window lies in tiles or strips beyond memory."""
        page = self._page
        pixels = 1
        for length, part in zip(self.shape, self._segment, strict=True):
            # A window may begin with the last pixel of a part.
            touched = min(math.ceil(length / part), (window - 2) // part + 2)
            pixels *= touched * part
        needed = pixels * page.samplesperpixel * page.bitspersample // 8
        if needed > _MOST_BYTES:
            kind = "tiles" if page.is_tiled else "strips"
            height, width = self._segment
            raise TiffError(
                f"{self._path} has {kind} of {height} x {width}, too large to read by "
                f"window ({needed / 2**20:.0f} MiB for {window} x {window}): convert it "
                f"with gdal_translate -co TILED=YES -co BIGTIFF=YES {self._path.name} "
                "tiled.tif, or vips tiffsave --tile --bigtiff"
            )

    def _damaged(self, why: str) -> DataError:
        return DataError("damaged", f"image {self._path} cannot be decoded: {why}")


@contextlib.contextmanager
def opened(path: epath.Path, window: int) -> Iterator[Tiff]:
    """Opens a TIFF file on disk.

    Args:
        path: the file.
        window: edge of the windows that will be asked for.

    Raises:
        DataError: the file cannot be read, is damaged or cut short.
        TiffError: what its values mean is not known here, or its strips are too large.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(
            "missing", f"{path} cannot be read: {files.reason(error)}"
        ) from error
    with file:
        yield Tiff(path, file, window)


def _put(part: np.ndarray, corner: Shape, target: np.ndarray) -> None:
    """Copies what lies within the target, [h,w,C] at a corner that may lie outside."""
    inside = []
    for axis, start in enumerate(corner):
        end = min(start + part.shape[axis], target.shape[axis])
        inside.append((slice(max(start, 0), end), slice(max(-start, 0), end - start)))
    (rows, from_rows), (columns, from_columns) = inside
    target[rows, columns] = part[from_rows, from_columns]


def write_classes(
    path: epath.Path,
    tiles: Iterator[bytes],
    shape: Shape,
    tile: int,
    palette: Palette,
    georeference: Sequence[Tag] = (),
) -> None:
    """A tiled BigTIFF of class ids that viewers show in colour; whole or not at all.

    Args:
        path: of the file.
        tiles: row after row of them, each uint8 [tile,tile] and deflated (zlib).
        shape: height and width of the picture.
        tile: edge in pixels; a multiple of 16.
        palette: a colour for each class id.
        georeference: tags to go along, see `Tiff`.

    Raises:
        UserError: the folder cannot be written to, or is full.
    """
    table = colours(np.arange(256, dtype=np.uint8), palette)
    with (
        files.replacing(path) as partial,
        tifffile.TiffWriter(partial, bigtiff=True) as tiff,
    ):
        tiff.write(
            tiles,
            shape=shape,
            dtype=np.uint8,
            tile=(tile, tile),
            compression="zlib",
            photometric="palette",
            colormap=table.T.astype(np.uint16) * 257,
            metadata=None,
            software="refinenet_jax",
            extratags=georeference,
        )
