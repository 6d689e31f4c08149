"""Decoding of images and label maps, with errors that name the file."""

import contextlib
import dataclasses
import io
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

from refinenet_jax import files
from refinenet_jax.data import picture_files
from refinenet_jax.data.class_table import RawLabel
from refinenet_jax.data.picture_files import (
    JPEG_START,
    PNG_START,
    UnknownForm,
    turn_upright,
)
from refinenet_jax.data.picture_kind import RGB, PictureKind
from refinenet_jax.errors import UserError, first_line

# The endings by which pictures are found; a file that is named may have any.
SUFFIXES = (
    ".bmp",
    ".heic",
    ".heif",
    ".jpeg",
    ".jpg",
    ".npy",
    ".png",
    ".tif",
    ".tiff",
    ".webp",
)

_PNG_GREY = 0
_EXIF_ORIENTATION = 0x0112
# How OpenCV is asked for the means of so many pixels along each edge of a JPEG.
_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# Pillow names an 8-bit palette P, 8-bit grey L, one bit 1, and 16-bit grey I;16 or I.
_ID_MODES = ("P", "L", "1", "I;16", "I;16B", "I")
_MODES_OF_8_BITS = ("RGB", "RGBA", "RGBX", "L", "LA", "P", "PA", "1", "CMYK", "YCbCr")
_MODES_OF_16_BITS = ("I;16", "I;16L", "I;16B", "I;16N")


class DataError(UserError):
    """What is wrong with a file of a data set.

    Attributes:
      kind: one word for it: missing, damaged, jpeg_label, colours_for_ids,
        unknown_colours, size_mismatch; of pictures: unknown_form, channels or
        not_finite; of labels that are drawn as shapes: other_json, unknown_category,
        outside or no_area.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type["DataError"], tuple[str, str]]:
        # An exception's own pickling, on the way from a data worker, knows one
        # argument only.
        return DataError, (self.kind, str(self))


def read_image(
    path: str | os.PathLike[str], kind: PictureKind | None = RGB
) -> npt.NDArray[Any]:
    """Reads a picture of a kind, the way viewers turn it; see `decode_picture`.

    Raises:
      DataError: the file cannot be read or decoded, or is of another kind.
    """
    data = read_bytes(path)
    picture = decode_picture(data, os.fspath(path), kind)
    return turn_upright(picture, orientation(data))


def from_pillow(picture: PIL.Image.Image, kind: PictureKind = RGB) -> npt.NDArray[Any]:
    """A picture of Pillow's as `read_image` reads its file: [H,W,C] of a kind.

    Raises:
      UserError: its mode does not tell what is black and what is white, it is of another
        kind, or its file cannot be decoded.
    """
    try:
        if kind != RGB:
            pixels = _of_pillow(picture, kind)
        elif picture.mode in _MODES_OF_16_BITS:
            grey = (np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8)
            pixels = np.repeat(grey[..., None], 3, axis=-1)
        elif picture.mode in _MODES_OF_8_BITS:
            pixels = np.asarray(picture.convert("RGB"))
        else:
            raise UserError(
                f"a Pillow image of mode {picture.mode}: bring it to 8 bits and "
                'convert("RGB") it, or give the path of its file'
            )
        # Asked after decoding: of a TIFF, Pillow then has turned the pixels itself.
        turned = int(picture.getexif().get(_EXIF_ORIENTATION, 1))
    except (OSError, SyntaxError) as error:
        name = getattr(picture, "filename", "") or "of Pillow's"
        raise DataError(
            "damaged", f"image {name} cannot be decoded: {_reason(error)}"
        ) from error
    return turn_upright(pixels, turned)


def _of_pillow(picture: PIL.Image.Image, kind: PictureKind) -> npt.NDArray[Any]:
    """Grey of 8 or 16 bits or of floats, for a network of one or three channels."""
    dtype = {"L": "uint8", "F": "float32", **dict.fromkeys(_MODES_OF_16_BITS, "uint16")}
    found = PictureKind(1, dtype.get(picture.mode, ""))
    if found.together(kind) != kind:
        raise UserError(
            f"a Pillow image of mode {picture.mode} where pictures have {kind}: give an "
            "array, or the path of its file"
        )
    grey = np.asarray(picture).astype(found.dtype)[..., np.newaxis]
    return np.repeat(grey, kind.channels, axis=2)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file.

    Raises:
      DataError: the file is missing or cannot be read.
    """
    refuse_special(path)
    try:
        return files.path(path).read_bytes()
    except OSError as error:
        raise DataError(
            "missing", f"{path} cannot be read: {files.reason(error)}"
        ) from error


