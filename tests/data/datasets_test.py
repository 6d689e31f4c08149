import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from refinenet_jax.data import datasets
from refinenet_jax.data.builders import shapes
from refinenet_jax.errors import UserError
from tests.data import ask

NAMES = [
    "ade20k",
    "camvid",
    "cityscapes",
    "coco_stuff_10k",
    "coco_stuff_164k",
    "folder",
    "nyudv2",
    "pascal_context",
    "pascal_context_59",
    "person_part",
    "shapes",
    "sunrgbd",
    "voc2012",
]


def test_lookup():
    voc = ask.lookup("voc2012")
    assert voc.num_classes == len(voc.class_names) == len(voc.palette) == 21
    assert voc.splits == ("train", "val", "trainval", "train_aug")
    classes = {"ade20k": 150, "camvid": 11, "cityscapes": 19, "coco_stuff_10k": 171}
    classes |= {"coco_stuff_164k": 171, "nyudv2": 40, "pascal_context": 60}
    classes |= {"pascal_context_59": 59, "person_part": 7, "sunrgbd": 37}
    for name, number in classes.items():
        assert ask.lookup(name).num_classes == number


def test_an_unknown_name_lists_the_known_ones():
    message = rf"config\.data\.name='voc'; known: {', '.join(NAMES)}"
    with pytest.raises(UserError, match=message):
        ask.lookup("voc")


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"folder"}))
def test_builders_can_be_made_and_pickled(tmp_path, name):
    found = datasets.builder(ask.request(name, data_dir=tmp_path))
    assert found.name == name
    assert pickle.loads(pickle.dumps(found)).request == found.request


def test_an_unknown_split_lists_the_known_ones(tmp_path, writer):
    message = "split 'dev' of voc2012; known: train, val, trainval, train_aug"
    folder = writer.voc(tmp_path / "voc", ["a"], ["b"])
    with pytest.raises(UserError, match=message):
        ask.open_split("voc2012", "dev", data_dir=tmp_path / "tfds", manual_dir=folder)


def test_source(shapes_dir):
    source = ask.open_split("shapes", "val", data_dir=shapes_dir, manual_dir="")
    assert len(source) == 100
    assert sorted(source[99]) == ["image", "label", "name"]
    assert [type(source[0][key]) for key in sorted(source[0])] == [bytes, bytes, str]
    copy = pickle.loads(pickle.dumps(source))
    assert copy[99] == source[99] and copy.fingerprint == source.fingerprint


