"""The one kind of error that a person can mend."""


class UserError(ValueError):
    """Something that the person who started the program must change.

    The message is one line that names the file or field and the remedy. The program
    ends with exit code 2 and prints that line without a traceback.
    """
