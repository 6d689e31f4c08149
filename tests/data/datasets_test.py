import pickle
import shutil
import signal
import subprocess
import sys

import pytest

from refinenet_jax.data import datasets
from refinenet_jax.data.builders import shapes
from refinenet_jax.errors import UserError


def test_lookup():
    voc = datasets.lookup("voc2012")
    assert voc.num_classes == len(voc.class_names) == len(voc.palette) == 21
    assert voc.splits["train_aug"] == "train+sbd"
    assert datasets.lookup("camvid").num_classes == 11
    assert datasets.lookup("shapes").num_classes == 6


def test_an_unknown_name_lists_the_known_ones():
    message = r"config\.data\.name='voc'; known: camvid, shapes, voc2012"
    with pytest.raises(UserError, match=message):
        datasets.lookup("voc")


def test_an_unknown_split_lists_the_known_ones(tmp_path):
    message = "split 'dev' of voc2012; known: train, val, trainval, train_aug"
    with pytest.raises(UserError, match=message):
        datasets.open_split("voc2012", "dev", data_dir=str(tmp_path), manual_dir="")
    assert not list(tmp_path.iterdir())


def test_source(shapes_dir):
    source = datasets.open_split("shapes", "val", data_dir=shapes_dir, manual_dir="")
    assert len(source) == 100
    assert sorted(source[99]) == ["image", "label", "name"]
    assert [type(source[0][key]) for key in sorted(source[0])] == [bytes, bytes, str]
    copy = pickle.loads(pickle.dumps(source))
    assert copy[99] == source[99] and copy.fingerprint == source.fingerprint


def test_the_fingerprint_tells_splits_and_origins_apart(tmp_path, writer, shapes_dir):
    def fingerprint(name, split, data_dir, manual_dir):
        return datasets.open_split(
            name, split, data_dir=str(data_dir), manual_dir=str(manual_dir)
        ).fingerprint

    one = writer.camvid(tmp_path / "one")
    other = writer.camvid(tmp_path / "other", count=4)
    shutil.copytree(one, tmp_path / "copy")
    found = fingerprint("camvid", "train", tmp_path / "a", one)
    assert found == fingerprint("camvid", "train", tmp_path / "b", tmp_path / "copy")
    assert found != fingerprint("camvid", "val", tmp_path / "a", one)
    assert found != fingerprint("camvid", "train", tmp_path / "c", other)
    assert found != fingerprint("shapes", "train", shapes_dir, "")


def test_another_manual_dir_is_not_silently_ignored(tmp_path, writer):
    one = writer.camvid(tmp_path / "one")
    other = writer.camvid(tmp_path / "other", count=4)
    shutil.copytree(one, tmp_path / "copy")

    def prepare(manual_dir):
        return datasets.prepare(
            "camvid", data_dir=str(tmp_path / "tfds"), manual_dir=str(manual_dir)
        )

    prepared = prepare(one).data_dir
    prepare(tmp_path / "copy")
    prepare("")
    with pytest.raises(UserError) as caught:
        prepare(other)
    message = str(caught.value)
    for part in (str(one), str(other), "config.data.dir", f"delete {prepared}"):
        assert part in message
    shutil.rmtree(prepared)
    assert prepare(other).info.splits["train"].num_examples == 4


def test_prepared_data_is_not_prepared_again(shapes_dir, monkeypatch):
    monkeypatch.setattr(shapes, "draw_scene", None)
    datasets.prepare("shapes", data_dir=shapes_dir, manual_dir="")


@pytest.fixture
def few_shapes(monkeypatch):
    monkeypatch.setattr(shapes, "SPLIT_SIZES", {"train": 6, "val": 2})


def test_an_interrupted_preparation_leaves_nothing(tmp_path, few_shapes, monkeypatch):
    draw = shapes.draw_scene

    def interrupted(split, index):
        if (split, index) == ("val", 1):
            raise KeyboardInterrupt
        return draw(split, index)

    monkeypatch.setattr(shapes, "draw_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        datasets.prepare("shapes", data_dir=str(tmp_path), manual_dir="")
    assert not list((tmp_path / "shapes").iterdir())
    monkeypatch.setattr(shapes, "draw_scene", draw)
    source = datasets.open_split("shapes", "val", data_dir=str(tmp_path), manual_dir="")
    assert len(source) == 2


def test_a_killed_preparation_is_not_taken_for_a_finished_one(tmp_path, few_shapes):
    program = f"""
import os, signal
from refinenet_jax.data import datasets
from refinenet_jax.data.builders import shapes
draw = shapes.draw_scene
def killed(split, index):
    if split == "val":
        os.kill(os.getpid(), signal.SIGKILL)
    return draw(split, index)
shapes.draw_scene = killed
shapes.SPLIT_SIZES = {{"train": 6, "val": 2}}
datasets.prepare("shapes", data_dir={str(tmp_path)!r}, manual_dir="")
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False
    )
    assert result.returncode == -signal.SIGKILL
    source = datasets.open_split("shapes", "val", data_dir=str(tmp_path), manual_dir="")
    assert len(source) == 2


def test_damaged_prepared_data_is_named(tmp_path, few_shapes):
    folder = tmp_path / "shapes" / "1.0.0"
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match=rf"{folder} is no prepared shapes: delete"):
        datasets.prepare("shapes", data_dir=str(tmp_path), manual_dir="")
    folder.rmdir()
    datasets.prepare("shapes", data_dir=str(tmp_path), manual_dir="")
    metadata = folder / "metadata.json"
    written = metadata.read_text()
    metadata.write_text("{}")
    with pytest.raises(UserError, match=rf"{folder} is no prepared shapes: delete"):
        datasets.prepare("shapes", data_dir=str(tmp_path), manual_dir="")
    metadata.write_text(written)
    next(folder.glob("*val*")).unlink()
    with pytest.raises(UserError, match=rf"val.* is missing: delete {folder} to have"):
        datasets.prepare("shapes", data_dir=str(tmp_path), manual_dir="")
