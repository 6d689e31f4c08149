"""Pictures of label maps, and the files of pictures."""

import dataclasses
import functools
import io
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from refinenet_jax.errors import UserError
from refinenet_jax.labels import IGNORE_LABEL, VOID_COLOUR

Palette = Sequence[Sequence[int]]

_COLUMNS = ("image", "truth", "prediction")
_PAPER, _INK, _EDGE = (255, 255, 255), (0, 0, 0), (128, 128, 128)


@dataclasses.dataclass(frozen=True)
class Shown:
    """How pictures that are not RGB of 8 bits are shown.

    Attributes:
        channels: one, in grey, or three, counted from 0; (): the first three, or the
            first where there are fewer.
        percentiles: of their values, shown black and white.
    """

    channels: tuple[int, ...] = ()
    percentiles: tuple[float, float] = (2.0, 98.0)

    def __post_init__(self) -> None:
        if len(self.channels) == 2:
            raise UserError(
                f"config.data.shown_channels={self.channels}: name one channel or three"
            )

    def rgb(self, image: np.ndarray) -> np.ndarray:
        """[H,W,C] → uint8 [H,W,3]; RGB of 8 bits as it is, NaN black.

        Raises:
            UserError: the picture has no such channel.
        """
        count = image.shape[2]
        if count == 3 and image.dtype == np.uint8:
            return image
        chosen = self.channels or ((0, 1, 2) if count >= 3 else (0,))
        if max(chosen) >= count:
            raise UserError(
                f"config.data.shown_channels={self.channels}: the pictures have {count} "
                f"channels, 0 to {count - 1}"
            )
        shown = [
            _stretched(image[..., channel], self.percentiles) for channel in chosen
        ]
        return np.stack(shown * 3 if len(shown) == 1 else shown, axis=-1)


STRETCHED = Shown()


def _stretched(values: np.ndarray, percentiles: tuple[float, float]) -> np.ndarray:
    """[H,W] → uint8 [H,W], black and white at the percentiles."""
    values = values.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.uint8)
    black, white = np.percentile(values[finite], percentiles)
    scaled = (values - black) / max(white - black, np.finfo(np.float32).tiny)
    return np.rint(255 * np.clip(np.where(finite, scaled, 0), 0, 1)).astype(np.uint8)


def colours(label: np.ndarray, palette: Palette) -> np.ndarray:
    """uint8 [H,W] class ids, 255 = ignore → uint8 [H,W,3] RGB."""
    return _table(palette)[label]


def overlay(
    image: np.ndarray, label: np.ndarray, palette: Palette, *, outlined: bool = False
) -> np.ndarray:
    """Half image, half class colours: uint8 [H,W,3] and [H,W] → uint8 [H,W,3].

    outlined: a line, black beside white, runs where one class meets another.
    """
    mixed = np.rint(0.5 * image + 0.5 * colours(label, palette)).astype(np.uint8)
    if outlined:
        down, across = label[1:] != label[:-1], label[:, 1:] != label[:, :-1]
        mixed[1:][down] = mixed[:, 1:][across] = _PAPER
        mixed[:-1][down] = mixed[:, :-1][across] = _INK
    return mixed