def refuse_special(path: str | os.PathLike[str]) -> None:
    """Raises DataError for a folder, a pipe, which waits, and a device, without end."""
    file = files.path(path)
    if not files.in_bucket(file) and not file.is_file() and file.exists():
        raise DataError("missing", f"{path} cannot be read: it is no regular file")


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """The lines of a text in UTF-8.

    Raises:
      UserError: the file is missing, cannot be read or is in another encoding.
    """
    try:
        return read_bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is no text in UTF-8 (byte {error.start}): save it in that encoding"
        ) from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a JSON file holds.

    Raises:
      DataError: the file is missing or cannot be read.
      ValueError: it is no JSON.
    """
    try:
        return json.loads(read_bytes(path))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def decode_image(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Decodes a JPEG, PNG or other image that OpenCV knows, whatever its name says.

    An orientation in the EXIF block is not applied, see `orientation`; that of a TIFF
    is. Grey images are
    repeated to three channels, CMYK becomes RGB, a transparency channel is dropped, 16
    bits become 8.

    Args:
      data: the encoded file.
      name: the file, for the error message.

    Returns:
      uint8 [H,W,3] RGB, C-contiguous.

    Raises:
      DataError: data is empty, truncated or no image.
    """
    return _decode(data, name, cv2.IMREAD_COLOR)


def _decode(data: bytes, name: str, flags: int) -> npt.NDArray[np.uint8]:
    with _told(name):
        return picture_files.opencv(data, flags, 0)


def decode_picture(
    data: bytes, name: str, kind: PictureKind | None = RGB
) -> npt.NDArray[Any]:
    """Decodes a picture, not turned (but a TIFF and a HEIC, which are).

    Args:
      data: the encoded file: what `decode_image` knows, TIFF of any channels, .npy,
        HEIC.
      name: the file, for the error message.
      kind: what it must be; None: as it is stored. Grey becomes three channels. RGB of
        8 bits is what viewers show of any photograph, as `decode_image` gives it.

    Returns:
      [H,W,C], C-contiguous, without transparency.

    Raises:
      DataError: it cannot be decoded, or is of another kind.
    """
    if kind == RGB and picture_files.is_plain(data):
        return _decode_as_viewers_do(data, name)
    if kind is None and read_header(data, name).kind == RGB:
        return decode_picture(data, name)
    with _told(name):
        pixels = picture_files.decode(data)
    found = PictureKind.of(pixels)
    if kind is None or found == kind:
        return pixels
    if found.together(kind) != kind:
        raise DataError("channels", f"image {name} has {found}, not {kind}")
    return np.repeat(pixels, kind.channels, axis=2)


def _decode_as_viewers_do(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    try:
        return decode_image(data, name)
    except DataError as damaged:
        # To OpenCV a TIFF of other channels, or of floats, is damaged.
        try:
            found = read_header(data, name).kind
        except DataError:
            raise damaged from None
        if found.channels > RGB.channels or found.dtype == "float32":
            message = f"image {name} has {found}, not {RGB}"
            raise DataError("channels", message) from damaged
        raise


def read_header(data: bytes, name: str) -> picture_files.Header:
    """What kind of picture a file holds.

    Raises:
      DataError: it cannot be read, or is of no kind that is known here.
    """
    with _told(name):
        return picture_files.read_header(data)


def common_kind(found: Mapping[PictureKind, str]) -> PictureKind:
    """The kind that all pictures can be shown as.

    Args:
      found: each kind, and a file that has it; at least one.

    Raises:
      DataError: there is none.
    """
    first, *others = found
    common = first
    for kind in others:
        wider = common.together(kind)
        if wider is None:
            raise DataError(
                "channels",
                f"image {found[kind]} has {kind}, but image {found[first]} has {first}: "
                "the pictures of a data set must be of one kind",
            )
        common = wider
    return common


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """What is wrong with the file of an image, with its name."""
    try:
        yield
    except UnknownForm as error:
        raise DataError(
            "unknown_form", f"image {name} cannot be used: {error}"
        ) from error
    except (ValueError, cv2.error) as error:
        raise DataError(
            "damaged", f"image {name} cannot be decoded: {_reason(error)}"
        ) from error


@dataclasses.dataclass(frozen=True)
class EncodedImage:
    """An image that is decoded when it is known how much of its detail is wanted.

    Attributes:
      data: the encoded file; see `decode_picture`.
      name: of the file.
      kind: what it is decoded as.
    """

    data: bytes
    name: str
    kind: PictureKind = RGB

    def decode(self, unit: int = 1) -> tuple[npt.NDArray[Any], int]:
        """Its pixels, averaged over n x n, and n: the largest that costs nothing.

        unit: the most that n may be; a power of 2. Only a JPEG has more than 1, at most
        8; the last of its pixels are of what is left at its edges.

        Raises:
          DataError: see `decode_picture`.
        """
        unit = min(unit, self.most)
        if unit == 1:
            return decode_picture(self.data, self.name, self.kind), 1
        return _decode(self.data, self.name, _REDUCED[unit]), unit

    @property
    def most(self) -> int:
        """The most pixels along each edge that its decoder averages."""
        shown = self.kind == RGB and self.data.startswith(JPEG_START)
        return max(_REDUCED) if shown else 1


def orientation(data: bytes) -> int:
    """How to turn what `decode_image` gives to see it as viewers do: an EXIF value.

    1, not at all, where the file has no such entry, and for a TIFF.
    """
    try:
        with PIL.Image.open(io.BytesIO(data)) as picture:
            if picture.format == "TIFF":
                return 1  # OpenCV turns it whatever it is told
            return int(picture.getexif().get(_EXIF_ORIENTATION, 1))
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError):
        return 1  # nothing that Pillow reads, so nothing it could be turned by


