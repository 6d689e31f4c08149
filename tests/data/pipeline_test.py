import contextlib
import json

import numpy as np
import pytest

from refinenet_jax.data import pipeline
from refinenet_jax.data.mixture import Ingredient
from refinenet_jax.data.transforms import RandomCrop, RandomFlip, RandomScale
from refinenet_jax.errors import UserError
from tests.data import ask
from tests.data.records import HEIGHT, WIDTH, ingredient, numbered, record, source

NUM_EXAMPLES = 10
ALL = numbered(0, NUM_EXAMPLES)
AUGMENT = [
    RandomScale(0.8, 1.6, 0.0),
    RandomFlip(0.5),
    RandomCrop(HEIGHT, WIDTH, (9, 9, 9)),
]


@contextlib.contextmanager
def batches(transforms=AUGMENT, *, ingredients=None, **changes):
    ingredients = [ingredient(ALL)] if ingredients is None else ingredients
    arguments = {
        "batch_size": 4,
        "seed": 5,
        "process_index": 0,
        "process_count": 1,
        "num_workers": 0,
        "num_threads": 2,
    } | changes
    iterator = iter(pipeline.train_batches(ingredients, transforms, **arguments))
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


@pytest.mark.slow
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
    data = ask.open_split("shapes", "train", data_dir=shapes_dir)
    ingredients = [ingredient(data)]
    with batches(ingredients=ingredients) as iterator:
        expected = take(iterator, 3)
    with batches(ingredients=ingredients, num_workers=1) as iterator:
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


@pytest.mark.first_cases(1)
@pytest.mark.parametrize(
    ("mixed", "num_workers"),
    [
        (False, 0),
        (True, 0),
        (True, 2),
        pytest.param(False, 2, marks=pytest.mark.slow),  # starts workers eight times
    ],
)
def test_another_global_batch_goes_on_at_the_next_example(mixed, num_workers):
    """Also where it does not divide the examples that were taken."""
    ingredients = mixture() if mixed else None
    with batches(ingredients=ingredients, batch_size=1) as iterator:
        expected = take(iterator, 12 + 2 * 10)
    with batches(ingredients=ingredients, num_workers=num_workers) as iterator:
        before = take(iterator, 3)
        state = json.loads(json.dumps(iterator.get_state()))
    shares = []
    for process_index in range(2):
        with batches(
            ingredients=ingredients,
            batch_size=5,
            process_index=process_index,
            process_count=2,
            num_workers=num_workers,
        ) as iterator:
            iterator.set_state(state)
            shares.append(take(iterator, 2))
            assert iterator.get_state() == {"next_example": 12 + 2 * 10}
    for key, array in expected.items():
        after = np.concatenate([share[key] for share in shares], axis=1)
        found = [*np.concatenate(before[key]), *np.concatenate(after)]
        np.testing.assert_array_equal(found, array[:, 0])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_one_example_is_enough(num_workers):
    one = [ingredient(numbered(3, 4))]
    with batches(ingredients=one, num_workers=num_workers) as iterator:
        taken = take(iterator, 3)
    assert taken["image"].shape == (3, 4, HEIGHT, WIDTH, 3)


def mixture() -> list[Ingredient]:
    """Examples 0..9 in a class-balanced order, 20..24 at a third of their rate."""
    present = np.arange(NUM_EXAMPLES)[:, np.newaxis] % 4 == np.arange(3)
    class_map = np.arange(256, dtype=np.uint8)
    class_map[20:25] = range(30, 35)
    return [
        ingredient(ALL, weight=0.75, present=present, images_per_class=2),
        ingredient(numbered(20, 25), weight=0.25, class_map=class_map),
    ]


def test_a_mixture_keeps_its_shares_in_every_batch():
    with batches([], ingredients=mixture(), batch_size=8) as iterator:
        drawn = take(iterator, 10)["label"][..., 0, 0]
    assert np.all(np.sum(drawn >= 30, axis=1) == 2)
    # Two of each of three classes, then the next epoch: 3, 7 have none of them.
    assert sorted(set(drawn[drawn < 30].tolist())) == [0, 1, 2, 4, 5, 6, 8, 9]
    assert sorted(set(drawn[drawn >= 30].tolist())) == [30, 31, 32, 33, 34]


def test_a_mixture_is_the_same_with_workers_and_for_each_process_and_after_resume():
    with batches(ingredients=mixture(), batch_size=8) as iterator:
        expected = take(iterator, 8)
        again = take(iterator, 8)
        iterator.set_state({"next_example": 0})
        assert_same(take(iterator, 8), expected)
        assert_same(take(iterator, 8), again)
    for process_index in range(2):
        with batches(
            ingredients=mixture(),
            batch_size=4,
            process_index=process_index,
            process_count=2,
            num_workers=process_index,
        ) as iterator:
            iterator.set_state({"next_example": 24})
            share = take(iterator, 5)
        rows = np.s_[3:, 4 * process_index : 4 * process_index + 4]
        for key, array in expected.items():
            np.testing.assert_array_equal(share[key], array[rows])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_undecodable_image_reaches_the_caller_as_one_line(num_workers):
    damaged = record(0) | {"image": b"\xff\xd8nothing", "name": b"bad.jpg"}
    ingredients = [ingredient(source([damaged]))]
    with (
        batches(ingredients=ingredients, num_workers=num_workers) as iterator,
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
    empty = [ingredient(source([]))]
    with (
        pytest.raises(UserError, match="the training split has no image"),
        batches(ingredients=empty),
    ):
        pass


@pytest.mark.parametrize("process_count", [1, 3, 12])
def test_evaluation_sees_every_example_once_in_order(process_count):
    seen = []
    for process_index in range(process_count):
        examples = list(
            pipeline.eval_examples(
                ALL,
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
    data = source([record(0), record(1) | {"label": b"", "name": b"bad.png"}])
    examples = pipeline.eval_examples(
        data, process_index=0, process_count=1, num_threads=1
    )
    next(examples)
    with pytest.raises(UserError, match="^label bad.png cannot be decoded"):
        next(examples)
