"""A picture as transforms of its geometry want it, before a pixel is computed."""

import dataclasses
import math

import cv2
import numpy as np

from refinenet_jax.data.picture_kind import PictureKind
from refinenet_jax.data.transforms.example import Example, Pixels
from refinenet_jax.data.transforms.sampling import (
    Span,
    draw_image,
    draw_label,
    put,
)
from refinenet_jax.data.transforms.turning import (
    Matrix,
    Turn,
    source_of_seen,
    turned,
)
from refinenet_jax.labels import IGNORE_LABEL

# A value for each channel.
Colour = tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Window:
    """Where a window of height x width lies; outside of the picture it is `fill`."""

    top: int
    left: int
    height: int
    width: int
    fill: Colour


@dataclasses.dataclass(frozen=True)
class View:
    """An example in another size, turned, mirrored and cut, in this order.

    Its pixels are computed by `render`, once, and only those in the window.

    Attributes:
      example: as it is; its image may still be encoded.
      height: of the picture in its other size.
      width: as `height`.
      turn: how it is turned about its centre, its size kept; None for not at all.
      mirrored: left and right.
      window: what is cut out; None for all.
    """

    example: Example
    height: int
    width: int
    turn: Turn | None = None
    mirrored: bool = False
    window: Window | None = None

    @classmethod
    def of(cls, example: Example) -> "View":
        """The example unchanged."""
        return cls(example, *example["label"].shape)

    def resized(self, height: float, width: float) -> "View":
        """In another size, rounded to whole pixels and at least 1."""
        size = max(1, round(height)), max(1, round(width))
        if size == self.size:
            return self
        start = self._upright()
        return dataclasses.replace(start, height=size[0], width=size[1])

    def turned(self, degrees: float, fill: Colour) -> "View":
        """Turned counter-clockwise about its centre; outside it is `fill`."""
        if degrees == 0.0:
            return self
        return dataclasses.replace(self._upright(), turn=Turn(degrees, fill))

    def flipped(self) -> "View":
        """Left and right mirrored."""
        start = self.uncut()
        return dataclasses.replace(start, mirrored=not start.mirrored)

    def cut(self, window: Window) -> "View":
        """A window of it."""
        return dataclasses.replace(self.uncut(), window=window)

    def uncut(self) -> "View":
        """Itself, or, where it has a window, that as an example of its own."""
        return View.of(self.render()) if self.window else self

    def _upright(self) -> "View":
        """Itself where it is only resized."""
        if self.turn or self.mirrored or self.window:
            return View.of(self.render())
        return self

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what a window is cut from."""
        if self.window:
            return self.window.height, self.window.width
        return self.height, self.width

    @property
    def kind(self) -> PictureKind:
        """Of its image."""
        image = self.example["image"]
        return PictureKind.of(image) if isinstance(image, np.ndarray) else image.kind

    def visible_label(self) -> Pixels:
        """The label as it is, uint8 [H,W], 255 also where a turn moves it out of sight.

        Of a view that is not cut.
        """
        label = self.example["label"]
        if not self.turn:
            return label
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * self.size[::-1]
        places = self._source_of_seen() @ np.c_[corners, np.ones(4)].T
        seen = np.zeros_like(label)
        cv2.fillConvexPoly(seen, np.floor(places[:2].T).astype(np.int32), 1)
        return np.where(seen, label, np.uint8(IGNORE_LABEL))

    def where(self, row: int, column: int) -> tuple[int, int]:
        """Row and column at which a pixel of the example is seen, or the nearest ones.

        Of a view that is not cut.
        """
        centre = np.array([column + 0.5, row + 0.5, 1.0])
        x, y, _ = np.linalg.inv(self._source_of_seen()) @ centre
        seen_row = min(max(math.floor(y), 0), self.height - 1)
        seen_column = min(max(math.floor(x), 0), self.width - 1)
        if self.mirrored:
            seen_column = self.width - 1 - seen_column
        return seen_row, seen_column

    def _source_of_seen(self) -> Matrix:
        height, width = self.example["label"].shape
        rows = Span(height, self.height, 0, self.height)
        columns = Span(width, self.width, 0, self.width)
        return source_of_seen(rows, columns, self.turn or Turn(0.0, ()))

    def render(self) -> Example:
        """Computes the pixels: image as its kind and label uint8, C-contiguous."""
        image = np.empty((*self.size, self.kind.channels), self.kind.dtype)
        label = np.empty(self.size, np.uint8)
        self.draw(image, label)
        return {**self.example, "image": image, "label": label}

    def draw(self, image: Pixels, label: Pixels) -> None:
        """Computes the pixels and writes them to [h,w,C] and uint8 [h,w] of its size.

        Raises:
          UserError: the image cannot be decoded, or has not the size of its label.
        """
        window = self.window or Window(0, 0, self.height, self.width, (0,))
        rows = _seen(window.top, window.height, self.height)
        columns = _seen(window.left, window.width, self.width)
        inner = (
            slice(rows.start - window.top, rows.stop - window.top),
            slice(columns.start - window.left, columns.stop - window.left),
        )
        _fill_around(image, inner, np.array(window.fill, image.dtype))
        _fill_around(label, inner, np.array(IGNORE_LABEL, np.uint8))
        self._draw_seen(rows, columns, image[inner], label[inner])

    def _draw_seen(
        self, rows: range, columns: range, image: Pixels, label: Pixels
    ) -> None:
        """These pixels of the picture in its other size, turned and mirrored or not."""
        source_image, source_label = self.example["image"], self.example["label"]
        height, width = source_label.shape
        first = self.width - columns.stop if self.mirrored else columns.start
        spans = (
            Span(height, self.height, rows.start, len(rows)),
            Span(width, self.width, first, len(columns)),
        )
        if self.turn:
            seen = turned(source_image, source_label, *spans, self.turn)
            put(seen[0], self.mirrored, image)
            put(seen[1], self.mirrored, label)
            return
        draw_image(source_image, *spans, self.mirrored, image)
        draw_label(source_label, *spans, self.mirrored, label)


def _seen(start: int, length: int, picture: int) -> range:
    """The part of a window that lies in the picture, in the picture's pixels."""
    return range(max(start, 0), min(start + length, picture))


def _fill_around(pixels: Pixels, inner: tuple[slice, slice], fill: Pixels) -> None:
    """Fills what is not the inner part of [H,W,...] with a colour or a number."""
    rows, columns = inner
    height, width = pixels.shape[:2]
    if rows.start == columns.start == 0 and (rows.stop, columns.stop) == (
        height,
        width,
    ):
        return
    row = np.empty(pixels.shape[1:], pixels.dtype)
    row[...] = fill
    pixels[: rows.start] = row
    pixels[rows.stop :] = row
    pixels[rows, : columns.start] = row[: columns.start]
    pixels[rows, columns.stop :] = row[columns.stop :]
