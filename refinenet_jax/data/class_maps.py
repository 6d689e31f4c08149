"""The classes of one data set as those of another, read from tables/maps/*.json."""

import dataclasses
import json
from collections.abc import Collection
from importlib import resources

import numpy as np
import numpy.typing as npt

from refinenet_jax.errors import UserError
from refinenet_jax.labels import IGNORE_LABEL


@dataclasses.dataclass(frozen=True)
class ClassMap:
    """What the classes of a data set are called in another one.

    Attributes:
      table: uint8 [256], class id there -> class id here. 255 and whatever is no class
        become 255, which is ignored.
      listed: bool [C], which of the C classes there the map names, rather than leaving
        them to its `other`.
    """

    table: npt.NDArray[np.uint8]
    listed: npt.NDArray[np.bool_]

    def translate_counts(
        self, counts: npt.NDArray[np.int64], num_classes: int
    ) -> npt.NDArray[np.int64]:
        """Pixels of the classes there, int64 [N,C] -> of those here [N,num_classes]."""
        translated = np.zeros((len(counts), num_classes), np.int64)
        for from_id, to_id in enumerate(self.table[: counts.shape[1]]):
            if to_id != IGNORE_LABEL:
                translated[:, to_id] += counts[:, from_id]
        return translated


def read_class_map(
    name: str, from_names: tuple[str, ...], to_names: tuple[str, ...]
) -> ClassMap:
    """Reads tables/maps/NAME.json for these two lists of classes.

    The file maps names: {"source", "from", "to", "classes": {name: name}, "other"}. All
    classes that are not among its `classes` become `other`; null: they are ignored.

    Args:
      name: the map; `coco_to_voc` is one.
      from_names: the classes of the labels, in the order of their ids.
      to_names: the classes wanted, in the order of their ids.

    Raises:
      UserError: no map has that name; the map names a class that from_names or to_names
        lack.
    """
    folder = resources.files("refinenet_jax.data").joinpath("tables", "maps")
    path = folder.joinpath(f"{name}.json")
    if not path.is_file():
        known = sorted(entry.name.removesuffix(".json") for entry in folder.iterdir())
        raise UserError(f"class map {name!r}; known: {', '.join(known)}")
    fields = json.loads(path.read_text(encoding="utf-8"))
    renamed, other = fields["classes"], fields["other"]
    _refuse_unknown(renamed, from_names, f"class map {name} from {fields['from']}")
    wanted = [*renamed.values()] if other is None else [*renamed.values(), other]
    _refuse_unknown(wanted, to_names, f"class map {name} to {fields['to']}")
    table = np.full(256, IGNORE_LABEL, np.uint8)
    for class_id, from_name in enumerate(from_names):
        to_name = renamed.get(from_name, other)
        if to_name is not None:
            table[class_id] = to_names.index(to_name)
    listed = np.array([from_name in renamed for from_name in from_names])
    return ClassMap(table, listed)


def _refuse_unknown(mapped: Collection[str], names: tuple[str, ...], what: str) -> None:
    unknown = sorted(set(mapped) - set(names))
    if unknown:
        raise UserError(
            f"{what}: the data set has no class {', '.join(unknown)}; choose another "
            "data set or another map"
        )
