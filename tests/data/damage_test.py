"""Prepared data is what was prepared, or is refused by the name of its file."""

import json
import shutil

import numpy as np
import pytest

from refinenet_jax.data import pipeline
from refinenet_jax.errors import UserError
from tests.data import ask
from tests.data.pipeline_test import AUGMENT
from tests.data.records import ingredient

NUM_FLIPS = 60


@pytest.fixture(scope="module")
def whole(shapes_dir):
    """Every example of val."""
    source = ask.open_split("shapes", "val", data_dir=shapes_dir)
    return [source[index] for index in range(len(source))]


@pytest.fixture
def copy(shapes_dir, tmp_path):
    """Shapes prepared, to be damaged."""
    shutil.copytree(shapes_dir, tmp_path / "copy")
    return tmp_path / "copy"


def flip(path, position, bit):
    with path.open("r+b") as file:
        file.seek(position)
        [byte] = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 1 << bit]))


@pytest.mark.slow
def test_a_flipped_bit_gives_the_same_examples_or_an_error_with_its_file(copy, whole):
    """ArrayRecord's own hashes tell; this holds them to it, wherever the bit is."""
    [file] = copy.rglob("*val.array_record*")
    rng = np.random.default_rng(0)
    size, refused = file.stat().st_size, 0
    ends = [*range(0, 200, 20), *range(size - 66_000, size, 6_000)]
    for position in [*rng.integers(0, size, NUM_FLIPS).tolist(), *ends]:
        bit = int(rng.integers(8))
        flip(file, position, bit)
        # Opened anew: a reader keeps the file's own table.
        source = ask.open_split("shapes", "val", data_dir=copy)
        for index, expected in enumerate(whole):
            try:
                found = source[index]
            except UserError as error:
                assert f"{file} cannot be read or is damaged" in str(error)
                assert "\n" not in str(error)
                refused += 1
            else:
                assert found == expected, position
        flip(file, position, bit)
    assert refused > NUM_FLIPS / 2


@pytest.mark.parametrize("fault", ["cut", "empty", "zeros", "folder"])
def test_a_file_that_is_not_whole_is_named(fault, copy):
    [file] = copy.rglob("*val.array_record*")
    content = file.read_bytes()
    file.unlink()
    if fault == "folder":
        file.mkdir()
    else:
        changed = {"cut": content[:-100], "empty": b"", "zeros": bytes(len(content))}
        file.write_bytes(changed[fault])
    source = ask.open_split("shapes", "val", data_dir=copy)
    with pytest.raises(UserError, match=f"{file} cannot be read or is damaged"):
        source[0]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_training_ends_with_the_name_of_the_file(num_workers, copy):
    [file] = copy.rglob("*train.array_record*")
    for position in range(1_000, file.stat().st_size - 70_000, 20_000):
        flip(file, position, 0)
    batches = pipeline.train_batches(
        [ingredient(ask.open_split("shapes", "train", data_dir=copy))],
        AUGMENT,
        batch_size=32,
        seed=0,
        process_index=0,
        process_count=1,
        num_workers=num_workers,
        num_threads=2,
    )
    iterator = iter(batches)
    try:
        with pytest.raises(UserError, match=f"{file} cannot be read or is damaged"):
            next(iterator)
    finally:
        iterator.close()


@pytest.mark.parametrize("name", ["dataset_info.json", "metadata.json"])
@pytest.mark.parametrize("fault", ["empty", "cut", "garbled", "list", "folder"])
def test_what_tfds_keeps_beside_the_examples_is_refused_in_one_line(name, fault, copy):
    folder = copy / "shapes/1.1.0"
    file = folder / name
    content = file.read_bytes()
    file.unlink()
    if fault == "folder":
        file.mkdir()
    else:
        changed = {
            "empty": b"",
            "cut": content[:-20],
            "garbled": b"\xff\xfe" + content,
            "list": b"[1]",
        }
        file.write_bytes(changed[fault])
    with pytest.raises(UserError, match=f"{folder} is (not as it was|no) prepared"):
        ask.prepare("shapes", data_dir=copy)


def test_another_number_of_examples_is_not_taken_for_the_right_one(copy):
    file = copy / "shapes/1.1.0/dataset_info.json"
    info = json.loads(file.read_text())
    [split] = [split for split in info["splits"] if split["name"] == "train"]
    [length] = split["shardLengths"]
    split["shardLengths"] = [str(int(length) - 1)]
    file.write_text(json.dumps(info))
    with pytest.raises(UserError, match="split train has another number of examples"):
        ask.prepare("shapes", data_dir=copy)
