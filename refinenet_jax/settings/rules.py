"""What a setting may be. A rule says it in words, decides, and reads it from text.

Every number has bounds, so that neither infinity, which is outside, nor NaN, which
compares as false, gets through.
"""

import abc
import ast
import dataclasses
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

# Close to the largest number of float32, which all arithmetic is done in.
_LARGEST = 1e38
_LONGEST_PATH = 4095  # bytes, on Linux
_LONGEST_NAME = 255  # of a file, in bytes


class Rule(abc.ABC):
    """What a value may be."""

    @property
    @abc.abstractmethod
    def text(self) -> str:
        """In words, to follow "must be"."""

    @abc.abstractmethod
    def holds(self, value: Any) -> bool:
        """Whether a value is right; never raises, whatever it is."""

    def read(self, given: Sequence[str]) -> Any:
        """The value that a command line gives, once or, where it is a tuple, in parts.

        What cannot be read stays text, for `holds` to refuse.
        """
        return _literal(given[-1])


@dataclasses.dataclass(frozen=True)
class Whole(Rule):
    """A whole number from `least` to `most`, or `also`."""

    least: int
    most: int
    also: int | None = None

    @property
    def text(self) -> str:
        also = "" if self.also is None else f"{self.also}, or "
        return f"{also}a whole number in {self.least}..{self.most}"

    def holds(self, value: Any) -> bool:
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return value == self.also or self.least <= value <= self.most


@dataclasses.dataclass(frozen=True)
class Number(Rule):
    """A number from `least` or beyond `above`, up to `most`."""

    least: float | None = None
    most: float = _LARGEST
    above: float | None = None

    @property
    def text(self) -> str:
        if self.above is not None:
            return f"more than {self.above:g} and at most {self.most:g}"
        return f"in {self.least:g}..{self.most:g}"

    def holds(self, value: Any) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        if self.above is not None:
            return self.above < value <= self.most
        return self.least is not None and self.least <= value <= self.most


@dataclasses.dataclass(frozen=True)
class Flag(Rule):
    """True or False."""

    text = "True or False"

    def holds(self, value: Any) -> bool:
        return isinstance(value, bool)

    def read(self, given: Sequence[str]) -> Any:
        return {"true": True, "false": False}.get(given[-1].lower(), given[-1])


@dataclasses.dataclass(frozen=True)
class Text(Rule):
    """Text on one line that can be a path; `pattern` must match all of it."""

    text: str = f"text on one line, no name over {_LONGEST_NAME} bytes"
    pattern: str = ".*"

    def holds(self, value: Any) -> bool:
        return (
            isinstance(value, str)
            and _can_be_path(value)
            and re.fullmatch(self.pattern, value) is not None
        )

    def read(self, given: Sequence[str]) -> Any:
        return given[-1]


@dataclasses.dataclass(frozen=True)
class Texts(Rule):
    """Any number of texts, such as paths."""

    text: str = f"{Text().text}, each"

    def holds(self, value: Any) -> bool:
        return isinstance(value, tuple) and all(map(Text().holds, value))

    def read(self, given: Sequence[str]) -> Any:
        return tuple(given)


@dataclasses.dataclass(frozen=True)
class OneOf(Rule):
    """One of the known words, or nothing where that is `optional`."""

    known: tuple[str, ...]
    optional: bool = False

    @property
    def text(self) -> str:
        return f"{'empty, or ' * self.optional}one of {', '.join(self.known)}"

    def holds(self, value: Any) -> bool:
        return value in self.known or (self.optional and value == "")

    def read(self, given: Sequence[str]) -> Any:
        return given[-1]


@dataclasses.dataclass(frozen=True)
class OneOfTable(OneOf):
    """Also what a config file adds to a table, such as with `models.add_backbone`.

    Attributes:
      table: module and name; not imported here.
    """

    table: str = ""

    def holds(self, value: Any) -> bool:
        module, _, name = self.table.rpartition(".")
        added = getattr(sys.modules.get(module), name, {})
        return super().holds(value) or (isinstance(value, str) and value in added)


@dataclasses.dataclass(frozen=True)
class Each(Rule):
    """A tuple whose values all follow one rule.

    Attributes:
      rule: of each value.
      least: how many there are, if not more.
      most: how many there may be.
      empty: there may also be none.
      rising: no value is smaller than the one before.
      example: what such a tuple looks like, in Python.
    """

    rule: Rule
    least: int
    most: int
    empty: bool = False
    rising: bool = False
    example: str = ""

    @property
    def text(self) -> str:
        count = str(self.most)
        if self.least < self.most:
            count = f"{self.least} to {self.most}" if self.least else f"up to {count}"
        return (
            f"a tuple of {count}, each {self.rule.text}"
            + ", the smaller first" * self.rising
            + ", or ()" * self.empty
            + (f", such as {self.example}" if self.example else "")
        )

    def holds(self, value: Any) -> bool:
        if not isinstance(value, tuple):
            return False
        if self.empty and not value:
            return True
        return (
            self.least <= len(value) <= self.most
            and all(self.rule.holds(each) for each in value)
            and not (self.rising and list(value) != sorted(value))
        )

    def read(self, given: Sequence[str]) -> Any:
        return _joined(given)


@dataclasses.dataclass(frozen=True)
class Parts(Rule):
    """A tuple whose values each have a name and a rule."""

    parts: Mapping[str, Rule]

    @property
    def text(self) -> str:
        return f"a tuple of {_listed(self.parts)}"

    def holds(self, value: Any) -> bool:
        return (
            isinstance(value, tuple)
            and len(value) == len(self.parts)
            and all(
                rule.holds(x)
                for rule, x in zip(self.parts.values(), value, strict=True)
            )
        )

    def read(self, given: Sequence[str]) -> Any:
        return _joined(given)


@dataclasses.dataclass(frozen=True)
class Record(Rule):
    """A dictionary with exactly these keys."""

    parts: Mapping[str, Rule]

    @property
    def text(self) -> str:
        return f"a dictionary of {_listed(self.parts)}"

    def holds(self, value: Any) -> bool:
        return (
            isinstance(value, Mapping)
            and set(value) == set(self.parts)
            and all(rule.holds(value[name]) for name, rule in self.parts.items())
        )


def _can_be_path(text: str) -> bool:
    if re.search(r"[\x00-\x1f\x7f]", text):
        return False
    try:
        name = text.encode()
    except UnicodeEncodeError:  # bytes of a command line that are no UTF-8
        return False
    return len(name) <= _LONGEST_PATH and all(
        len(part) <= _LONGEST_NAME for part in name.split(b"/")
    )


def _listed(parts: Mapping[str, Rule]) -> str:
    return ", ".join(f"{name} ({rule.text})" for name, rule in parts.items())


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def _joined(given: Sequence[str]) -> tuple[Any, ...]:
    """(1,2), [1,2] and 1,2 are two values, 1 is one; what is given again is added."""
    values: list[Any] = []
    for text in given:
        value = _literal(text)
        values += value if isinstance(value, tuple | list) else [value]
    return tuple(values)
