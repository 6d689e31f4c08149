"""Labels as LabelMe draws them: a JSON with shapes for each image."""

import base64
import io
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageDraw

from refinenet_jax.data.builders.drawn import (
    Names,
    corners,
    empty_label,
    not_of_kind,
    read_json,
)
from refinenet_jax.data.images import DataError

_KIND = "LabelMe"


def read_label(path: pathlib.Path, names: Names) -> npt.NDArray[np.uint8]:
    """Draws polygons, rectangles, circles and masks, later ones over earlier.

    As LabelMe itself draws them, with Pillow: outlines belong to the shape.

    Returns:
      uint8 [H,W] class ids, 255 = ignore; what no shape covers is the background where
      there is a class of that name, else ignored.

    Raises:
      DataError: the file is something else, a shape has no area, lies outside or has
        a class that is not listed.
    """
    found = read_json(path, _KIND)
    shapes = found.get("shapes")
    if not isinstance(shapes, list) or "imageHeight" not in found:
        raise not_of_kind(path, _KIND, "it has no shapes, or no imageHeight")
    label = empty_label(
        found["imageHeight"], found.get("imageWidth"), names.unlabelled, str(path)
    )
    for number, shape in enumerate(shapes, 1):
        if not isinstance(shape, dict):
            raise not_of_kind(path, _KIND, f"shape {number} is no object")
        where = f"{path}, shape {number}"
        class_id = names.id_of(shape.get("label"), where)
        points = corners(shape.get("points"), label.shape, where)
        label[_area(shape, points, label.shape, where)] = class_id
    return label


def _area(
    shape: dict[str, Any],
    points: list[tuple[float, float]],
    size: Sequence[int],
    where: str,
) -> npt.NDArray[np.bool_]:
    """Of a shape: bool [H,W]."""
    kind = shape.get("shape_type") or "polygon"
    canvas = PIL.Image.new("1", (size[1], size[0]))
    draw = PIL.ImageDraw.Draw(canvas)
    if kind == "polygon" and len(points) >= 3:
        draw.polygon(points, fill=1, outline=1)
    elif kind == "rectangle" and len(points) == 2:
        draw.rectangle(_box(points), fill=1, outline=1)
    elif kind == "circle" and len(points) == 2:
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    elif kind == "mask" and len(points) == 2:
        left, top, *_ = _box(points)
        canvas.paste(_mask(shape, where), (int(left), int(top)))
    else:
        raise DataError(
            "no_area",
            f"{where} is a {kind} of {len(points)} points, which has no area",
        )
    return np.asarray(canvas)


def _box(points: list[tuple[float, float]]) -> tuple[float, float, float, float]:
    (x, y), (right, bottom) = points
    return min(x, right), min(y, bottom), max(x, right), max(y, bottom)


def _mask(shape: dict[str, Any], where: str) -> PIL.Image.Image:
    try:
        data = base64.b64decode(shape["mask"], validate=True)
        with PIL.Image.open(io.BytesIO(data)) as picture:
            return picture.convert("1", dither=PIL.Image.Dither.NONE)
    except (KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
        raise DataError("other_json", f"{where}: its mask is no picture") from error