def with_legend(
    picture: np.ndarray,
    label: np.ndarray,
    class_names: Sequence[str],
    palette: Palette,
    *,
    heading: str = "",
    lines: int = 0,
) -> np.ndarray:
    """A picture above a legend of the classes that occur in its label map.

    A name that is wider than the picture is cut.

    Args:
        picture: uint8 [H,W,3].
        label: uint8 [H,W] of any size, 255 = ignore.
        class_names: by class id.
        palette: their colours.
        heading: a line of text above the legend.
        lines: that the legend has; what does not fit is counted. 0: as many as it takes.

    Returns:
        uint8 [H',W,3]; with lines H' - H, which is even, depends on W alone.
    """
    width = picture.shape[1]
    size = text_size(width)
    font = _font(size)
    gap, line = size // 2, size + size // 2
    top = line if heading else 0
    values, counts = np.unique(label, return_counts=True)
    names = {
        value: "void" if value == IGNORE_LABEL else class_names[value]
        for value in values[np.argsort(-counts, kind="stable")].tolist()
    }
    entries, rest = _arranged(names, width, size, lines)
    rows = lines or 1 + max(row for row, *_ in entries)
    height = 2 * ((top + rows * line + gap + 1) // 2)
    legend = Image.new("RGB", (width, height), _PAPER)
    draw, table = ImageDraw.Draw(legend), _table(palette)
    if heading:
        middle = gap + size // 2
        text, _ = _cut(heading, size, width - 2 * gap)
        draw.text((gap, middle), text, _INK, font, anchor="lm")
    for row, x, name, value in entries:
        y = top + gap + row * line
        colour = tuple(table[value].tolist())
        draw.rectangle((x, y, x + size - 1, y + size - 1), fill=colour, outline=_EDGE)
        place = (x + size + gap, y + size // 2)
        draw.text(place, name, _INK, font, anchor="lm")
    if rest:
        draw.text((width - gap, height - gap), f"+{rest}", _INK, font, anchor="rs")
    return np.vstack([picture, np.asarray(legend)])


def text_size(width: int) -> int:
    """Height in pixels of the letters in a picture of so many pixels."""
    return min(max(12, width // 40), 40)


def _arranged(
    names: dict[int, str], width: int, size: int, lines: int
) -> tuple[list[tuple[int, int, str, int]], int]:
    """Row, x, name and class id of each entry, and how many had no place.

    names: by class id, those that matter most first; shown by their ids.
    """
    gap = size // 2
    room = width - size - 3 * gap
    fitting = {value: _cut(name, size, room) for value, name in names.items()}
    widths = {value: size + 3 * gap + wide for value, (_, wide) in fitting.items()}
    kept = len(names)
    while True:
        entries = []
        row = x = 0
        # Where some are left out, how many stands at the end.
        free = width if kept == len(names) else width - 3 * size
        for value in sorted(list(names)[:kept]):
            if x and x + widths[value] > (free if row + 1 == lines else width):
                row, x = row + 1, 0
            entries.append((row, x + gap, fitting[value][0], value))
            x += widths[value]
        if not lines or row < lines or kept == 1:
            return entries, len(names) - kept
        kept -= 1


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


Row = tuple[np.ndarray, np.ndarray, np.ndarray]


def strip(
    rows: Sequence[Row],
    class_names: Sequence[str],
    palette: Palette,
    captions: Sequence[str] = (),
) -> np.ndarray:
    """Image, truth and prediction side by side, one example below the other.

    Above are headings, below is a legend of the classes that occur.

    Args:
        rows: image uint8 [H,W,3], label uint8 [H,W], prediction uint8 [H,W] each, of any
            sizes.
        class_names: by class id.
        palette: their colours.
        captions: a line of text above each row, if any.

    Returns:
        uint8 [H',W',3], where W' is three times the greatest width.
    """
    width = max((image.shape[1] for image, _, _ in rows), default=0)
    if not width:
        return np.zeros((0, 0, 3), np.uint8)
    size = text_size(3 * width)
    pictures = [np.hstack([_line(text, width, size) for text in _COLUMNS])]
    for row, caption in itertools.zip_longest(rows, captions):
        if caption:
            pictures.append(_line(caption, 3 * width, size))
        image, label, prediction = row
        cells = (image, colours(label, palette), colours(prediction, palette))
        pad = ((0, 0), (0, width - image.shape[1]), (0, 0))
        pictures.append(np.hstack([np.pad(cell, pad) for cell in cells]))
    shown = np.concatenate([part.ravel() for _, *maps in rows for part in maps])
    return with_legend(np.vstack(pictures), shown[None], class_names, palette)


def _line(text: str, width: int, size: int) -> np.ndarray:
    """Text on paper: uint8 [2 * size,width,3]."""
    font = _font(size)
    line = Image.new("RGB", (width, 2 * size), _PAPER)
    place = (size // 2, size)
    text, _ = _cut(text, size, width - size)
    ImageDraw.Draw(line).text(place, text, _INK, font, anchor="lm")
    return np.asarray(line)


def _content(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


_font = functools.cache(ImageFont.load_default)


@functools.lru_cache(2**12)  # a video has the same names in each of its frames
def _cut(name: str, size: int, width: int) -> tuple[str, int]:
    """The name, or as much of it as fits into so many pixels, and how wide that is."""
    length = _font(size).getlength
    cut = (name[:end] + "…" for end in range(len(name) - 1, 0, -1))
    fitting = (text for text in (name, *cut) if length(text) <= width)
    text = next(fitting, "")
    return text, round(length(text))


def _table(palette: Palette) -> np.ndarray:
    """uint8 [256,3]: a colour for each value that a label can have."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    table[IGNORE_LABEL] = VOID_COLOUR
    return table
