"""Files of pictures as they are stored: any channels, 8 and 16 bits, and floats.

What is wrong with a file raises ValueError with the reason alone; `images` names the file.
"""

import contextlib
import dataclasses
import io
import logging
import math
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tifffile

from refinenet_jax.data.picture_kind import DTYPES, MOST_CHANNELS, RGB, PictureKind
from refinenet_jax.errors import first_line

# It writes of damage to stderr, beside what it raises.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

Pixels = npt.NDArray[Any]

JPEG_START = b"\xff\xd8"
PNG_START = b"\x89PNG\r\n\x1a\n"
_JPEG_END = b"\xff\xd9"
_JPEG_START_OF_SCAN = 0xDA
_NPY_START = b"\x93NUMPY"
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_PNG_GREY, _PNG_GREY_ALPHA, _PNG_RGB_ALPHA = 0, 4, 6
_WEBP_ALPHA = 0x10  # in the flags of a VP8X chunk
# Frame headers of a JPEG; the three between are tables.
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Read as viewers show them, where they have 8 bits: these are colours for sure.
_TIFF_COLOURS = ("RGB", "PALETTE", "YCBCR", "SEPARATED", "CIELAB")
_TIFF_ALPHA = (1, 2)  # of the tag ExtraSamples
_TIFF_ORIENTATION = 274


class UnknownForm(ValueError):
    """The file is whole, but no picture of a kind that is known here."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says of its picture before it is decoded.

    Attributes:
      kind: without alpha.
      has_alpha: whether it has transparency, which is dropped.
    """

    kind: PictureKind
    has_alpha: bool = False


def read_header(data: bytes) -> Header:
    """What kind of picture a file holds.

    Raises:
      UnknownForm: more than `MOST_CHANNELS` channels, or other numbers than `DTYPES`.
      ValueError: it cannot be read.
    """
    if data.startswith(PNG_START) and len(data) > 25:
        bits, colours = data[24], data[25]
        alpha = colours in (_PNG_GREY_ALPHA, _PNG_RGB_ALPHA)
        alpha = alpha or 0 <= data.find(b"tRNS") < data.find(b"IDAT")
        channels = 1 if colours in (_PNG_GREY, _PNG_GREY_ALPHA) else 3
        return Header(PictureKind(channels, "uint16" if bits == 16 else "uint8"), alpha)
    if data.startswith(JPEG_START):
        return Header(PictureKind(1) if _jpeg_channels(data) == 1 else RGB)
    if data.startswith(_NPY_START):
        return Header(_npy_kind(data))
    if data.startswith(_TIFF_STARTS):
        with _tiff(data) as file:
            return _tiff_header(file)
    return Header(RGB, _webp_has_alpha(data))


def _webp_has_alpha(data: bytes) -> bool:
    """RFC 9649, 2.7 and 3.4; False for what is no WebP."""
    if data[12:16] == b"VP8X" and len(data) > 20:
        return bool(data[20] & _WEBP_ALPHA)
    # Behind the signature, width and height in 14 bits each, and then whether.
    return data[12:16] == b"VP8L" and bool(
        int.from_bytes(data[21:25], "little") >> 28 & 1
    )


def is_plain(data: bytes) -> bool:
    """Whether OpenCV reads it as viewers show it, should it be a picture at all."""
    return not data.startswith(_NPY_START) and not is_heic(data)


