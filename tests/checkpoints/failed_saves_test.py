"""A save that fails at any place is told, never counted, and the run can go on."""

import builtins
import errno
import functools
import os
import resource
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refinenet_jax.checkpoints.metadata import Metadata
from refinenet_jax.checkpoints.store import (
    Checkpoints,
    open_checkpoints,
    with_sharding,
)
from refinenet_jax.errors import UserError
from refinenet_jax.models import Architecture
from refinenet_jax.sharding import global_layout

REPOSITORY = Path(__file__).parent.parent.parent
METADATA = Metadata(
    Architecture("light_resnet18", 6), ("a",), ((0, 0, 0),), optimizer="sgd"
)
# By which Python writes, or changes a folder.
OPERATIONS = [
    (builtins, "open"),
    *((os, name) for name in ("open", "mkdir", "rename", "replace", "link", "unlink")),
    *((os, name) for name in ("rmdir", "listdir", "scandir", "utime", "stat", "lstat")),
]


def items(value, size=4):
    """Weights that no compression makes small; the first is the value."""
    weights = np.random.default_rng(0).random((size, 3), np.float32)
    weights[0, 0] = value
    network = {"params": {"w": weights}, "batch_stats": {}}
    arrays = {"network": network, "training": {"step": np.asarray(int(value))}}
    return jax.device_put(jax.tree.map(jnp.asarray, arrays), global_layout().state)


def save(workdir, *steps, size=4):
    checkpoints = Checkpoints(workdir, keep_latest=2)
    try:
        for step in steps:
            metadata = Metadata(**{**vars(METADATA), "mean_iou": step / 100})
            checkpoints.save(step, items(step, size), {"next": step}, metadata)
        checkpoints.wait()
    finally:
        checkpoints.close()


def restored(workdir, size=4):
    checkpoints = open_checkpoints(workdir)
    wanted = with_sharding(items(0, size), global_layout().state)
    found = checkpoints.restore_latest(wanted, METADATA)
    assert float(found.items["network"]["params"]["w"][0, 0]) == found.step
    assert found.position == {"next": found.step}
    assert checkpoints.best().step == found.step
    checkpoints.close()
    return found.step


class Failing:
    """Inside, the n-th operation in a folder fails; counts them."""

    def __init__(self, folder: Path, number: int):
        self.folder, self.number, self.count = str(folder), number, 0

    def __enter__(self):
        self.before = [
            (where, name, getattr(where, name)) for where, name in OPERATIONS
        ]
        for where, name, real in self.before:
            setattr(where, name, functools.partial(self.call, real))
        return self

    def call(self, real, *arguments, **named):
        if arguments and str(arguments[0]).startswith(self.folder):
            self.count += 1
            if self.count == self.number:
                raise OSError(errno.EIO, "Input/output error", str(arguments[0]))
        return real(*arguments, **named)

    def __exit__(self, *_):
        for where, name, real in self.before:
            setattr(where, name, real)


@pytest.mark.slow
@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_whatever_operation_fails_the_run_can_go_on(every, tmp_path):
    counted = tmp_path / "counted"
    save(counted, 1)
    with Failing(counted, 0) as counting:
        save(counted, 2)
    assert counting.count > 50
    numbers = range(1, counting.count + 1, every)
    told = {}
    for number in numbers:
        workdir = tmp_path / str(number)
        save(workdir, 1)
        with Failing(workdir, number):
            try:
                save(workdir, 2)
            except UserError as error:
                told[number] = error
    assert len(told) > len(numbers) // 4
    # Then, because what has failed ends in threads of its own.
    for number in numbers:
        workdir = tmp_path / str(number)
        # What failed was told, or did not matter.
        assert restored(workdir) == 2 or number in told, number
        save(workdir, 3)
        assert restored(workdir) == 3


def test_a_file_that_cannot_grow_is_told(tmp_path):
    save(tmp_path, 1, size=20_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(UserError, match="checkpoint 2 cannot be written into"):
            save(tmp_path, 2, size=20_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert restored(tmp_path, size=20_000) == 1


def test_a_failed_save_is_told_while_the_run_goes_on(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_latest=2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(UserError, match="checkpoint 1 cannot be written"):
            checkpoints.save(1, items(1, 20_000), {"next": 1}, METADATA)
            # What the loop asks at every step; nothing here waits for the save.
            while checkpoints.is_writing():
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    checkpoints.close()


@pytest.mark.slow  # a process of its own, in a file system of its own
def test_a_full_disk_is_told_and_leaves_a_workdir_to_go_on_in(tmp_path):
    """The file system has room for two checkpoints, not for three."""
    code = f"""
import subprocess
from pathlib import Path
from refinenet_jax.errors import UserError
from tests.checkpoints.failed_saves_test import restored, save
workdir, size = Path({str(tmp_path)!r}), 30_000
try:
    save(workdir, 1, 2, 3, size=size)
except UserError as error:
    print(error)
print("restored", restored(workdir, size))
subprocess.run(["mount", "-o", "remount,size=4m", workdir], check=True)
save(workdir, 3, size=size)
print("restored", restored(workdir, size))
"""
    mounted = f"mount -t tmpfs -o size=1m none {tmp_path} && exec {sys.executable} -"
    ran = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted],
        input=code,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told, *found = ran.stdout.splitlines()
    assert "checkpoint 3 cannot be written" in told
    assert "No space left on device" in told
    assert found == ["restored 2", "restored 3"]
