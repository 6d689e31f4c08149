"""The one kind of error that a person can mend."""

import difflib
from collections.abc import Iterable


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