def is_heic(data: bytes) -> bool:
    """Whether it is a photograph as phones write it, HEIC or HEIF."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS


def decode(data: bytes) -> Pixels:
    """The pixels as they are stored, [H,W,C] of the `Header`'s kind, C-contiguous.

    RGB of 8 bits is what viewers show. A TIFF is turned as its orientation says, a HEIC
    too; others are not.

    Raises:
      UnknownForm: see `read_header`.
      ValueError: it cannot be read.
    """
    if data.startswith(_NPY_START):
        pixels = _stored_form(_read_npy(data), "")
    elif is_heic(data):
        pixels = _read_heic(data)
    elif data.startswith(_TIFF_STARTS):
        pixels = _read_tiff(data)
    else:
        kind = read_header(data).kind
        pixels = opencv(
            data, cv2.IMREAD_GRAYSCALE if kind.channels == 1 else cv2.IMREAD_COLOR
        )
    return np.ascontiguousarray(pixels)


def encode_npy(pixels: Pixels) -> bytes:
    """The file that holds any picture as it is, [H,W,C]."""
    content = io.BytesIO()
    np.save(content, pixels, allow_pickle=False)
    return content.getvalue()


def opencv(data: bytes, colours: int, depth: int = cv2.IMREAD_ANYDEPTH) -> Pixels:
    """What OpenCV decodes, RGB or one channel: [H,W,C], not turned (but a TIFF).

    Args:
      data: the file.
      colours: OpenCV's flag, such as cv2.IMREAD_COLOR.
      depth: cv2.IMREAD_ANYDEPTH for as many bits as the file has, 0 for 8.

    Raises:
      ValueError, cv2.error: it is empty, truncated, damaged or no image.
    """
    _refuse_truncated(data)
    encoded = np.frombuffer(data, np.uint8)
    found = cv2.imdecode(encoded, colours | depth | cv2.IMREAD_IGNORE_ORIENTATION)
    if found is None:
        raise ValueError("it is damaged or no image")
    if found.ndim == 2:
        return np.asarray(found)[..., np.newaxis]
    return np.asarray(cv2.cvtColor(found, cv2.COLOR_BGR2RGB, dst=found))


def _refuse_truncated(data: bytes) -> None:
    """Raises ValueError for data that breaks off.

    OpenCV 4 fills the missing part of a JPEG with grey and says nothing.
    """
    if not data:
        raise ValueError("it is empty")
    if data.startswith(JPEG_START) and not _jpeg_has_end(data):
        raise ValueError("it is truncated")
    if data.startswith(PNG_START) and data.rfind(b"IEND") < 0:
        raise ValueError("it is truncated")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Marker and place of each segment of a JPEG's header, the start of the scan last."""
    position = len(JPEG_START)
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        yield marker, position
        if marker == _JPEG_START_OF_SCAN:
            return
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")


def _jpeg_has_end(data: bytes) -> bool:
    """Whether an end marker follows the compressed pixels.

    The search starts behind the header: a thumbnail in the EXIF block has an end
    marker of its own. Within compressed pixels 0xFF is followed by 0x00 or a restart
    marker, so that the end marker cannot occur there (ITU-T T.81, B.1.1).
    """
    for marker, position in _jpeg_segments(data):
        if marker == _JPEG_START_OF_SCAN:
            return data.rfind(_JPEG_END, position) >= 0
    return False


def _jpeg_channels(data: bytes) -> int:
    """Of its frame header (ITU-T T.81, B.2.2); 3 where it has none."""
    for marker, position in _jpeg_segments(data):
        if marker in _JPEG_FRAMES and position + 9 < len(data):
            return data[position + 9]
    return 3


def _npy_kind(data: bytes) -> PictureKind:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise UnknownForm(f"it is of NumPy's form {version[0]}.{version[1]}")
    shape, _, dtype = read(file)
    if dtype.itemsize * math.prod(shape) > len(data) - file.tell():
        raise ValueError("it is truncated")
    # Without its values, which may be many.
    return PictureKind.of(_stored_form(np.broadcast_to(np.empty((), dtype), shape), ""))


def _read_npy(data: bytes) -> Pixels:
    _npy_kind(data)
    return np.load(io.BytesIO(data), allow_pickle=False)


def _read_heic(data: bytes) -> Pixels:
    try:
        import pillow_heif
    except ImportError as error:
        raise UnknownForm(
            "it is a HEIC, which needs pillow-heif: pip install 'refinenet_jax[heic]'"
        ) from error
    try:
        picture = pillow_heif.open_heif(io.BytesIO(data)).to_pillow()
    except (OSError, SyntaxError, EOFError, RuntimeError) as error:
        raise ValueError(first_line(error)) from error
    return np.asarray(picture.convert("RGB"))


@contextlib.contextmanager
def _tiff(data: bytes) -> Iterator[tifffile.TiffFile]:
    """Opens a TIFF; what tifffile raises in the block becomes ValueError."""
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            if not file.series:
                raise ValueError("it has no picture")
            yield file
    except UnknownForm:
        raise
    except Exception as error:  # tifffile raises many kinds at what is damaged
        raise ValueError(first_line(error)) from error


def _tiff_header(file: tifffile.TiffFile) -> Header:
    page, series = file.pages.first, file.series[0]
    extra = _alpha_samples(page)
    if _is_shown(page):
        return Header(RGB, bool(extra))
    if page.bitspersample < 8:
        return Header(PictureKind(1))
    empty = np.broadcast_to(np.empty((), series.dtype), series.shape)
    found = _stored_form(empty, series.axes)
    kept = [c for c in range(found.shape[2]) if c not in extra]
    return Header(PictureKind(len(kept), found.dtype.name), bool(extra))


