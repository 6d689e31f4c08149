"""Checkpoints in a bucket, in one that is mounted, and copied to and fro."""

import time

import pytest

from refinenet_jax import files
from refinenet_jax.checkpoints import reading
from refinenet_jax.checkpoints.store import open_checkpoints
from refinenet_jax.errors import UserError
from refinenet_jax.training.state import sha256
from tests.checkpoints.store_test import a_state, restore, save


def steps_in(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir())


def test_a_bucket_keeps_rotates_and_restores(bucket):
    save(bucket, [0.1, 0.9, None, 0.3])
    assert steps_in(bucket) == [2, 3, 4]
    state, batches = restore(bucket)
    assert sha256(state) == sha256(a_state(4.0, 4))
    assert next(batches).tolist() == [8, 9]
    assert vars(open_checkpoints(bucket).best()) == {"step": 2, "mean_iou": 0.9}
    with pytest.raises(UserError, match=f"{bucket}/none holds no checkpoints/"):
        open_checkpoints(bucket / "none")


@pytest.mark.slow
def test_a_damaged_checkpoint_in_a_bucket_is_moved_aside(bucket):
    save(bucket, [None, None])
    for path in files.files_below(bucket / "checkpoints" / "2"):
        if path.parent.name == "d":
            files.write_bytes(path, path.read_bytes()[:7])
    state, _ = restore(bucket)
    assert int(state.step) == 1
    assert steps_in(bucket) == [1]
    aside = files.files_below(bucket / "damaged_checkpoints")
    assert all(str(x).startswith(f"{bucket}/damaged_checkpoints/2_0/") for x in aside)
    assert aside


def test_checkpoints_can_be_copied_from_a_disk_to_a_bucket_and_back(tmp_path, bucket):
    save(tmp_path / "first", [None, 0.5])
    for path in files.files_below(tmp_path / "first"):
        files.upload(path, bucket / path.relative_to(tmp_path / "first").as_posix())
    assert open_checkpoints(bucket).best().step == 2
    state, _ = restore(bucket)
    assert sha256(state) == sha256(a_state(2.0, 2))
    for path in files.files_below(bucket):
        files.write_bytes(
            tmp_path / "back" / path.relative_to(bucket), path.read_bytes()
        )
    state, _ = restore(tmp_path / "back")
    assert sha256(state) == sha256(a_state(2.0, 2))


@pytest.mark.first_cases(1)
@pytest.mark.parametrize("place", ["bucket", "mounted"])
def test_what_was_broken_off_is_no_checkpoint(place, bucket, tmp_path, monkeypatch):
    """Neither there nor where a bucket is mounted is a folder renamed at the end."""
    monkeypatch.setattr(files, "on_mounted_bucket", lambda path: place == "mounted")
    workdir = bucket if place == "bucket" else tmp_path
    save(workdir, [None, 0.5])
    steps = {int(p.parent.name) for p in marks_in(workdir)}
    assert steps == {1, 2}
    (workdir / "checkpoints" / "2" / "commit_success.txt").unlink()
    assert open_checkpoints(workdir).best() is None
    state, _ = restore(workdir)
    assert int(state.step) == 1
    end = time.monotonic() + 60
    while steps_in(workdir) != [1]:  # Orbax cleans up beside its other work
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_bucket_that_fails_is_no_damage(bucket, monkeypatch):
    import gcsfs.retry

    save(bucket, [None])
    monkeypatch.setattr(reading, "_PAUSES", (0.0,))
    failures = []

    def fails(self, *arguments, **keywords):
        failures.append(1)
        raise gcsfs.retry.HttpError({"code": 503, "message": "try later"})

    with monkeypatch.context() as during:
        during.setattr(reading.ocp.Checkpointer, "restore", fails)
        with pytest.raises(
            UserError, match="cannot be read now.*try later.*nothing was"
        ):
            restore(bucket)
    assert len(failures) == 2
    state, _ = restore(bucket)
    assert int(state.step) == 1


def marks_in(workdir):
    return (workdir / "checkpoints").glob("*/commit_success.txt")
