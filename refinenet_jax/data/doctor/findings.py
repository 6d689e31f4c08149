"""What a person should know about a data set."""

import dataclasses

LEVELS = ("error", "warning", "note")
NUM_FILES = 5  # that a finding names


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that a person should know about the data.

    Attributes:
      level: one of `LEVELS`; training does not start on an error.
      code: one word for it.
      split: where; several are separated by commas.
      message: what it is and what helps, in one line.
      files: up to `NUM_FILES` that have it.
    """

    level: str
    code: str
    split: str
    message: str
    files: tuple[str, ...]


def counted(number: int, noun: str) -> str:
    """2, "image" -> "2 images"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