def _is_shown(page: Any) -> bool:
    """Whether it is read as viewers show it: colours of 8 bits."""
    colours = page.photometric is not None and page.photometric.name in _TIFF_COLOURS
    more = page.photometric is not None and page.photometric.name == "RGB"
    samples = page.samplesperpixel - len(_alpha_samples(page))
    return colours and page.bitspersample == 8 and not (more and samples != 3)


def _alpha_samples(page: Any) -> list[int]:
    """Which samples are transparency."""
    first = page.samplesperpixel - len(page.extrasamples)
    return [first + i for i, x in enumerate(page.extrasamples) if x in _TIFF_ALPHA]


def _read_tiff(data: bytes) -> Pixels:
    with _tiff(data) as file:
        page, series = file.pages.first, file.series[0]
        header = _tiff_header(file)
        if _is_shown(page) or page.bitspersample < 8:
            grey = header.kind.channels == 1
            return opencv(data, cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR, 0)
        try:
            stored = _stored_form(series.asarray(), series.axes)
        except (KeyError, ValueError) as error:
            if "imagecodecs" not in str(error):
                raise
            return _read_compressed_tiff(data, header, str(error.args[0]))
        alpha = _alpha_samples(page)
        pixels = np.delete(stored, alpha, axis=2) if alpha else stored
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and (
            pixels.dtype.kind == "u"
        ):
            pixels = np.iinfo(pixels.dtype).max - pixels
        tag = page.tags.get(_TIFF_ORIENTATION)
        return turn_upright(pixels, 1 if tag is None else int(tag.value))


def _read_compressed_tiff(data: bytes, header: Header, missing: str) -> Pixels:
    """A TIFF that tifffile alone cannot unpack; OpenCV can, where it has few channels."""
    kind = header.kind
    if kind.channels in (1, 3):
        grey = kind.channels == 1
        found = opencv(data, cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
        if PictureKind.of(found) == kind:
            return found
    raise UnknownForm(f"{missing}: pip install 'refinenet_jax[large]'")


def _stored_form(values: Pixels, axes: str) -> Pixels:
    """[H,W,C] of one of `DTYPES`; axes: what tifffile calls each, "" for an array.

    Raises:
      UnknownForm: it is none.
    """
    shape = values.shape
    if axes:
        kept = [i for i, n in enumerate(shape) if n > 1 or axes[i] in "YX"]
        values, axes = (
            values.reshape([shape[i] for i in kept]),
            "".join(axes[i] for i in kept),
        )
    if values.ndim == 2:
        values = values[..., np.newaxis]
    elif values.ndim == 3 and _channels_are_first(values.shape, axes):
        values = np.moveaxis(values, 0, 2)
    if values.ndim != 3 or not 1 <= values.shape[2] <= MOST_CHANNELS:
        raise UnknownForm(
            f"it is an array {list(shape)}: a picture is [H,W] or [H,W,C] with at most "
            f"{MOST_CHANNELS} channels"
        )
    if 0 in values.shape:
        raise UnknownForm("it has no pixel")
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and told
            values = values.astype(np.float32, copy=False)
    elif values.dtype.kind == "u":
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype.name not in DTYPES:
        raise UnknownForm(
            f"its numbers are {values.dtype.name}: save it as {' or '.join(DTYPES)}"
        )
    return values


def _channels_are_first(shape: tuple[int, ...], axes: str) -> bool:
    """Whether a TIFF keeps its channels as pages or planes: [C,H,W]."""
    if not axes or axes.endswith("S"):
        return False
    if axes.startswith("Q"):  # an array [H,W,C] that tifffile wrote row by row
        return shape[2] > MOST_CHANNELS
    return True


def turn_upright(image: Pixels, orientation: int) -> Pixels:
    """Turns [H,W,...] as its EXIF orientation 1..8 asks (Exif 2.32, 4.6.4)."""
    turned = {
        2: lambda: image[:, ::-1],
        3: lambda: image[::-1, ::-1],
        4: lambda: image[::-1],
        5: lambda: np.swapaxes(image, 0, 1),
        6: lambda: np.rot90(image, -1),
        7: lambda: np.swapaxes(image[::-1, ::-1], 0, 1),
        8: lambda: np.rot90(image),
    }.get(orientation, lambda: image)()
    return np.ascontiguousarray(turned)
