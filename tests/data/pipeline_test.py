import ast
import contextlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import refinenet_jax.data
from refinenet_jax.data import datasets, images, pipeline
from refinenet_jax.data.datasets import Source
from refinenet_jax.data.transforms import RandomCrop, RandomFlip, RandomScale
from refinenet_jax.errors import UserError

HEIGHT, WIDTH = 12, 16
NUM_EXAMPLES = 10
AUGMENT = [
    RandomScale(0.8, 1.6),
    RandomFlip(0.5),
    RandomCrop(HEIGHT, WIDTH, (9, 9, 9)),
]


def record(index: int) -> dict:
    """An example whose label says its index everywhere."""
    rng = np.random.default_rng(index)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    label = np.full((HEIGHT, WIDTH), index, np.uint8)
    return {
        "image": images.encode_png(image),
        "label": images.encode_png(label),
        "name": f"picture {index}".encode(),
    }


def source(num_examples: int = NUM_EXAMPLES) -> Source:
    return Source([record(index) for index in range(num_examples)], "fingerprint")


@contextlib.contextmanager
def batches(transforms=AUGMENT, *, data=None, **changes):
    data = source() if data is None else data
    arguments = {
        "batch_size": 4,
        "seed": 5,
        "process_index": 0,
        "process_count": 1,
        "num_workers": 0,
        "num_threads": 2,
    } | changes
    iterator = iter(pipeline.train_batches(data, transforms, **arguments))
    try:
        yield iterator
    finally:
        iterator.close()


def take(iterator, count: int) -> dict:
    """The next batches, stacked: image [count,B,H,W,3], label [count,B,H,W]."""
    taken = [next(iterator) for _ in range(count)]
    return {key: np.stack([batch[key] for batch in taken]) for key in taken[0]}


def assert_same(one: dict, other: dict) -> None:
    np.testing.assert_array_equal(one["image"], other["image"])
    np.testing.assert_array_equal(one["label"], other["label"])


def test_batch():
    with batches() as iterator:
        batch = next(iterator)
    assert sorted(batch) == ["image", "label"]
    assert batch["image"].shape == (4, HEIGHT, WIDTH, 3)
    assert batch["label"].shape == (4, HEIGHT, WIDTH)
    for array in batch.values():
        assert array.dtype == np.uint8 and array.flags.c_contiguous


def test_epochs_hold_every_example_once_in_another_order():
    with batches([], batch_size=5) as iterator:
        order = take(iterator, 8)["label"][..., 0, 0].reshape(4, NUM_EXAMPLES)
    for epoch in order:
        assert sorted(epoch) == list(range(NUM_EXAMPLES))
    assert len({tuple(epoch) for epoch in order}) == 4


def test_an_example_is_transformed_differently_in_each_epoch():
    with batches(batch_size=NUM_EXAMPLES) as iterator:
        taken = take(iterator, 3)
    for index in range(NUM_EXAMPLES):
        # Found by its label; a crop that is wider than the picture has 255 around it.
        where = taken["label"].min(axis=(2, 3)) == index
        assert where.sum() == 3
        assert len({image.tobytes() for image in taken["image"][where]}) == 3


def test_the_seed_decides():
    with batches() as one, batches() as same, batches(seed=6) as other:
        taken = take(one, 3)
        assert_same(taken, take(same, 3))
        assert np.any(taken["image"] != take(other, 3)["image"])


@pytest.mark.parametrize("process_count", [2, 4])
def test_the_global_batch_does_not_depend_on_the_number_of_processes(process_count):
    with batches(batch_size=8) as iterator:
        alone = take(iterator, 6)
    shares = []
    for process_index in range(process_count):
        with batches(
            batch_size=8 // process_count,
            process_index=process_index,
            process_count=process_count,
        ) as iterator:
            shares.append(take(iterator, 6))
    for key, expected in alone.items():
        together = np.concatenate([share[key] for share in shares], axis=1)
        np.testing.assert_array_equal(together, expected)


def test_resume_is_exact():
    with batches() as iterator:
        take(iterator, 3)
        state = json.loads(json.dumps(iterator.get_state()))
        expected = take(iterator, 6)
        iterator.set_state(state)
        assert iterator.get_state() == state
        assert_same(take(iterator, 6), expected)
    with batches() as iterator:
        iterator.set_state(state)
        assert_same(take(iterator, 6), expected)


