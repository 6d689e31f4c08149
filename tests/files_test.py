import errno
import json
import os
import stat

import pytest

from refinenet_jax import files
from refinenet_jax.errors import UserError


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a" / "eval.json"
    files.write_json(path, {"mean_iou": 0.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(path, {"mean_iou": float("nan")})
    assert json.loads(path.read_text()) == {"mean_iou": 0.5}
    assert [p.name for p in path.parent.iterdir()] == ["eval.json"]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room there or choose another --workdir"),
        (errno.EDQUOT, "make room there or choose another --workdir"),
        (errno.EROFS, "make that folder writable or choose another --workdir"),
        (errno.EIO, "make that folder writable or choose another --workdir"),
    ],
)
def test_a_disk_that_fails_is_one_line_and_leaves_nothing(
    number, remedy, tmp_path, monkeypatch
):
    path = tmp_path / "result.json"
    path.write_text("of an earlier run")

    def write_half(partial, data):
        with partial.open("wb") as file:
            file.write(data[:2])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(type(path), "write_bytes", write_half)
    with pytest.raises(UserError) as error:
        files.write_json(path, {"step": 3})
    assert str(error.value) == (
        f"cannot write result.json into {tmp_path} ({os.strerror(number)}): {remedy}"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
    assert path.read_text() == "of an earlier run"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(UserError, match="Permission denied.*make that folder writable"):
        files.write_bytes(tmp_path / "a.png", b"")


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "predictions").touch()
    for path in (tmp_path / "predictions" / "a", tmp_path / "predictions" / "b" / "c"):
        with pytest.raises(UserError, match="move away what has the name"):
            files.write_bytes(path, b"")


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "a.png" / "inside").mkdir(parents=True)
    with pytest.raises(UserError, match="cannot write a.png .*move away what has"):
        files.write_bytes(tmp_path / "a.png", b"")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_block_that_is_broken_off_leaves_nothing(tmp_path):
    path = tmp_path / "new" / "clip.mp4"
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as partial:
        assert partial.suffix == ".mp4"
        partial.write_bytes(b"half")
        raise KeyboardInterrupt
    assert not list((tmp_path / "new").iterdir())
