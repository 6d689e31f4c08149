"""Explains label values that are not what they should be."""

import dataclasses
import math
from collections.abc import Callable, Mapping

from refinenet_jax.data.class_table import ClassTable, ranges, read_class_table
from refinenet_jax.labels import IGNORE_LABEL, VOID_COLOUR

_FEWEST_BLENDED = 5  # distinct values that interpolation or compression makes up
_MOST_FLAT = 0.1  # share of their pixels that lie within an area of one value
_CHANCE = 0.05  # that arbitrary values all are shades of a palette


@dataclasses.dataclass(frozen=True)
class Values:
    """The label values of a data set.

    Attributes:
      pixels: value -> pixels, in the splits that have unknown values.
      all: the values of all splits.
      flat: pixels as `survey.Look.flat` counts them.
      table: what the values should mean.
      file: what holds the list of classes; "" for the data sets of others.
      authors: where those come from.
    """

    pixels: Mapping[int, int]
    all: frozenset[int]
    flat: int
    table: ClassTable
    file: str
    authors: str

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

    def remedy(self, own: str) -> str:
        """`own` where the person wrote the labels, else the way to the authors'."""
        if self.file:
            return own
        return f"take the label files as their authors distribute them: {self.authors}"


def explain(values: Values) -> list[tuple[str, str]]:
    """The causes of unknown values: the code of each, and a message with the remedy.

    The first explanation of these values that fits is the one that is given.
    """
    if values.file and values.all == {0, IGNORE_LABEL}:
        return [_binary_mask(values)]
    found = []
    if values.unknown:
        explanations: tuple[Callable[[Values], tuple[str, str] | None], ...] = (
            _shifted,
            _palette_as_grey,
            _interpolated,
        )
        causes = (explanation(values) for explanation in explanations)
        found.append(next(filter(None, causes), None) or _unexplained(values))
    undeclared = IGNORE_LABEL in set(values.pixels) - set(values.table.raw_to_class)
    if undeclared and "palette_as_grey" not in dict(found):
        found.append(_ignore_not_declared(values))
    return found


def _binary_mask(values: Values) -> tuple[str, str]:
    return "binary_mask", (
        "the labels hold the values 0 and 255 only, and 255 is no class: if they are "
        f"masks of one object, give both a colour in {values.file} (background 0 0 0, "
        "object 255 255 255) and set config.data.folder.encoding='colours'"
    )


def _palette_as_grey(values: Values) -> tuple[str, str] | None:
    """Whether all values are the brightness of colours (ITU-R BT.601)."""
    vocs = read_class_table("voc2012").palette  # which many tools take for any data
    for palette in (values.table.palette, vocs[: values.num_classes]):
        shades = {IGNORE_LABEL}
        for red, green, blue in (*palette, VOID_COLOUR):
            shade = 0.299 * red + 0.587 * green + 0.114 * blue
            shades |= {math.floor(shade), math.ceil(shade)}
        chance = (len(shades) / 256) ** len(values.unknown)
        if shades >= set(values.pixels) and chance < _CHANCE:
            remedy = values.remedy(
                "use the original palette files, whose indices are the class ids; with "
                "Pillow, open them without convert('L')"
            )
            return "palette_as_grey", (
                f"the label values {ranges(values.unknown)} are the grey shades of the "
                f"classes' colours: palette files were converted to grey; {remedy}"
            )
    return None


def _shifted(values: Values) -> tuple[str, str] | None:
    """Whether the values run to N, the number of classes, and so are one too high."""
    count = values.num_classes
    if not values.starts_at_zero or values.unknown != [count]:
        return None
    if 0 not in values.all:
        remedy = values.remedy("set config.data.folder.offset=-1")
        return "shifted_up", (
            f"the label values run from {min(values.all)} to {count} and 0 never "
            f"occurs, but the {count} classes are 0..{count - 1}: 1 is the first "
            f"class; {remedy}"
        )
    remedy = values.remedy(
        "set config.data.folder.offset=-1, which ignores 0 and makes 1 the first class; "
        f"or, if 0 is a class, add the missing name to {values.file}, or set "
        f"config.data.folder.ignore=({count},) if {count} does not count"
    )
    return "zero_is_void", (
        f"the label values run from 0 to {count}, one more than the {count} classes: 0 "
        f"is probably void; {remedy}"
    )


def _interpolated(values: Values) -> tuple[str, str] | None:
    """Whether the unknown values are thin lines and dots between the known."""
    pixels = sum(values.pixels[value] for value in values.unknown)
    if len(values.unknown) < _FEWEST_BLENDED or values.flat > _MOST_FLAT * pixels:
        return None
    remedy = values.remedy(
        "make them again from the originals, resized with nearest neighbour and saved "
        "as PNG"
    )
    return "interpolated", (
        f"{len(values.unknown)} values between {values.unknown[0]} and "
        f"{values.unknown[-1]} are no class and only occur along outlines or as specks: "
        "the labels were resized with interpolation or saved with loss, so that other "
        f"pixels are wrong too; {remedy}"
    )


def _ignore_not_declared(values: Values) -> tuple[str, str]:
    share = values.pixels[IGNORE_LABEL] / sum(values.pixels.values())
    remedy = values.remedy("add it: config.data.folder.ignore=(255,)")
    return "ignore_not_declared", (
        f"{share:.1%} of the pixels have the value 255, which is no class and not "
        f"ignored; {remedy}"
    )


def _unexplained(values: Values) -> tuple[str, str]:
    total = sum(values.pixels.values())
    share = sum(values.pixels[value] for value in values.unknown) / total
    remedy = values.remedy(
        f"list the missing classes in {values.file}, or name the values in "
        "config.data.folder.ignore if they do not count"
    )
    known = ranges(sorted(values.table.raw_to_class))
    return "unknown_values", (
        f"{share:.1%} of the pixels have the label {ranges(values.unknown)}, which is "
        f"none of {known}; {remedy}"
    )
