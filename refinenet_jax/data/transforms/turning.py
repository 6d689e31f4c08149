"""The pixels of a picture in another size that is turned about its centre."""

import dataclasses
import math

import cv2
import numpy as np
import numpy.typing as npt

from refinenet_jax.data.transforms.channels import by_channels
from refinenet_jax.data.transforms.example import Decodable, Pixels
from refinenet_jax.data.transforms.sampling import (
    Span,
    averaged,
    open_image,
    points,
    reduction,
)
from refinenet_jax.labels import IGNORE_LABEL

Matrix = npt.NDArray[np.float64]

_NEAREST = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
_LINEAR = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


@dataclasses.dataclass(frozen=True)
class Turn:
    """By how much, counter-clockwise, and what is seen of what lay outside."""

    degrees: float
    fill: tuple[float, ...]


def turned(
    image: Pixels | Decodable, label: Pixels, rows: Span, columns: Span, turn: Turn
) -> tuple[Pixels, Pixels]:
    """What the spans show of the turned picture: [h,w,C], uint8 [h,w].

    Points are interpolated and averaged as `sampling` says. Where the picture is not,
    the image is `turn.fill` and the label 255.

    Raises:
      UserError: see `sampling.draw_image`.
    """
    unit = reduction(rows, columns)
    pixels, done = open_image(image, label.shape, unit)
    each = points(unit, rows, columns)
    size = columns.count, rows.count
    to_label = source_of_seen(rows, columns, turn)
    # At the edge, `fill` must not shine into pixels whose label counts.
    to_image = _centres(_scaling(1 / unit) @ to_label @ _scaling(1 / each))
    sampled = by_channels(
        lambda some: cv2.warpAffine(
            some,
            to_image,
            (each * size[0], each * size[1]),
            flags=_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ),
        averaged(pixels, unit // done),
    )
    seen_image = averaged(sampled, each)
    matrix = _centres(to_label)
    seen_label = cv2.warpAffine(
        label, matrix, size, flags=_NEAREST, borderValue=IGNORE_LABEL
    )
    inside = cv2.warpAffine(np.ones_like(label), matrix, size, flags=_NEAREST)
    seen_image[inside == 0] = turn.fill
    return seen_image, np.asarray(seen_label, np.uint8)


def source_of_seen(rows: Span, columns: Span, turn: Turn) -> Matrix:
    """float64 [3,3]: (column, row, 1) of what is seen -> of the picture as it is.

    A pixel's corner counts, not its centre: the picture's are 0 and its length.
    """
    cosine, sine = (f(math.radians(turn.degrees)) for f in (math.cos, math.sin))
    turned = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    centre = columns.length / 2, rows.length / 2
    return (
        np.diag([columns.step, rows.step, 1.0])
        @ _shift(*centre)
        @ turned
        @ _shift(columns.first - centre[0], rows.first - centre[1])
    )


def _shift(column: float, row: float) -> Matrix:
    return np.array([[1.0, 0.0, column], [0.0, 1.0, row], [0.0, 0.0, 1.0]])


def _scaling(factor: float) -> Matrix:
    return np.diag([factor, factor, 1.0])


def _centres(corners: Matrix) -> Matrix:
    """OpenCV's form, float64 [2,3]: the centre of the first pixel is (0, 0)."""
    return (_shift(-0.5, -0.5) @ corners @ _shift(0.5, 0.5))[:2]