def test_the_fingerprint_tells_splits_and_origins_apart(tmp_path, writer, shapes_dir):
    def fingerprint(name, split, data_dir, manual_dir):
        return ask.open_split(
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
        return ask.prepare(
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
    ask.prepare("shapes", data_dir=shapes_dir, manual_dir="")


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
        ask.prepare("shapes", data_dir=str(tmp_path), manual_dir="")
    assert not list((tmp_path / "shapes").iterdir())
    monkeypatch.setattr(shapes, "draw_scene", draw)
    source = ask.open_split("shapes", "val", data_dir=str(tmp_path), manual_dir="")
    assert len(source) == 2


def test_of_two_that_prepare_at_once_one_waits_and_both_have_the_data(
    tmp_path, few_shapes, monkeypatch
):
    draw = shapes.draw_scene
    listeners = [ask.Listener(), ask.Listener()]

    def said(beginning):
        lines = [line for listener in listeners for line in listener.lines]
        return [line for line in lines if line.startswith(beginning)]

    def slowly(split, index):
        while not said("waiting"):
            time.sleep(0.01)
        return draw(split, index)

    monkeypatch.setattr(shapes, "draw_scene", slowly)
    with ThreadPoolExecutor() as threads:
        sources = list(
            threads.map(
                lambda listener: ask.open_split(
                    "shapes", "val", data_dir=tmp_path, listener=listener
                ),
                listeners,
            )
        )
    assert [len(source) for source in sources] == [2, 2]
    assert said("preparing") == [f"preparing shapes in {tmp_path}/shapes/1.1.0"]
    [line] = said("waiting")
    assert line.startswith(f"waiting for preparing shapes in {tmp_path} by process ")


@pytest.mark.slow
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(
            UserError, match=rf"shapes cannot be prepared in {tmp_path}"
        ):
            ask.prepare("shapes", data_dir=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "shapes").iterdir())
    assert len(ask.open_split("shapes", "val", data_dir=tmp_path)) == 100


def test_a_killed_preparation_is_not_taken_for_a_finished_one(tmp_path, few_shapes):
    program = f"""
import os, signal

from refinenet_jax.data.builders import shapes
from tests.data import ask
draw = shapes.draw_scene
def killed(split, index):
    if split == "val":
        os.kill(os.getpid(), signal.SIGKILL)
    return draw(split, index)
shapes.draw_scene = killed
shapes.SPLIT_SIZES = {{"train": 6, "val": 2}}
ask.prepare("shapes", data_dir={str(tmp_path)!r}, manual_dir="")
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=False
    )
    assert result.returncode == -signal.SIGKILL
    source = ask.open_split("shapes", "val", data_dir=str(tmp_path), manual_dir="")
    assert len(source) == 2


def camvid_of(folder, tmp_path, **options):
    return ask.open_split(
        "camvid", "train", data_dir=tmp_path / "tfds", manual_dir=folder, **options
    )


def test_files_that_changed_are_prepared_again(tmp_path, writer):
    folder = writer.camvid(tmp_path / "camvid")
    before = camvid_of(folder, tmp_path)
    listener = ask.Listener()
    again = camvid_of(folder, tmp_path, listener=listener)
    assert again.fingerprint == before.fingerprint and listener.lines == []
    writer.camvid(tmp_path / "more", count=5)
    shutil.copytree(tmp_path / "more", folder, dirs_exist_ok=True)
    after = camvid_of(folder, tmp_path, listener=listener)
    assert len(after) == 5 and after.fingerprint != before.fingerprint
    assert listener.lines == [f"files in {folder} changed: preparing camvid again"]
    assert listener.units["preparing train"] == [5, 5]
    assert [p.name for p in (tmp_path / "tfds" / "camvid").iterdir()] == ["1.1.0"]


def test_what_was_prepared_stays_when_the_changed_files_are_damaged(tmp_path, writer):
    folder = writer.camvid(tmp_path / "camvid")
    camvid_of(folder, tmp_path)
    prepared = tmp_path / "tfds" / "camvid" / "1.1.0"
    files = {path.name: path.read_bytes() for path in prepared.iterdir()}
    image = min((folder / "train").iterdir())
    whole = image.read_bytes()
    image.write_bytes(whole[:-30])
    with pytest.raises(UserError, match=rf"{image} cannot be decoded.*damaged='skip'"):
        camvid_of(folder, tmp_path)
    assert {path.name: path.read_bytes() for path in prepared.iterdir()} == files
    image.write_bytes(whole)
    assert len(camvid_of(folder, tmp_path)) == 3


def test_damaged_files_are_left_out_where_asked(tmp_path, writer):
    folder = writer.camvid(tmp_path / "camvid")
    image = sorted((folder / "train").iterdir())[1]
    label = min((folder / "valannot").iterdir())
    image.write_bytes(image.read_bytes()[:-30])
    label.write_bytes(b"")
    source = camvid_of(folder, tmp_path, damaged="skip")
    assert len(source) == 2 and image.stem not in {source[0]["name"], source[1]["name"]}
    assert len(source.left_out) == 2
    assert str(image) in source.left_out[0] and str(label) in source.left_out[1]
    # Who wants to stop is not given the rest without a word.
    with pytest.raises(UserError, match=r"without 2 damaged files .*'skip' .* delete"):
        camvid_of(folder, tmp_path)


def test_a_split_with_damaged_files_alone_is_an_error(tmp_path, writer):
    folder = writer.camvid(tmp_path / "camvid")
    for image in (folder / "val").iterdir():
        image.write_bytes(b"")
    with pytest.raises(UserError, match="split 'val' of camvid has no readable image"):
        camvid_of(folder, tmp_path, damaged="skip")


def test_class_pixels(tmp_path, writer):
    folder = writer.camvid(tmp_path / "camvid", count=4)
    source = camvid_of(folder, tmp_path)
    listener = ask.Listener()
    counts = source.class_pixels(listener)
    assert counts.shape == (4, 12) and counts.dtype == np.int64
    for row, index in zip(counts, range(4), strict=True):
        raw = writer.labels[source[index]["name"]]
        assert row.tolist() == [(raw == value).sum() for value in range(12)]
    both = ask.open_split("camvid", "trainval", data_dir=tmp_path / "tfds")
    val = ask.open_split("camvid", "val", data_dir=tmp_path / "tfds")
    expected = [*counts.tolist(), *val.class_pixels(listener).tolist()]
    assert both.class_pixels(listener).tolist() == expected
    assert listener.units == {}  # from the files that preparing wrote


@pytest.mark.parametrize("fault", ["absent", "empty", "cut", "garbled", "folder"])
def test_class_pixels_are_counted_anew_where_their_file_is_not_whole(
    tmp_path, writer, fault
):
    folder = writer.camvid(tmp_path / "camvid", count=4)
    both = ask.open_split(
        "camvid", "trainval", data_dir=tmp_path / "tfds", manual_dir=folder
    )
    expected = both.class_pixels(ask.Listener()).tolist()
    file = tmp_path / "tfds/camvid/1.1.0/class_pixels-val.counts"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    bad = {"empty": b"", "cut": content[:-1], "garbled": content}
    file.unlink()
    if fault == "folder":
        file.mkdir()
    elif fault != "absent":
        file.write_bytes(bad[fault])
    listener = ask.Listener()
    assert both.class_pixels(listener).tolist() == expected
    assert listener.units == {"counting classes": [4, 4]}
    again = ask.Listener()
    assert both.class_pixels(again).tolist() == expected
    assert bool(again.units) == (fault == "folder")


def test_what_another_process_checked_is_found_without_a_look_at_the_files(
    tmp_path, writer
):
    folder = writer.camvid(tmp_path / "camvid")
    where = {"data_dir": tmp_path / "tfds", "manual_dir": folder}
    request = ask.request("camvid", **where)
    assert datasets.find_prepared(request, "") is None
    fingerprint = datasets.fingerprint_of(ask.prepare("camvid", **where))
    shutil.rmtree(folder)
    found = datasets.find_prepared(request, fingerprint)
    assert len(datasets.open_split(found, "train")) == 3
    assert datasets.find_prepared(request, "0" * 64) is None


def test_damaged_prepared_data_is_named(tmp_path, few_shapes):
    folder = tmp_path / "shapes" / "1.1.0"
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match=rf"{folder} is no prepared shapes: delete"):
        ask.prepare("shapes", data_dir=str(tmp_path), manual_dir="")
    folder.rmdir()
    ask.prepare("shapes", data_dir=str(tmp_path), manual_dir="")
    metadata = folder / "metadata.json"
    written = metadata.read_text()
    metadata.write_text("{}")
    with pytest.raises(UserError, match=rf"{folder} is no prepared shapes: delete"):
        ask.prepare("shapes", data_dir=str(tmp_path), manual_dir="")
    metadata.write_text(written)
    next(folder.glob("*val.array_record*")).unlink()
    with pytest.raises(UserError, match=rf"val.* is missing: delete {folder} to have"):
        ask.prepare("shapes", data_dir=str(tmp_path), manual_dir="")