def decode_label(data: bytes, name: str) -> RawLabel:
    """Decodes a label map: the palette *indices* of a palette PNG, or the grey values.

    Grey that was saved as RGB counts as grey.

    Args:
      data: the encoded file.
      name: the file, for the error message.

    Returns:
      uint8 [H,W], or uint16 where the file has 16 bits: the values as they stand in
      the file, C-contiguous.

    Raises:
      DataError: data is empty, truncated, no image, a JPEG, or has colours in place of
        ids.
    """
    grey = _decode_grey_png(data)
    if grey is not None:
        return grey
    mode, values = _open_label(data, name)
    if mode == "RGB" and np.all(values == values[..., :1]):
        return np.ascontiguousarray(values[..., 0])
    if mode not in _ID_MODES:
        raise DataError(
            "colours_for_ids",
            f"label {name} has pixels of mode {mode} in place of class ids: save it "
            "as a palette or grey PNG",
        )
    if values.dtype.itemsize > 1:
        return values.astype(np.uint16)
    values = values.astype(np.uint8, copy=False)
    bits = _grey_png_bits(data)
    if bits in (2, 4):
        # Pillow stretches shallow grey values to 0..255; they are ids, not brightness.
        values = values // np.uint8(255 // (2**bits - 1))
    return values


def decode_colours(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Decodes a label map whose colours are the classes: uint8 [H,W,3] RGB.

    Args:
      data: the encoded file: RGB, RGB with transparency (ignored), palette or grey.
      name: the file, for the error message.

    Raises:
      DataError: data is empty, truncated, no image, or a JPEG.
    """
    _open_label(data, name)
    with PIL.Image.open(io.BytesIO(data)) as picture:
        return np.array(picture.convert("RGB"))


def _open_label(data: bytes, name: str) -> tuple[str, npt.NDArray[Any]]:
    """Pillow's mode and the pixels of a label file."""
    try:
        with PIL.Image.open(io.BytesIO(data)) as picture:
            file_format, mode, values = picture.format, picture.mode, np.array(picture)
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as e:
        # Pillow reports damaged PNG chunks as SyntaxError.
        raise DataError(
            "damaged", f"label {name} cannot be decoded: {_reason(e)}"
        ) from e
    if file_format == "JPEG":
        raise DataError(
            "jpeg_label",
            f"label {name} is a JPEG, whose compression changes class ids: save it as "
            "a PNG from the original",
        )
    return mode, values


def _decode_grey_png(data: bytes) -> npt.NDArray[np.uint8] | None:
    """A PNG of 8-bit grey values, as labels are stored: uint8 [H,W]; else None.

    OpenCV takes four fifths of Pillow's time. What it gives up on is Pillow's, which
    says what is wrong.
    """
    if not data.startswith(PNG_START) or data[24:26] != b"\x08\x00":
        return None
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    grey = values is not None and values.ndim == 2 and values.dtype == np.uint8
    return np.asarray(values, np.uint8) if grey else None


def _grey_png_bits(data: bytes) -> int:
    """Bits in a pixel of a grey PNG (its header's 25th and 26th byte), else 8."""
    if data.startswith(PNG_START) and data[25] == _PNG_GREY:
        return data[24]
    return 8


def _reason(error: Exception) -> str:
    if isinstance(error, PIL.UnidentifiedImageError):
        return "it is damaged or no image"  # its own text names a Python object
    return first_line(error)
