"""Class names, palettes and label values of the data sets, read from tables/*.json."""

import dataclasses
import functools
import json
from importlib import resources

import numpy as np
import numpy.typing as npt

from refinenet_jax.errors import UserError


# One value for "do not count this pixel" everywhere, whatever the data set's own was.
@dataclasses.dataclass(frozen=True)
class ClassTable:
    """What the values of a data set's label files mean.

    Attributes:
      class_names: one name for each class id, in order.
      palette: one RGB colour (0..255) for each class id, in order.
      raw_to_class: label value as distributed -> class id, or 255 for "ignore". A
        value that is not listed is an error in the data.
      source: where names, colours and values were taken from.
    """

    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    raw_to_class: dict[int, int]
    source: str

    def to_class_ids(
        self, raw: npt.NDArray[np.uint8], where: str
    ) -> npt.NDArray[np.uint8]:
        """Translates the label values of a file into class ids.

        Args:
          raw: uint8 [H,W], the values of the file.
          where: the file, for the error message.

        Returns:
          uint8 [H,W] class ids, 255 = ignore.

        Raises:
          UserError: the file holds a value that the data set does not define.
        """
        present = np.unique(raw).tolist()
        unknown = [value for value in present if value not in self.raw_to_class]
        if unknown:
            values = ", ".join(map(str, unknown))
            raise UserError(
                f"label {values} in {where} is none of "
                f"{_ranges(sorted(self.raw_to_class))}; mend the file or leave it out"
            )
        lookup = np.zeros(256, np.uint8)
        for value in present:
            lookup[value] = self.raw_to_class[value]
        return lookup[raw]


def _ranges(values: list[int]) -> str:
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


@functools.cache
def read_class_table(name: str) -> ClassTable:
    """Reads tables/NAME.json; see `ClassTable`."""
    path = resources.files("refinenet_jax.data").joinpath("tables", f"{name}.json")
    fields = json.loads(path.read_text(encoding="utf-8"))
    return ClassTable(
        class_names=tuple(fields["class_names"]),
        palette=tuple((red, green, blue) for red, green, blue in fields["palette"]),
        raw_to_class={int(raw): id for raw, id in fields["raw_to_class"].items()},
        source=fields["source"],
    )
