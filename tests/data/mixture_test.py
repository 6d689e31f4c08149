import pickle

import grain
import numpy as np
import pytest

from refinenet_jax.data.mixture import decode, mixed_examples
from refinenet_jax.data.transforms import Example
from refinenet_jax.errors import UserError
from refinenet_jax.pictures import encode
from tests.data.records import HEIGHT, WIDTH, ingredient, numbered, record, source


def names(mixed: grain.MapDataset, positions) -> list[int]:
    return [
        int(mixed[position]["name"].removeprefix("picture ")) for position in positions
    ]


def epochs(order: list[int], length: int) -> list[tuple[int, ...]]:
    assert len(order) % length == 0
    return [
        tuple(order[start : start + length]) for start in range(0, len(order), length)
    ]


def with_a_number(example: Example, rng: np.random.Generator) -> Example:
    return {"name": example["name"], "number": int(rng.integers(2**32))}


def test_one_ingredient_is_no_mixture():
    """A run that began before there were mixtures goes on with the same numbers."""
    examples = numbered(0, 11)
    mixed = mixed_examples([ingredient(examples, weight=0.3)], 5)
    alone = grain.MapDataset.source(examples).seed(5).shuffle().repeat().map(decode)
    expected = alone.random_map(with_a_number)
    given = mixed.random_map(with_a_number)
    assert [given[i] for i in range(50)] == [expected[i] for i in range(50)]


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ((3.0, 1.0), (0.75, 0.25)),
        ((1.0, 1.0), (0.5, 0.5)),
        ((0.5, 0.3, 0.2), (0.5, 0.3, 0.2)),
        ((1, 1 / 3), (0.75, 0.25)),
        ((0.1, 0.7), (0.125, 0.875)),
    ],
)
def test_shares_hold_in_every_stretch(weights, shares):
    # So many because grain takes milliseconds to shuffle a few.
    sources = [numbered(1000 * number, 1000 * number + 500) for number in range(3)]
    mixed = mixed_examples(
        [
            ingredient(source, weight=weight)
            for source, weight in zip(sources, weights, strict=False)
        ],
        0,
    )
    for start in (0, 10**12):
        drawn = np.array(names(mixed, range(start, start + 1000))) // 1000
        for number, share in enumerate(shares):
            ahead = np.cumsum((drawn == number) - share)
            # The surplus over the share, between any two positions, in examples.
            assert ahead.max() - ahead.min() < 1.2


def test_ratios_to_the_smallest_weight_hold_to_a_hundredth():
    both = [
        ingredient(numbered(1000 * number, 1000 * number + 500), weight=weight)
        for number, weight in enumerate((1.0, 2.995))
    ]
    drawn = np.array(names(mixed_examples(both, 0), range(5000))) // 1000
    ratio = np.sum(drawn == 1) / np.sum(drawn == 0)
    assert abs(ratio / 2.995 - 1) < 0.01


def test_each_ingredient_walks_through_its_own_epochs_in_its_own_order():
    one, other = numbered(0, 5), numbered(10, 17)
    mixed = mixed_examples([ingredient(one, weight=2.0), ingredient(other)], 1)
    drawn = names(mixed, range(3 * 70))
    for first, end, length in ((0, 5, 140), (10, 17, 70)):
        own = [number for number in drawn if first <= number < end]
        assert len(own) == length
        walked = epochs(own, end - first)
        assert all(sorted(epoch) == list(range(first, end)) for epoch in walked)
        assert len(set(walked)) > 1
    # The same source twice is not drawn in the same order twice.
    twice = mixed_examples([ingredient(one), ingredient(one)], 1)
    drawn = names(twice, range(100))
    assert drawn[::2] != drawn[1::2]


@pytest.mark.slow
def test_any_position_at_any_time_in_any_process():
    present = np.arange(6)[:, np.newaxis] % 3 == np.arange(4)
    ingredients = [
        ingredient(numbered(0, 5), weight=2.0),
        ingredient(numbered(10, 16), present=present, images_per_class=1),
    ]
    expected = names(mixed_examples(ingredients, 1), range(300))
    mixed = mixed_examples(ingredients, 1)
    backwards = names(mixed, reversed(range(300)))
    assert backwards[::-1] == expected
    copy = pickle.loads(pickle.dumps(mixed))
    assert names(copy, range(300)) == expected
    assert names(mixed_examples(ingredients, 2), range(300)) != expected


def test_only_the_examples_that_are_kept():
    indices = np.array([6, 2, 3])
    mixed = mixed_examples([ingredient(numbered(0, 9), indices=indices)], 0)
    for epoch in epochs(names(mixed, range(30)), 3):
        assert sorted(epoch) == [2, 3, 6]


def test_a_class_balanced_order():
    # Examples 0..7 hold class 0, example 8 class 1; example 9 has no class.
    present = np.zeros((10, 3), bool)
    present[:8, 0] = present[8, 1] = True
    balanced = {"present": present, "images_per_class": 2}
    mixed = mixed_examples([ingredient(numbered(0, 10), **balanced)], 0)
    drawn = names(mixed, range(300))
    for epoch in epochs(drawn, 3):
        assert len(set(epoch)) == 3 and 8 in epoch and 9 not in epoch
    assert set(drawn) == set(range(9))
    other = mixed_examples([ingredient(numbered(0, 10), **balanced)], 1)
    assert names(other, range(300)) != drawn


def test_a_class_balanced_order_of_the_examples_that_are_kept():
    present = np.zeros((10, 2), bool)
    present[:8, 0] = present[8, 1] = True
    kept = ingredient(
        numbered(0, 10),
        indices=np.array([9, 8, 5, 4]),
        present=present,
        images_per_class=1,
    )
    drawn = names(mixed_examples([kept], 0), range(100))
    for epoch in epochs(drawn, 2):
        assert sorted(epoch) in ([4, 8], [5, 8])
    assert set(drawn) == {4, 5, 8}


def test_class_ids_become_those_of_the_mixture():
    class_map = np.full(256, 255, np.uint8)
    class_map[:4] = (7, 255, 9, 0)
    partly_ignored = record(2)
    label = np.full((HEIGHT, WIDTH), 2, np.uint8)
    label[1, 3] = 255
    partly_ignored["label"] = encode(label, "PNG")
    mapped = source([record(0), record(1), partly_ignored, record(3)])
    mixed = mixed_examples(
        [ingredient(mapped, class_map=class_map), ingredient(numbered(10, 12))], 0
    )
    seen = {}
    for position in range(20):
        example = mixed[position]
        label, name = example["label"], example["name"]
        assert label.dtype == np.uint8 and label.flags.c_contiguous
        seen[name] = np.unique(label).tolist()
        assert name != "picture 2" or label[1, 3] == 255
    ids = {0: [7], 1: [255], 2: [9, 255], 3: [0], 10: [10], 11: [11]}
    assert seen == {f"picture {number}": values for number, values in ids.items()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": 0.0}, "^a data set is mixed in with weight 0: choose one above 0"),
        ({"weight": -1.0}, "weight -1:"),
        ({"weight": float("nan")}, "weight nan:"),
        ({"indices": np.array([], int)}, "^none of the 4 images of a training split"),
        ({"present": np.zeros((4, 2), bool)}, "^class-balanced sampling needs labels"),
    ],
)
def test_an_ingredient_that_gives_nothing(changes, message):
    ingredients = [
        ingredient(numbered(0, 4)),
        ingredient(numbered(0, 4), **changes),
    ]
    with pytest.raises(UserError, match=message):
        mixed_examples(ingredients, 0)
