import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from refinenet_jax import buckets, files, main
from refinenet_jax.data.images import DataError, read_image
from refinenet_jax.errors import UserError
from refinenet_jax.inference.inputs import find_inputs
from refinenet_jax.weights import torch


def names_in(folder):
    return [str(x).removeprefix(f"{folder}/") for x in files.files_below(folder)]


def test_a_path_in_a_bucket_stays_there(bucket):
    assert str(bucket).startswith("gs://")
    for path in (bucket, bucket / "a" / "b.png", files.absolute(bucket / "a")):
        assert files.in_bucket(path)
        assert str(files.path(path)) == str(path)
    assert str((bucket / "a/b").parent) == f"{bucket}/a"
    assert not files.in_bucket(files.path("runs/gs"))


def test_whole_files(bucket):
    path = bucket / "run" / "eval.json"
    files.write_json(path, {"mean_iou": 0.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(path, {"mean_iou": float("nan")})
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as partial:
        assert partial.suffix == ".json"
        partial.write_bytes(b"half")
        raise KeyboardInterrupt
    assert json.loads(path.read_text()) == {"mean_iou": 0.5}
    assert names_in(bucket) == ["run/eval.json"]
    files.write_json(path, {"mean_iou": 0.6})
    assert json.loads(path.read_text()) == {"mean_iou": 0.6}


def test_large_files_and_their_digests(bucket, tmp_path):
    """Above 5 MiB the upload is another kind of request."""
    content = np.random.default_rng(0).bytes((6 << 20) + 17)
    files.write_bytes(bucket / "large", content)
    (tmp_path / "large").write_bytes(content)
    assert files.sha256(bucket / "large") == files.sha256(tmp_path / "large")
    with files.on_disk(bucket / "large") as here:
        assert here.name == "large"
        assert here.read_bytes() == content
    assert not here.exists()


def test_listing(bucket):
    for name in ("a/2.png", "a/1.png", "a/deep/3.jpg", "b.txt"):
        files.write_bytes(bucket / name, name.encode())
    assert names_in(bucket) == ["a/1.png", "a/2.png", "a/deep/3.jpg", "b.txt"]
    found = files.matching(f"{bucket}/a/*.png")
    assert found == [bucket / "a/1.png", bucket / "a/2.png"]
    states = files.states(files.files_below(bucket))
    assert [state.size for state in states.values()] == [7, 7, 12, 5]
    before = states[bucket / "b.txt"]
    files.write_bytes(bucket / "b.txt", b"other")
    after = files.states([bucket / "b.txt"])[bucket / "b.txt"]
    assert after.size == before.size
    assert after.modified > before.modified
    with pytest.raises(FileNotFoundError, match=r"missing\.png"):
        files.states([bucket / "b.txt", bucket / "a/missing.png"])


def test_what_another_process_writes_is_seen(bucket):
    assert not (bucket / "late").exists()
    assert names_in(bucket) == []
    content = b"from elsewhere"
    # Without the instance of gcsfs that the program has, and what it may remember.
    import gcsfs

    other = gcsfs.GCSFileSystem(token="anon", skip_instance_cache=True)
    other.pipe_file(str(bucket / "late"), content)
    assert (bucket / "late").read_bytes() == content
    assert names_in(bucket) == ["late"]


def test_a_folder_gets_another_name(bucket):
    for name in ("a.png", "summary.json", "v/1.png"):
        files.write_bytes(bucket / "old" / name, b"1")
    files.rename_folder(bucket / "old", bucket / "new", last="summary.json")
    assert names_in(bucket) == ["new/a.png", "new/summary.json", "new/v/1.png"]
    files.remove_folder(bucket / "new")
    assert names_in(bucket) == []
    files.remove_folder(bucket / "new")


def test_a_move_that_is_broken_off_is_seen_by_its_last_file(bucket, monkeypatch):
    for name in ("a.png", "summary.json", "z.png"):
        files.write_bytes(bucket / "old" / name, b"1")

    def remove_some(names):
        remove(names[:2])
        raise ConnectionResetError

    remove = buckets.remove
    monkeypatch.setattr(buckets, "remove", remove_some)
    with pytest.raises(ConnectionResetError):
        files.rename_folder(bucket / "old", bucket / "new", last="summary.json")
    assert names_in(bucket / "old") == ["summary.json"]


@pytest.mark.parametrize(
    "name", ["s3://bucket/run", "hf://a/b", "file:///tmp/run", "gs://", "gs:/b/run"]
)
def test_what_cannot_be_served_is_refused_with_the_extra(name):
    with pytest.raises(UserError, match="is no path here.*BUCKET/PATH.*extra gcs") as e:
        files.path(name)
    assert str(e.value).startswith(name)


def test_a_bucket_that_is_not_there(bucket_root):
    with pytest.raises(
        UserError, match="there is no bucket gs://nobody: check its name"
    ):
        files.path("gs://nobody/run")


def test_without_gcsfs(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    buckets._store.cache_clear()
    with pytest.raises(UserError, match=r"pip install 'refinenet_jax\[gcs\]'"):
        files.path("gs://any/run")


def test_a_cache_on_disk_is_on_disk(bucket_root):
    program = [
        "refinenet",
        "--config=default",
        f"--config.data.cache_dir={bucket_root}",
    ]
    with pytest.raises(UserError, match=r"data\.cache_dir=.* must be a path on disk"):
        main.main(program)


@pytest.mark.parametrize(
    "flags",
    [
        ["--workdir=gs://nobody/run"],
        ["--workdir=s3://bucket/run"],
        ["--config.data.dir=gs:/nobody/data"],
        ["--config.init_from=gs://nobody/run"],
        ["--config.init_from=gs://nobody/a.safetensors"],
        ["--mode=predict", "--images=gs://nobody/*.png"],
        ["--mode=convert", "--weights=gs://nobody/a.pth"],
        ["--config.data.name=folder", "--config.data.manual_dir=gs://nobody/own"],
    ],
)
def test_nothing_becomes_a_folder_on_disk(flags, bucket_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = ["refinenet", "--config=default", "--workdir=run", *flags]
    with pytest.raises(UserError, match=r"no bucket|is no path here"):
        main.main(program)
    assert not [name for name in os.listdir(tmp_path) if name != "run"]


def test_pictures_in_a_bucket(bucket):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    for name in ("b.png", "a.png"):
        with files.replacing(bucket / name) as partial:
            Image.fromarray(pixels).save(partial)
    files.write_bytes(bucket / "notes.txt", b"no picture")
    expected = [bucket / "a.png", bucket / "b.png"]
    assert find_inputs([str(bucket)]) == expected
    assert find_inputs([f"{bucket}/*.png"]) == expected
    assert find_inputs([f"{bucket}/b.png"]) == [bucket / "b.png"]
    assert np.array_equal(read_image(bucket / "a.png"), pixels)
    assert np.array_equal(read_image(f"{bucket}/a.png"), pixels)
    with pytest.raises(DataError, match=r"c\.png cannot be read: No such file"):
        read_image(bucket / "c.png")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_in_a_bucket(suffix, bucket):
    pytorch = pytest.importorskip("torch")

    tensors = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
    path = bucket / f"weights{suffix}"
    if suffix == ".pth":
        with files.replacing(path) as partial:
            pytorch.save({k: pytorch.tensor(v) for k, v in tensors.items()}, partial)
    else:
        torch.write_safetensors(path, tensors, {})
    assert torch.is_torch_file(str(path))
    found = torch.read(torch.locate(str(path)))
    assert np.array_equal(found.tensors["a.weight"], tensors["a.weight"])
    assert found.sha256 == files.sha256(path)
    with pytest.raises(UserError, match="is no file: check the path"):
        torch.locate(f"{bucket}/none{suffix}")


def test_a_mounted_bucket_is_told_from_a_disk(tmp_path, monkeypatch):
    assert not files.on_mounted_bucket(tmp_path)
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/root / ext4 rw 0 0\n"
        f"my-bucket {tmp_path}/my\\040bucket fuse.gcsfuse rw 0 0\n"
        f"tmpfs {tmp_path}/my\\040bucket/disk tmpfs rw 0 0\n"
    )
    monkeypatch.setattr(buckets, "_MOUNTS", mounts)
    assert files.on_mounted_bucket(tmp_path / "my bucket" / "run")
    assert not files.on_mounted_bucket(tmp_path / "my bucket" / "disk" / "run")
    assert not files.on_mounted_bucket(tmp_path / "my bucket 2" / "run")


@pytest.mark.parametrize(
    "content", [b"", b"\r", b"a\n", b"a\r\n", b"\r\n\r\n--", b"\n\n"]
)
def test_whatever_a_file_ends_in_it_is_stored(content, bucket):
    files.write_bytes(bucket / "file", content)
    assert (bucket / "file").read_bytes() == content
