import os
import subprocess
import sys
import types

import pytest

from refinenet_jax import tuning

# Frees and takes 256 MiB again, and counts the pages that the kernel had to map.
FAULTS = """
import resource, numpy as np
from refinenet_jax import tuning
tuning.tune()
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**28, np.uint8)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
ORDER = """
from jax._src import xla_bridge
from refinenet_jax import tuning
tuning.keep_memory = lambda: print(xla_bridge.backends_are_initialized())
tuning.tune()
"""
FOLDER = """
import jax
from refinenet_jax import tuning
tuning.keep_compiled_programs()
print(jax.config.jax_compilation_cache_dir)
"""


def printed(program, **environment):
    """The lines that a program prints in a process of its own."""
    of_tests = {"JAX_COMPILATION_CACHE_DIR", "REFINENET_MALLOC"}
    given = {k: v for k, v in os.environ.items() if k not in of_tests}
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**given, **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()


def test_memory_that_was_given_back_is_mapped_once():
    _, *others = map(int, printed(FAULTS))
    assert max(others) < 20


def test_memory_is_kept_before_xla_has_threads():
    # These take memory in ways of their own from their start on.
    assert printed(ORDER, JAX_PLATFORMS="cpu") == ["False"]


def test_where_there_is_an_accelerator_memory_is_left_as_it_is(monkeypatch, tmp_path):
    told = []
    monkeypatch.delenv("REFINENET_MALLOC")
    monkeypatch.setattr(tuning, "keep_memory", lambda: told.append(True))
    monkeypatch.setattr(tuning, "keep_compiled_programs", lambda: None)
    unnamed = types.SimpleNamespace(values={"jax_platforms": None})
    monkeypatch.setattr(tuning.jax, "config", unnamed)
    devices = tmp_path / "dev"
    devices.mkdir()
    monkeypatch.setattr(tuning, "_DEVICES", str(devices))
    tuning.tune()
    assert told == [True]
    (devices / "nvidia0").touch()
    tuning.tune()
    assert told == [True]


def test_memory_may_be_left_as_it_is():
    *_, last = map(int, printed(FAULTS, REFINENET_MALLOC="default"))
    assert last > 100  # pages of at most 2 MiB


def test_compiled_programs_go_to_the_cache_folder_of_the_user(tmp_path):
    (folder,) = printed(FOLDER, XDG_CACHE_HOME=str(tmp_path))
    assert folder.startswith(f"{tmp_path}/refinenet_jax/compiled-")
    (folder,) = printed(FOLDER, XDG_CACHE_HOME="", HOME=str(tmp_path))
    assert folder.startswith(f"{tmp_path}/.cache/refinenet_jax/compiled-")


def test_a_folder_that_the_person_names_is_kept():
    assert printed(FOLDER, JAX_COMPILATION_CACHE_DIR="/tmp/mine") == ["/tmp/mine"]


def test_each_kind_of_cpu_has_a_folder_of_its_own(monkeypatch):
    here = tuning.cache_folder()
    monkeypatch.setattr(tuning, "_cpu", lambda: "another one")
    assert tuning.cache_folder() != here


@pytest.mark.parametrize("libc", [("", ""), ("musl", "1.2")])
def test_without_glibc_memory_is_left_as_it_is(libc, monkeypatch):
    monkeypatch.setattr(tuning.platform, "libc_ver", lambda: libc)
    assert not tuning.keep_memory()
