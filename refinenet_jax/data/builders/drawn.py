"""What labels that are drawn as shapes have in common: names of classes, and areas."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet_jax.data import images
from refinenet_jax.data.images import DataError
from refinenet_jax.labels import IGNORE_LABEL

_BACKGROUNDS = ("background", "_background_", "__background__")
_IGNORED = ("ignore", "__ignore__", "void")
_BEYOND = 2.0  # pixels that a corner may lie outside the picture
_MOST_PIXELS = 2**28  # of a picture


@dataclasses.dataclass(frozen=True)
class Names:
    """What the names of shapes mean.

    Attributes:
      ids: class id by name.
      file: the list that the names come from.
    """

    ids: Mapping[str, int]
    file: str

    @property
    def unlabelled(self) -> int:
        """The class of pixels that no shape covers: the background, else 255."""
        found = (self.ids[name] for name in _BACKGROUNDS if name in self.ids)
        return next(found, IGNORE_LABEL)

    def id_of(self, name: object, where: str) -> int:
        """The class id of a name, 255 where that says so.

        Raises:
          DataError: the list does not have it.
        """
        if name in self.ids:
            return self.ids[str(name)]
        if name in _BACKGROUNDS:
            return self.unlabelled
        if name in _IGNORED:
            return IGNORE_LABEL
        raise DataError(
            "unknown_category",
            f"{where} has the class {name!r}, which {self.file} does not list",
        )


def read_json(path: Any, kind: str) -> dict[str, Any]:
    """A file that holds a JSON object.

    kind: what it should be, such as "LabelMe".

    Raises:
      DataError: it is missing, or something else.
    """
    try:
        found = images.read_json(path)
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise not_of_kind(path, kind, "it is no JSON") from error
    if not isinstance(found, dict):
        raise not_of_kind(path, kind, "it holds no object")
    return found


def not_of_kind(path: Any, kind: str, reason: str) -> DataError:
    """The error for a JSON of something else."""
    return DataError("other_json", f"{path} is no JSON of {kind}: {reason}")


def empty_label(
    height: object, width: object, unlabelled: int, where: str
) -> npt.NDArray[np.uint8]:
    """A label without shapes: uint8 [height,width].

    Raises:
      DataError: these are no sizes of a picture.
    """
    if (
        not isinstance(height, int)
        or not isinstance(width, int)
        or min(height, width) < 1
        or height * width > _MOST_PIXELS
    ):
        raise DataError(
            "other_json", f"{where} has a picture of {width!r} x {height!r}"
        )
    return np.full((height, width), unlabelled, np.uint8)


def corners(
    given: object, shape: Sequence[int], where: str
) -> list[tuple[float, float]]:
    """Points (x, y) of a shape, all of them in the picture or at its border.

    Raises:
      DataError: they are no points, or lie outside.
    """
    try:
        points = np.asarray(given, np.float64).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise DataError("other_json", f"{where}: its points are no pairs") from error
    beyond = np.maximum(-points, points - np.array([shape[1], shape[0]]))
    # Also what is not finite.
    if not len(points) or not np.all(beyond <= _BEYOND):
        raise DataError(
            "outside",
            f"{where} has a corner outside the picture of {shape[1]} x {shape[0]}",
        )
    return [(float(x), float(y)) for x, y in points]
