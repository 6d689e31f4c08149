"""Class names, palettes and label values of the data sets, read from tables/*.json."""

import dataclasses
import functools
import json
from collections.abc import Collection, Mapping
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet_jax.errors import UserError
from refinenet_jax.labels import IGNORE_LABEL

RawLabel = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


@dataclasses.dataclass(frozen=True)
class Archive:
    """A file that the authors of a data set distribute.

    Attributes:
      file: its name.
      url: where it is to be had.
      holds: the top files and folders in it.
      login: whether its host asks for one, so that only a person can fetch it.
      md5: as published; "" where none is.
      optional: whether the data set is whole without it.
    """

    file: str
    url: str
    holds: tuple[str, ...]
    login: bool
    md5: str
    optional: bool


@dataclasses.dataclass(frozen=True)
class ClassTable:
    """What the values of a data set's label files mean.

    Attributes:
      class_names: one name for each class id, in order.
      palette: one RGB colour (0..255) for each class id, in order.
      raw_to_class: label value as distributed -> class id, or 255 for "ignore". A
        value that is not listed is an error in the data.
      split_sizes: published numbers of images, by split; empty where there are none.
      archives: what the authors distribute.
      source: where names, colours and values were taken from.
    """

    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    raw_to_class: Mapping[int, int]
    split_sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    archives: tuple[Archive, ...] = ()
    source: str = ""

    def unknown(self, raw: RawLabel) -> list[int]:
        """The values in raw, integer [H,W], that the data set does not define."""
        return [v for v in np.unique(raw).tolist() if v not in self.raw_to_class]

    def to_class_ids(self, raw: RawLabel, where: str) -> npt.NDArray[np.uint8]:
        """Translates the label values of a file into class ids.

        Args:
          raw: uint8 or uint16 [H,W], the values of the file.
          where: the file, for the error message.

        Returns:
          uint8 [H,W] class ids, 255 = ignore.

        Raises:
          UserError: the file holds a value that the data set does not define.
        """
        unknown = self.unknown(raw)
        if unknown:
            raise UserError(
                f"label {ranges(unknown)} in {where} is none of "
                f"{ranges(sorted(self.raw_to_class))}; mend the file or leave it out"
            )
        lookup = np.zeros(int(raw.max(initial=0)) + 1, np.uint8)
        for value, class_id in self.raw_to_class.items():
            if value < len(lookup):
                lookup[value] = class_id
        return lookup[raw]


def of_ids(num_classes: int, offset: int, ignore: Collection[int]) -> dict[int, int]:
    """`ClassTable.raw_to_class` of labels whose values are ids, shifted or not.

    Args:
      num_classes: how many there are.
      offset: what is added to a value to have the class id.
      ignore: values that do not count; those below the first class do not either.
    """
    classes = {index - offset: index for index in range(num_classes) if index >= offset}
    void = dict.fromkeys([*range(-offset), *ignore], IGNORE_LABEL)
    return classes | void


def ranges(values: list[int]) -> str:
    """Ascending values as a person would say them: [0, 1, 2, 255] -> "0..2 or 255"."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return " or ".join(
        str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs
    )


def count_classes(label: npt.NDArray[np.uint8], num_classes: int) -> npt.NDArray[Any]:
    """Pixels of each class and, last, of 255: uint8 [H,W] -> int64 [num_classes + 1]."""
    counts = np.bincount(label.ravel(), minlength=IGNORE_LABEL + 1)
    return np.append(counts[:num_classes], counts[IGNORE_LABEL])


def read_table(name: str) -> dict[str, Any]:
    """The content of tables/NAME.json."""
    path = resources.files("refinenet_jax.data").joinpath("tables", f"{name}.json")
    return json.loads(path.read_text(encoding="utf-8"))


@functools.cache
def read_class_table(name: str) -> ClassTable:
    """Reads tables/NAME.json; see `ClassTable`."""
    fields = read_table(name)
    return ClassTable(
        class_names=tuple(fields["class_names"]),
        palette=tuple((red, green, blue) for red, green, blue in fields["palette"]),
        raw_to_class={int(raw): id for raw, id in fields["raw_to_class"].items()},
        split_sizes=fields.get("splits", {}),
        archives=tuple(_archive(entry) for entry in fields.get("archives", [])),
        source=fields["source"],
    )


def _archive(entry: Mapping[str, Any]) -> Archive:
    return Archive(
        file=entry["file"],
        url=entry["url"],
        holds=tuple(entry["holds"]),
        login=entry.get("login", False),
        md5=entry.get("md5", ""),
        optional=entry.get("optional", False),
    )
