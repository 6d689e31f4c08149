"""Data sets whose originals, or what is prepared of them, lie in a bucket."""

import pickle

import numpy as np
import pytest

from refinenet_jax import files
from refinenet_jax.data import copying, preparation
from refinenet_jax.data.builders import shapes
from refinenet_jax.data.datasets import open_split
from tests import own_folder
from tests.data import ask


def put(folder, target):
    for path in files.files_below(folder):
        files.upload(path, target / path.relative_to(folder).as_posix())


def examples(source):
    return [source[index] for index in range(len(source))]


@pytest.fixture
def few_shapes(monkeypatch):
    monkeypatch.setattr(shapes, "SPLIT_SIZES", {"train": 6, "val": 2})


def test_prepared_into_a_bucket_and_read_from_it(bucket, tmp_path, few_shapes):
    there = ask.open_split("shapes", "train", data_dir=bucket)
    here = ask.open_split("shapes", "train", data_dir=tmp_path)
    assert examples(there) == examples(here)
    assert there.fingerprint == here.fingerprint
    assert examples(pickle.loads(pickle.dumps(there))) == examples(here)
    listener = ask.Listener()
    counts = there.class_pixels(listener)
    assert np.array_equal(counts, here.class_pixels(listener))
    again = ask.open_split("shapes", "train", listener=listener, data_dir=bucket)
    listener.units.clear()
    assert np.array_equal(again.class_pixels(listener), counts)
    assert not listener.lines and not listener.units


def test_an_upload_that_was_broken_off_is_no_data_set(
    bucket, few_shapes, tmp_path, monkeypatch
):
    def broken(file, target):
        if file.name == "features.json":
            raise KeyboardInterrupt
        upload(file, target)

    upload = files.upload
    monkeypatch.setattr(files, "upload", broken)
    with pytest.raises(KeyboardInterrupt):
        ask.prepare("shapes", data_dir=bucket)
    monkeypatch.setattr(files, "upload", upload)
    listener = ask.Listener()
    source = ask.open_split("shapes", "val", listener=listener, data_dir=bucket)
    assert len(source) == 2
    assert listener.lines == [f"preparing shapes in {bucket}/shapes/1.1.0"]


@pytest.mark.parametrize("data", ["disk", "bucket"])
def test_a_folder_of_ones_own_in_a_bucket(data, bucket, tmp_path):
    local = own_folder.write_folder(tmp_path / "own")
    put(local, bucket / "own")
    data_dir = tmp_path / "tfds" if data == "disk" else bucket / "tfds"
    where = {"data_dir": data_dir, "manual_dir": bucket / "own"}
    listener = ask.Listener()
    there = ask.open_split("folder", "val", listener=listener, **where)
    here = ask.open_split(
        "folder", "val", data_dir=tmp_path / "local", manual_dir=local
    )
    assert examples(there) == examples(here)
    assert len(listener.lines) == 1

    ask.prepare("folder", listener=listener, **where)
    assert len(listener.lines) == 1
    label = bucket / "own/labels/val/val0.png"
    other = bucket / "own/labels/val/val1.png"
    files.write_bytes(label, other.read_bytes())
    again = ask.open_split("folder", "val", listener=listener, **where)
    assert (
        listener.lines[-1] == f"files in {bucket}/own changed: preparing folder again"
    )
    assert again[0]["label"] == again[1]["label"]


def test_archives_in_a_bucket_are_unpacked_on_disk(bucket, tmp_path, writer, pack_tar):
    """SBD's labels are MATLAB files."""
    names = ["2007_000001", "2007_000002"]
    writer.voc(tmp_path / "all", names[:1], names[1:])
    writer.sbd(tmp_path / "all", ["2008_000008"], ["2008_000015"])
    folder = tmp_path / "given"
    folder.mkdir()
    pack_tar(tmp_path / "all", folder / "VOCtrainval_11-May-2012.tar")
    pack_tar(tmp_path / "all", folder / "benchmark.tgz")
    put(folder, bucket / "packed")
    put(tmp_path / "all", bucket / "unpacked")
    found = [
        examples(
            ask.open_split(
                "voc2012", "train_aug", data_dir=bucket / f"tfds{i}", manual_dir=manual
            )
        )
        for i, manual in enumerate((folder, bucket / "packed", bucket / "unpacked"))
    ]
    assert len(found[0]) == 3
    assert found[1] == found[2] == found[0]


def test_a_copy_on_the_hosts_own_disk(bucket, tmp_path, few_shapes, monkeypatch):
    prepared = ask.prepare("shapes", data_dir=bucket, cache_dir=tmp_path / "cache")
    listener = ask.Listener()
    copied = preparation.copied(prepared, listener)
    assert str(copied.data_path).startswith(f"{tmp_path}/cache/")
    there, here = (open_split(x, "train") for x in (prepared, copied))
    assert examples(there) == examples(here)
    assert there.fingerprint == here.fingerprint
    monkeypatch.setattr(copying, "_copy", None)  # nothing is copied again
    preparation.copied(prepared, listener)
    assert len(listener.lines) == 1
