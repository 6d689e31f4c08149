"""The list of classes of a person's own folder."""

import pathlib
import re

from refinenet_jax.data import images
from refinenet_jax.errors import UserError
from refinenet_jax.labels import IGNORE_LABEL

IGNORE = "ignore"  # names the colour of pixels that do not count

_LONGEST_LINE = 500  # characters

Colour = tuple[int, int, int]


def read_classes(path: pathlib.Path) -> dict[str, Colour | None]:
    """Names in order, each with its colour where it has one.

    A line is `name`, or `name red green blue` with spaces, commas, colons or tabs
    between.

    Raises:
      UserError: the file is missing, lists too few or too many, or has a line that is
        neither.
    """
    if not path.exists():
        raise UserError(
            f"{path} is missing: write the name of one class on each line, in the "
            "order of their ids"
        )
    classes: dict[str, Colour | None] = {}
    for line in images.read_lines(path):
        if not line.strip() or line.startswith("#"):
            continue
        if len(line) > _LONGEST_LINE:
            raise UserError(
                f"{path}: line {line[:20]!r}... has {len(line)} characters; a class is "
                f"told in at most {_LONGEST_LINE}"
            )
        match = re.fullmatch(
            r"(.*?)[\s,:]+(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})[\s,:]*", line.strip()
        )
        name = match[1] if match else line.strip()
        colour = (int(match[2]), int(match[3]), int(match[4])) if match else None
        if not name or name in classes or (colour and max(colour) > 255):
            raise UserError(
                f"{path}: line {line!r} is no new class; expected a name, or a name "
                "and three numbers 0..255"
            )
        classes[name] = colour
    number = len(classes.keys() - {IGNORE})
    if number < 2:
        raise UserError(f"{path} lists fewer than two classes")
    if number > IGNORE_LABEL:
        raise UserError(
            f"{path} lists {number} classes; there can be {IGNORE_LABEL}, as class ids "
            f"have 8 bits and {IGNORE_LABEL} are pixels that do not count: merge some"
        )
    return classes


def distinct_colour(index: int) -> Colour:
    """The VOC devkit's colour map: bits of the index spread over the three channels."""
    red = green = blue = 0
    for shift in range(7, -1, -1):
        red |= (index & 1) << shift
        green |= (index >> 1 & 1) << shift
        blue |= (index >> 2 & 1) << shift
        index >>= 3
    return red, green, blue
