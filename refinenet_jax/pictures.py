"""Pictures of label maps, and the files of pictures."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from refinenet_jax.labels import IGNORE_LABEL, VOID_COLOUR

Palette = Sequence[Sequence[int]]

_PAPER, _INK, _EDGE = (255, 255, 255), (0, 0, 0), (128, 128, 128)


def colours(label: np.ndarray, palette: Palette) -> np.ndarray:
    """uint8 [H,W] class ids, 255 = ignore → uint8 [H,W,3] RGB."""
    return _table(palette)[label]


def overlay(image: np.ndarray, label: np.ndarray, palette: Palette) -> np.ndarray:
    """Half image, half class colours: uint8 [H,W,3] and [H,W] → uint8 [H,W,3]."""
    mixed = 0.5 * image + 0.5 * colours(label, palette)
    return np.rint(mixed).astype(np.uint8)


def with_legend(
    picture: np.ndarray,
    label: np.ndarray,
    class_names: Sequence[str],
    palette: Palette,
) -> np.ndarray:
    """A picture above a legend of the classes that occur in its label map.

    picture: uint8 [H,W,3]; label: uint8 [H,W], 255 = ignore → uint8 [H',W,3], where H'
    grows with the number of classes. A name that is wider than the picture is cut.
    """
    width = picture.shape[1]
    size = min(max(12, width // 40), 40)
    font = ImageFont.load_default(size)
    gap, line = size // 2, size + size // 2
    entries = []
    x = y = 0
    for value in np.unique(label).tolist():
        name = "void" if value == IGNORE_LABEL else class_names[value]
        name = _cut(name, font, width - size - 3 * gap)
        wanted = size + 3 * gap + round(font.getlength(name))
        if x and x + wanted > width:
            x, y = 0, y + line
        entries.append((x + gap, y + gap, value, name))
        x += wanted
    legend = Image.new("RGB", (width, y + line + gap), _PAPER)
    draw, table = ImageDraw.Draw(legend), _table(palette)
    for x, y, value, name in entries:
        colour = tuple(table[value].tolist())
        draw.rectangle((x, y, x + size - 1, y + size - 1), fill=colour, outline=_EDGE)
        draw.text((x + size + gap, y + size // 2), name, _INK, font, anchor="lm")
    return np.vstack([picture, np.asarray(legend)])


def palette_png(label: np.ndarray, palette: Palette) -> bytes:
    """A PNG whose pixel values are the class ids and that viewers show in colour.

    label: uint8 [H,W].
    """
    picture = Image.fromarray(label)
    picture.putpalette(_table(palette).tobytes())
    return _content(picture, "PNG", optimize=True)


def encode(pixels: np.ndarray, file_format: str) -> bytes:
    """uint8 [H,W,3] RGB, or [H,W] → a file's bytes; file_format: "PNG" or "JPEG"."""
    return _content(Image.fromarray(pixels), file_format)


def encode_photo(pixels: np.ndarray) -> bytes:
    """A PNG of uint8 [H,W,3] RGB; a little larger than `encode`'s, six times as fast."""
    return _content(Image.fromarray(pixels), "PNG", compress_level=1)


def strip(
    rows: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], palette: Palette
) -> np.ndarray:
    """Image, truth and prediction side by side, one example below the other.

    rows: (image uint8 [H,W,3], label uint8 [H,W], prediction uint8 [H,W]) each, of any
    sizes → uint8 [sum of heights, three times the greatest width, 3].
    """
    width = max((image.shape[1] for image, _, _ in rows), default=0)
    pictures = [np.zeros((0, 3 * width, 3), np.uint8)]
    for image, label, prediction in rows:
        cells = (image, colours(label, palette), colours(prediction, palette))
        pad = ((0, 0), (0, width - image.shape[1]), (0, 0))
        pictures.append(np.hstack([np.pad(cell, pad) for cell in cells]))
    return np.vstack(pictures)


def _content(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def _cut(name: str, font: Any, width: float) -> str:
    """The name, or as much of it as fits into so many pixels."""
    if font.getlength(name) <= width:
        return name
    fitting = (name[:end] + "…" for end in range(len(name) - 1, 0, -1))
    return next((text for text in fitting if font.getlength(text) <= width), "")


def _table(palette: Palette) -> np.ndarray:
    """uint8 [256,3]: a colour for each value that a label can have."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    table[IGNORE_LABEL] = VOID_COLOUR
    return table
