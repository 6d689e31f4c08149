"""The one kind of error that a person can mend, and how its text is made."""

import difflib
from collections.abc import Iterable, Sequence


class UserError(ValueError):
    """Something that the person who started the program must change.

    The message is one line that names the file or field and the remedy. The program
    ends with exit code 2 and prints that line without a traceback.
    """


def unknown(
    what: str, name: str, known: Iterable[str], *, listed: str = ""
) -> UserError:
    """The error for a name that is none of the known ones; it tells the nearest.

    Args:
        what: what was given, such as "--mode=evaluate".
        name: the name in it, which the known ones are compared with.
        known: all names there are.
        listed: takes the place of "known: " and their list.
    """
    known = list(known)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f"; did you mean {nearest[0]}?" if nearest else ""
    listed = listed or f"known: {', '.join(known)}"
    return UserError(f"{what} is unknown; {listed}{guess}")


def first_line(error: BaseException) -> str:
    """What an error of another package says, without what follows; else its kind."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def listed(names: Sequence[str], most: int, separator: str = ", ") -> str:
    """The first of them and how many more there are: "a, b and 3 more"."""
    shown = separator.join(names[:most])
    rest = len(names) - most
    return f"{shown}{separator.rstrip(', ')} and {rest} more" if rest > 0 else shown
