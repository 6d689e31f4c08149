"""The program without a process of its own: no second start, and one compilation cache."""

import contextlib
import io
import sys
from unittest import mock

from refinenet_jax import main


def run(*arguments):
    """Runs the program in this process; gives (exit code, stdout, stderr)."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["refinenet", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main.run()
        except SystemExit as exit:
            code = exit.code
    return code, out.getvalue(), err.getvalue()
