"""The label values of a data set, and what they mean in one reading or another."""

import dataclasses
from collections.abc import Collection, Mapping

from refinenet_jax.data.class_table import ClassTable, of_ids
from refinenet_jax.labels import IGNORE_LABEL


@dataclasses.dataclass(frozen=True)
class Values:
    """The label values of a data set.

    Attributes:
      pixels: value -> pixels, in the splits that have unknown values.
      all: the values of all splits.
      inner: value -> pixels as `survey.Look.inner` counts them.
      table: what the values should mean.
      file: what holds the list of classes; "" for the data sets of others.
      authors: where those come from.
      ignore: values that a person said do not count.
    """

    pixels: Mapping[int, int]
    all: frozenset[int]
    inner: Mapping[int, int]
    table: ClassTable
    file: str
    authors: str
    ignore: tuple[int, ...] = (IGNORE_LABEL,)

    @property
    def num_classes(self) -> int:
        """How many classes there are, the ignored one not counted."""
        return len(self.table.class_names)

    @property
    def unknown(self) -> list[int]:
        """Values that mean nothing, ascending; 255 aside."""
        known = {*self.table.raw_to_class, IGNORE_LABEL}
        return sorted(set(self.pixels) - known)

    @property
    def starts_at_zero(self) -> bool:
        """Whether the values of the classes are 0, 1, 2, ..."""
        classes = {v for v, c in self.table.raw_to_class.items() if c != IGNORE_LABEL}
        return classes == set(range(self.num_classes))

    def share(self, value: int) -> float:
        """Of all pixels, those of a value."""
        return self.pixels.get(value, 0) / max(sum(self.pixels.values()), 1)

    def thin(self, value: int) -> float:
        """How much of a value lies along its outlines, 0..1."""
        return 1 - self.inner.get(value, 0) / max(self.pixels.get(value, 0), 1)

    def trial(self, *, offset: int, ignore: Collection[int]) -> "Values":
        """The same pixels, read in another way."""
        table = of_ids(self.num_classes, offset, ignore)
        return dataclasses.replace(
            self,
            table=dataclasses.replace(self.table, raw_to_class=table),
            ignore=tuple(ignore),
        )

    @property
    def fits(self) -> bool:
        """Whether every value means something and most classes occur."""
        known = self.table.raw_to_class
        classes = {known.get(v, IGNORE_LABEL) for v in self.all} - {IGNORE_LABEL}
        return self.all <= set(known) and 2 * len(classes) > self.num_classes

    def remedy(self, own: str) -> str:
        """`own` where the person wrote the labels, else the way to the authors'."""
        if self.file:
            return own
        return f"take the label files as their authors distribute them: {self.authors}"
