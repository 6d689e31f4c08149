"""The one kind of error that a person can mend, and how its text is made."""

import difflib
from collections.abc import Iterable, Sequence


class UserError(ValueError):
    """Something that the person who started the program must change.

    The message is one line that names the file or field and the remedy. The program
    ends with exit code 2 and prints that line without a traceback.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say of the known name that is most like an unknown one; "" if none is.

    "resnet5" among resnet50 and others → ", did you mean 'resnet50'?".
    """
    found = difflib.get_close_matches(name, list(known), 1)
    return f", did you mean {found[0]!r}?" if found else ""


def first_line(error: BaseException) -> str:
    """What an error of another package says, without what follows; else its kind."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def listed(names: Sequence[str], most: int, separator: str = ", ") -> str:
    """The first of them and how many more there are: "a, b and 3 more"."""
    shown = separator.join(names[:most])
    rest = len(names) - most
    return f"{shown}{separator.rstrip(', ')} and {rest} more" if rest > 0 else shown