def test_resume_is_exact_with_workers_and_with_another_number_of_them():
    with batches() as iterator:
        expected = take(iterator, 8)
    with batches(num_workers=2) as iterator:
        # A state that was taken while batches were read ahead.
        first = take(iterator, 3)
        state = iterator.get_state()
        rest = take(iterator, 5)
        iterator.set_state(state)
        assert_same(take(iterator, 5), rest)
    for key, array in expected.items():
        np.testing.assert_array_equal(np.concatenate([first[key], rest[key]]), array)
    with batches(num_workers=1) as iterator:
        iterator.set_state(state)
        assert_same(take(iterator, 5), rest)


def test_workers_read_prepared_data(shapes_dir):
    data = datasets.open_split("shapes", "train", data_dir=shapes_dir, manual_dir="")
    with batches(data=data) as iterator:
        expected = take(iterator, 3)
    with batches(data=data, num_workers=1) as iterator:
        assert_same(take(iterator, 3), expected)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_one_image_a_step(num_workers):
    with batches(batch_size=4) as iterator:
        expected = take(iterator, 1)
    with batches(batch_size=1, num_workers=num_workers) as iterator:
        one_by_one = take(iterator, 4)
    for key, array in expected.items():
        np.testing.assert_array_equal(one_by_one[key][:, 0], array[0])


def test_resume_is_exact_with_another_number_of_processes():
    with batches(batch_size=8) as iterator:
        take(iterator, 3)
        state = iterator.get_state()
        expected = take(iterator, 2)
    with batches(batch_size=4, process_index=1, process_count=2) as iterator:
        iterator.set_state(state)
        share = take(iterator, 2)
    for key, array in expected.items():
        np.testing.assert_array_equal(share[key], array[:, 4:])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_undecodable_image_reaches_the_caller_as_one_line(num_workers):
    damaged = record(0) | {"image": b"\xff\xd8nothing", "name": b"bad.jpg"}
    with (
        batches(data=Source([damaged], ""), num_workers=num_workers) as iterator,
        pytest.raises(UserError) as caught,
    ):
        next(iterator)
    assert str(caught.value) == "image bad.jpg cannot be decoded: it is truncated"


def fail(example: dict, rng: np.random.Generator) -> dict:
    raise UserError(f"{example['name']} is too small")


def test_an_error_of_a_transform_reaches_the_caller():
    with batches([fail]) as iterator, pytest.raises(UserError) as caught:
        next(iterator)
    assert str(caught.value) in [f"picture {index} is too small" for index in range(10)]


def test_an_empty_split_is_an_error():
    empty = Source([], "")
    with (
        pytest.raises(UserError, match="the training split has no image"),
        batches(data=empty),
    ):
        pass


@pytest.mark.parametrize("process_count", [1, 3, 12])
def test_evaluation_sees_every_example_once_in_order(process_count):
    seen = []
    for process_index in range(process_count):
        examples = list(
            pipeline.eval_examples(
                source(),
                process_index=process_index,
                process_count=process_count,
                num_threads=2,
            )
        )
        names = [example["name"] for example in examples]
        numbers = range(process_index, NUM_EXAMPLES, process_count)
        assert names == [f"picture {number}" for number in numbers]
        for number, example in zip(numbers, examples, strict=True):
            assert example["image"].shape == (HEIGHT, WIDTH, 3)
            assert np.all(example["label"] == number)
        seen += names
    assert len(seen) == len(set(seen)) == NUM_EXAMPLES


def test_evaluation_reports_the_file():
    data = Source([record(0), record(1) | {"label": b"", "name": b"bad.png"}], "")
    examples = pipeline.eval_examples(
        data, process_index=0, process_count=1, num_threads=1
    )
    next(examples)
    with pytest.raises(UserError, match="^label bad.png cannot be decoded"):
        next(examples)


def imported_by(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_data_code_imports_neither_jax_nor_tensorflow_nor_the_configuration():
    """Its own statements: grain imports jax for itself."""
    folder = pathlib.Path(refinenet_jax.data.__path__[0])
    files = sorted(folder.rglob("*.py"))
    assert len(files) >= 9
    for path in files:
        for name in imported_by(path):
            assert name.split(".")[0] not in ("jax", "flax", "tensorflow")
            assert not name.startswith("refinenet_jax.config")


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("refinenet_jax.data.transforms", ("jax", "tensorflow", "tensorflow_datasets")),
        ("refinenet_jax.data.pipeline", ("tensorflow",)),
        ("refinenet_jax.data.builders.voc2012", ("tensorflow", "jax")),
        ("refinenet_jax.data.datasets", ("tensorflow", "jax")),
    ],
)
def test_what_an_import_brings_with_it(module, absent):
    program = f"import sys, {module}; print([m for m in {absent} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
