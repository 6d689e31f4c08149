"""Examples that are kept decoded are the same examples, bit for bit."""

import contextlib
import pickle

import cv2
import numpy as np
import pytest

from refinenet_jax.data import decoded
from refinenet_jax.data.decoded import DecodedSource
from refinenet_jax.data.mixture import Ingredient
from refinenet_jax.data.pipeline import train_batches
from refinenet_jax.data.transforms import (
    ColourJitter,
    RandomBlur,
    RandomCrop,
    RandomFlip,
    RandomRotation,
    RandomScale,
)
from tests.data.records import ingredient, source

FILL = (9, 9, 9)
LIGHT = [RandomScale(0.1, 1.5, 0.0), RandomFlip(0.5), RandomCrop(40, 40, FILL)]
EVERYTHING = [
    RandomScale(0.1, 1.5, 0.0),
    RandomRotation(30.0, FILL),
    *LIGHT[1:],
    ColourJitter(0.4, 0.4, 0.4, 0.1),
    RandomBlur(1.0),
]


def examples(suffix: str):
    """Four pictures, of which much detail is left where they shrink."""
    records = []
    for number in range(4):
        rng = np.random.default_rng(number)
        image = rng.integers(0, 256, (90, 121, 3), np.uint8)
        label = rng.integers(0, 20, (90, 121), np.uint8)
        records.append(
            {
                "image": cv2.imencode(suffix, image)[1].tobytes(),
                "label": cv2.imencode(".png", label)[1].tobytes(),
                "name": str(number).encode(),
            }
        )
    return source(records)


def take(given: Ingredient, transforms, count: int, num_workers: int = 0):
    endless = train_batches(
        [given], transforms, batch_size=4, seed=1, num_workers=num_workers
    )
    with contextlib.closing(iter(endless)) as batches:
        taken = [next(batches) for _ in range(count)]
    return [np.concatenate([batch[key] for batch in taken]) for key in taken[0]]


@pytest.mark.first_cases(3)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("transforms", [LIGHT, EVERYTHING, [RandomCrop(90, 121, FILL)]])
def test_the_same_examples(suffix, transforms):
    class_map = np.roll(np.arange(256, dtype=np.uint8), 3)
    for changes in ({}, {"class_map": class_map}):
        given = ingredient(examples(suffix), **changes)
        kept = ingredient(examples(suffix), keep_decoded=True, **changes)
        for one, other in zip(
            take(given, transforms, 12), take(kept, transforms, 12), strict=True
        ):
            np.testing.assert_array_equal(one, other)


def test_the_same_examples_with_workers():
    given = ingredient(examples(".jpg"))
    kept = ingredient(examples(".jpg"), keep_decoded=True)
    for one, other in zip(take(given, LIGHT, 3), take(kept, LIGHT, 3, 1), strict=True):
        np.testing.assert_array_equal(one, other)


def test_each_is_decoded_once_and_not_written_to(monkeypatch):
    decoding = []
    monkeypatch.setattr(
        decoded,
        "decode_label",
        lambda data, name: decoding.append(name) or np.zeros((90, 121), np.uint8),
    )
    kept = DecodedSource(examples(".png"))
    first = kept[2]
    assert kept[2]["image"] is first["image"] and kept[np.int64(2)] is first
    assert decoding == ["2"] and len(kept) == 4
    for array in (first["label"], first["image"].decode()[0]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    copy = pickle.loads(pickle.dumps(kept))
    assert len(pickle.dumps(kept)) < 2 * len(pickle.dumps(examples(".png")))
    assert copy[2]["name"] == "2" and decoding == ["2", "2"]
