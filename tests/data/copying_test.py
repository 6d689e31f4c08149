import os
import threading

import pytest

from refinenet_jax import files
from refinenet_jax.data import copying
from refinenet_jax.errors import UserError
from tests.data.ask import Listener


def write(folder, **content):
    for name, data in content.items():
        files.write_bytes(folder / name, data)


def read(folder):
    names = {x.name: x.read_bytes() for x in folder.iterdir()}
    names.pop("copied.json")
    return names


@pytest.fixture(params=["disk", "bucket"])
def source(request, tmp_path):
    if request.param == "disk":
        return tmp_path / "source"
    return request.getfixturevalue("bucket")


def test_copied_once_and_what_changed_again(source, tmp_path):
    write(source, a=b"1" * (3 << 20), b=b"", c=b"33")
    target, listener = tmp_path / "cache" / "1.1.0", Listener()
    copying.copy_to_disk(source, target, listener)
    assert read(target) == {"a": b"1" * (3 << 20), "b": b"", "c": b"33"}
    assert listener.units["copying MiB"] == [4, 4]
    assert listener.lines == [f"copying {source} to {target}"]

    before = (target / "a").stat().st_ino
    listener = Listener()
    copying.copy_to_disk(source, target, listener)
    assert not listener.lines and not listener.units

    write(source, c=b"44")
    if not files.in_bucket(source):
        (source / "b").unlink()
        os.utime(source / "c", ns=(1, 1))
    write(target, own=b"class counts")
    copying.copy_to_disk(source, target, listener)
    assert listener.units["copying MiB"] == [1, 1]
    assert (target / "a").stat().st_ino == before
    assert read(target)["c"] == b"44"
    assert read(target)["own"] == b"class counts"
    assert (target / "b").exists() == files.in_bucket(source)


def test_what_was_cut_short_or_lost_is_copied_again(source, tmp_path):
    write(source, a=b"11", b=b"22", c=b"33")
    target = tmp_path / "cache"
    copying.copy_to_disk(source, target, Listener())
    (target / "a").unlink()
    (target / "b").write_bytes(b"2")
    copying.copy_to_disk(source, target, Listener())
    assert read(target) == {"a": b"11", "b": b"22", "c": b"33"}
    (target / "copied.json").write_text("garbled")
    listener = Listener()
    copying.copy_to_disk(source, target, listener)
    assert listener.units["copying MiB"] == [3, 3]


def test_a_copy_that_is_not_what_was_read_is_refused(tmp_path, monkeypatch):
    write(tmp_path / "source", a=b"11")
    blocks = copying._blocks

    def garbled(file):
        for block in blocks(file):
            yield b"12" if file.name.startswith(".partial") else block

    monkeypatch.setattr(copying, "_blocks", garbled)
    with pytest.raises(UserError, match="is not what was read: start again, or choose"):
        copying.copy_to_disk(tmp_path / "source", tmp_path / "cache", Listener())
    assert [x.name for x in (tmp_path / "cache").iterdir()] == []


def test_a_disk_without_room_is_refused_before_anything_is_copied(
    tmp_path, monkeypatch
):
    write(tmp_path / "source", a=b"1" * 2_000_000)
    monkeypatch.setattr(copying, "_free_bytes", lambda folder: 1_000_000)
    with pytest.raises(
        UserError, match=r"cache_dir: the data needs 0\.0 GB, and .*room"
    ):
        copying.copy_to_disk(tmp_path / "source", tmp_path / "cache", Listener())


def test_of_several_at_once_one_copies(tmp_path):
    write(tmp_path / "source", a=b"1" * (20 << 20))
    listeners = [Listener() for _ in range(3)]
    jobs = [
        threading.Thread(
            target=copying.copy_to_disk,
            args=(tmp_path / "source", tmp_path / "cache", listener),
        )
        for listener in listeners
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert sum(len(listener.lines) for listener in listeners) == 1
    assert read(tmp_path / "cache") == {"a": b"1" * (20 << 20)}


def test_uploads_in_the_place_of_what_is_there(bucket, tmp_path, monkeypatch):
    local = tmp_path / "1.1.0"
    write(local, dataset_info=b"{}", z=b"9")
    (local / "dataset_info").rename(local / copying.MARKER)
    write(bucket, old=b"of before")
    uploaded = []
    upload = files.upload
    monkeypatch.setattr(
        files, "upload", lambda file, to: (uploaded.append(file.name), upload(file, to))
    )
    copying.upload(local, bucket, Listener())
    assert uploaded == ["z", copying.MARKER]
    assert [x.name for x in files.files_below(bucket)] == [copying.MARKER, "z"]
