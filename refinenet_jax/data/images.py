"""Decoding and encoding of images and label maps, with errors that name the file."""

import io
import os
import pathlib

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

from refinenet_jax.errors import UserError

_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_JPEG_START_OF_SCAN = 0xDA
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_GREY = 0


def read_image(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Reads an image file: uint8 [H,W,3] RGB; see `decode_image`.

    Raises:
      UserError: the file cannot be read or decoded.
    """
    return decode_image(read_bytes(path), os.fspath(path))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file.

    Raises:
      UserError: the file is missing or cannot be read.
    """
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def decode_image(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Decodes a JPEG, PNG or other image that OpenCV knows.

    An orientation in the EXIF block is not applied: label maps carry none, and the
    two must stay aligned. Grey images are repeated to three channels, a transparency
    channel is dropped, 16 bits become 8.

    Args:
      data: the encoded file.
      name: the file, for the error message.

    Returns:
      uint8 [H,W,3] RGB, C-contiguous.

    Raises:
      UserError: data is empty, truncated or no image.
    """
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        _refuse_truncated(data)
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if bgr is None:
            raise ValueError("it is damaged or no image")
    except (ValueError, cv2.error) as error:
        raise UserError(f"image {name} cannot be decoded: {_reason(error)}") from error
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def decode_label(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Decodes a label map: the palette *indices* of a palette PNG, or the grey values.

    Args:
      data: the encoded file.
      name: the file, for the error message.

    Returns:
      uint8 [H,W], the values as they stand in the file, C-contiguous.

    Raises:
      UserError: data is empty, truncated, no image, or has colours in place of ids.
    """
    try:
        with PIL.Image.open(io.BytesIO(data)) as picture:
            mode = picture.mode
            values = np.array(picture)
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as e:
        # Pillow reports damaged PNG chunks as SyntaxError.
        raise UserError(f"label {name} cannot be decoded: {_reason(e)}") from e
    if mode not in ("P", "L", "1"):
        raise UserError(
            f"label {name} has pixels of mode {mode} in place of class ids: save it "
            "as an 8-bit palette or grey PNG"
        )
    values = values.astype(np.uint8, copy=False)
    bits = _grey_png_bits(data)
    if bits in (2, 4):
        # Pillow stretches shallow grey values to 0..255; they are ids, not brightness.
        values = values // np.uint8(255 // (2**bits - 1))
    return values


def encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encodes uint8 [H,W] (ids or grey) or uint8 [H,W,3] RGB as a PNG without loss."""
    if pixels.ndim == 3:
        pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), np.uint8)
    _, encoded = cv2.imencode(".png", pixels)
    return encoded.tobytes()


def _refuse_truncated(data: bytes) -> None:
    """Raises ValueError for data that breaks off.

    OpenCV 4 fills the missing part of a JPEG with grey and says nothing.
    """
    if not data:
        raise ValueError("it is empty")
    if data.startswith(_JPEG_START) and not _jpeg_has_end(data):
        raise ValueError("it is truncated")
    if data.startswith(_PNG_START) and data.rfind(b"IEND") < 0:
        raise ValueError("it is truncated")


def _jpeg_has_end(data: bytes) -> bool:
    """Whether an end marker follows the compressed pixels.

    The search starts behind the header: a thumbnail in the EXIF block has an end
    marker of its own. Within compressed pixels 0xFF is followed by 0x00 or a restart
    marker, so that the end marker cannot occur there (ITU-T T.81, B.1.1).
    """
    position = len(_JPEG_START)
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == _JPEG_START_OF_SCAN:
            return data.find(_JPEG_END, position) >= 0
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


def _grey_png_bits(data: bytes) -> int:
    """Bits in a pixel of a grey PNG (its header's 25th and 26th byte), else 8."""
    if data.startswith(_PNG_START) and data[25] == _PNG_GREY:
        return data[24]
    return 8


def _reason(error: Exception) -> str:
    """The first line of an error's text; OpenCV's and Pillow's may have more."""
    return (str(error).splitlines() or [type(error).__name__])[0]
