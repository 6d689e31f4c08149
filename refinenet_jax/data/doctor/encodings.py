"""Explains label values that are not what they should be."""

import math
from collections.abc import Callable, Collection

from refinenet_jax.data.class_table import ranges, read_class_table
from refinenet_jax.data.doctor.values import Values
from refinenet_jax.labels import IGNORE_LABEL, VOID_COLOUR

_FEWEST_BLENDED = 5  # distinct values that interpolation or compression makes up
_MOST_FLAT = 0.1  # share of their pixels that lie within an area of one value
_THIN = 0.5  # share of its pixels along outlines that no class has
_THINNER = 0.1  # difference of these shares that tells void from a class
_MUCH = 0.1  # share of pixels that hardly are void
_LONGEST = 80  # characters of a remedy
_CHANCE = 0.05  # that arbitrary values all are shades of a palette


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


def better_reading(values: Values) -> tuple[int, tuple[int, ...]] | None:
    """Offset and ignored values with which all values mean something.

    None where they do already, or where what `explain` recommends does not bring it.
    """
    changes: list[tuple[int, tuple[int, ...]]] = []
    for code, _ in explain(values):
        if code in ("shifted_up", "zero_is_void"):
            changes.append((-1, values.ignore))
        elif code == "last_is_void":
            changes.append((0, (*values.ignore, values.num_classes)))
        elif code == "ignore_not_declared":
            offset, ignore = changes.pop() if changes else (0, values.ignore)
            changes.append((offset, (*ignore, IGNORE_LABEL)))
        elif code == "unknown_values" and _all_thin(values):
            changes.append((0, (*values.ignore, *values.unknown)))
    for offset, ignore in changes[-1:]:
        if values.trial(offset=offset, ignore=ignore).fits:
            return offset, ignore
    return None


def _all_thin(values: Values) -> bool:
    """Whether the unknown values are few, and lie along outlines."""
    return (
        len(values.unknown) < _FEWEST_BLENDED
        and min(values.thin(value) for value in values.unknown) > _THIN
    )


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
    """Whether the values run to N, the number of classes: one value is too many."""
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
    told = f"the label values run from 0 to {count}, one more than the {count} classes"
    if not values.file:
        return "one_too_many", f"{told}; {values.remedy('')}"
    return _one_too_many(values, told)


def _one_too_many(values: Values, told: str) -> tuple[str, str]:
    """Which value of a person's own labels is void: the first, the last, or none.

    What annotators leave void lies along outlines; what is a class, in areas. Of two
    readings that leave nothing unknown the one that fits this better goes first; where
    they do not differ, the one that leaves out fewer pixels.
    """
    last = values.num_classes
    ignore = (*values.ignore, last)
    readings = {
        0: (
            "zero_is_void",
            _FROM_ONE,
            values.trial(offset=-1, ignore=values.ignore),
        ),
        last: (
            "last_is_void",
            _ignoring(ignore),
            values.trial(offset=0, ignore=ignore),
        ),
    }
    possible = [value for value, (*_, trial) in readings.items() if trial.fits]
    add = f"or add the missing name to {values.file} if both are classes"
    if not possible:
        return "one_too_many", f"{told}; {add}"
    clear = abs(values.thin(0) - values.thin(last)) > _THINNER

    def order(value: int) -> float:
        return -values.thin(value) if clear else values.share(value)

    first, *others = sorted(possible, key=order)
    code, remedy, _ = readings[first]
    rest = "".join(f"; or {readings[o][1]} if {o} is void" for o in others)
    shares = (
        f"0 has {values.share(0):.1%} of the pixels, {last} {values.share(last):.1%}"
    )
    if not clear:
        return "one_too_many", (
            f"{told}, and which of them is void cannot be told ({shares}): look at the "
            f"pictures; {remedy} if {first} is void{rest}; {add}"
        )
    return code, (
        f"{told}: {first} is probably void, as {values.thin(first):.0%} of it lie along "
        f"outlines ({shares}); {remedy}{rest}; {add}"
    )


_FROM_ONE = (
    "set config.data.folder.offset=-1, which ignores 0 and makes 1 the first class"
)


def _ignoring(ignore: Collection[int]) -> str:
    return f"set config.data.folder.ignore={tuple(ignore)}"


def hides_a_class(values: Values) -> str:
    """Whether offset=-1 may ignore a class in the place of void; "" if not."""
    last = values.num_classes
    if last not in values.all or values.share(0) < _MUCH:
        return ""
    if values.thin(last) - values.thin(0) <= _THINNER:
        return ""
    without = [value for value in values.ignore if value != last]
    if not values.trial(offset=0, ignore=(*without, last)).fits:
        return ""
    return (
        f"config.data.folder.offset=-1 ignores the value 0, which {values.share(0):.1%} "
        f"of the pixels have, in areas, while {values.thin(last):.0%} of {last}, the "
        f"class {values.table.class_names[-1]!r}, lie along outlines as void does: if "
        "the pictures show every class under the name of the next, set "
        f"config.data.folder.offset=0 and config.data.folder.ignore={(*without, last)}"
    )


def _interpolated(values: Values) -> tuple[str, str] | None:
    """Whether the unknown values are thin lines and dots between the known."""
    pixels = sum(values.pixels[value] for value in values.unknown)
    inner = sum(values.inner.get(value, 0) for value in values.unknown)
    if len(values.unknown) < _FEWEST_BLENDED or inner > _MOST_FLAT * pixels:
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
    remedy = values.remedy(
        f"add it: config.data.folder.ignore={(*values.ignore, IGNORE_LABEL)}"
    )
    return "ignore_not_declared", (
        f"{share:.1%} of the pixels have the value 255, which is no class and not "
        f"ignored; {remedy}"
    )


def _unexplained(values: Values) -> tuple[str, str]:
    total = sum(values.pixels.values())
    share = sum(values.pixels[value] for value in values.unknown) / total
    ignoring = _ignoring((*values.ignore, *values.unknown))
    listing = f"list the missing classes in {values.file}"
    remedy = values.remedy(
        f"{ignoring} if they do not count, as they lie along outlines; or {listing}"
        if _all_thin(values)
        else f"{listing}; or {_few(ignoring)} if they do not count"
    )
    known = ranges(sorted(values.table.raw_to_class))
    return "unknown_values", (
        f"{share:.1%} of the pixels have the label {ranges(values.unknown)}, which is "
        f"none of {known}; {remedy}"
    )


def _few(ignoring: str) -> str:
    """As short as a line bears."""
    if len(ignoring) <= _LONGEST:
        return ignoring
    return "name the values in config.data.folder.ignore"
