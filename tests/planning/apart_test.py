"""The process that compiles for other machines, played by a shell script."""

import os
import sys

import pytest

from refinenet_jax import preemption
from refinenet_jax.errors import UserError
from refinenet_jax.planning import apart, targets

CRASH = "F1129 09:24:42.212557    8539 tiling.cc:627] Check failed: a == b (1 vs. 2) "


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a script in place of the program."""

    def run(script, *arguments):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))
        apart.run(arguments, targets.parse("h100:1"))

    return run


def test_it_gets_the_arguments_and_what_jax_must_know(run, capfd):
    run('echo "$@" $JAX_PLATFORMS; echo noise >&2', "--mode=plan")
    out, err = capfd.readouterr()
    assert out == "-P -m refinenet_jax.main --mode=plan cpu\n"
    assert err == ""
    assert not apart.is_apart()


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        ("echo noise >&2; echo error: do X >&2; exit 2", UserError, "^do X$"),
        (f"echo '{CRASH}' >&2; kill -6 $$", UserError, r"broke off: .* \(1 vs. 2\);"),
        ("kill -9 $$", UserError, "was killed: it needs more memory"),
        ("exit 75", preemption.Preempted, "broken off"),
        ("echo Traceback >&2; exit 1", RuntimeError, "Traceback"),
    ],
)
def test_how_it_ends_is_how_we_end(run, script, error, message):
    with pytest.raises(error, match=message):
        run(script)


def test_it_knows_that_it_is_the_one(monkeypatch):
    monkeypatch.setitem(os.environ, apart._MARK, "1")
    monkeypatch.setattr(sys, "platform", "not linux")
    assert apart.is_apart()
