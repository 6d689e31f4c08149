"""Prints how many augmented crops a second the input pipeline makes.

    python benchmarks/input_pipeline.py --peer

Photograph-like JPEGs and labels of VOC's size, from memory, become 512² crops by the light
recipe: decoded, short edge and random scale, mirrored, cropped. Beside it, decoding alone
on as many threads; with --peer, a torch DataLoader of the same operations and workers.
"""

import concurrent.futures
import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
from absl import app, flags
from parts.tables import interleaved, machine, table

from refinenet_jax.data.mixture import Ingredient, decode
from refinenet_jax.data.pipeline import train_batches
from refinenet_jax.data.source import Source
from refinenet_jax.data.transforms import (
    ClampShortEdge,
    RandomCrop,
    RandomFlip,
    RandomScale,
    Transform,
)
from refinenet_jax.pictures import encode
from refinenet_jax.tuning import tune

_CROP_SIZE = flags.DEFINE_integer("crop_size", 512, "Height and width")
_BATCHES = flags.DEFINE_integer("batches", 12, "Of 16 that a call takes")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Calls of each to time")
_PEER = flags.DEFINE_boolean("peer", False, "A torch DataLoader, too")

_HEIGHT, _WIDTH = 375, 500
_BATCH_SIZE = 16
_IMAGES = 1464  # as VOC has for training
_DIFFERENT = 64
_FILL = (124, 116, 104)

Call = Callable[[], object]
Open = contextlib.AbstractContextManager[Call]


def main(argv: list[str]) -> None:
    """Times and prints."""
    del argv
    tune()
    print(f"{machine()}\n")
    cores = len(os.sched_getaffinity(0))
    few = [record(seed) for seed in range(_DIFFERENT)]
    records = [few[i % _DIFFERENT] for i in range(_IMAGES)]
    candidates: dict[str, Callable[[], Open]] = {
        f"ours, {cores} threads": lambda: ours(records, 0, cores),
        f"ours, {cores} threads, kept decoded": lambda: ours(records, 0, cores, True),
        f"ours, {cores} workers": lambda: ours(records, cores, 1),
        f"decoding alone, {cores} threads": lambda: decoding(records, cores),
    }
    if _PEER.value:
        candidates[f"torch DataLoader, {cores} workers"] = lambda: peer(records, cores)
    seconds = {}
    for name, candidate in candidates.items():
        # Not interleaved: what reads ahead would go on while others are timed.
        with candidate() as take:
            seconds |= interleaved({name: take}, _ROUNDS.value)
    images = _BATCHES.value * _BATCH_SIZE
    head = f"{_WIDTH}×{_HEIGHT} JPEG to {_CROP_SIZE.value}²"
    print(table(head, seconds, f"ours, {cores} threads", images))


def record(seed: int) -> dict[str, bytes]:
    """An example as it is stored: smooth with a little noise, as photographs are."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (12, 16, 3), np.uint8)
    image = cv2.resize(coarse, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_CUBIC)
    noisy = np.clip(image + random.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    regions = random.integers(0, 21, (5, 6), np.uint8)
    size = (_WIDTH, _HEIGHT)
    label = cv2.resize(regions, size, interpolation=cv2.INTER_NEAREST_EXACT)
    # As VOC's own: 110 KB, and every other one has its colours at full resolution.
    form = [(96, "420"), (91, "444")][seed % 2]
    quality = [cv2.IMWRITE_JPEG_QUALITY, form[0]]
    quality += [
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{form[1]}"),
    ]
    return {
        "image": cv2.imencode(".jpg", noisy, quality)[1].tobytes(),
        "label": encode(label, "PNG"),
        "name": str(seed).encode(),
    }


def transforms() -> list[Transform]:
    """The light recipe of configs/voc.py."""
    crop = _CROP_SIZE.value
    return [
        ClampShortEdge(350, 100_000),
        RandomScale(0.5, 2.0, 0.0),
        RandomFlip(0.5),
        RandomCrop(crop, crop, _FILL),
    ]


@contextlib.contextmanager
def ours(
    records: list[dict[str, bytes]], workers: int, threads: int, kept: bool = False
) -> Iterator[Call]:
    """What takes batches; kept: see `data.decoded`, which is filled before."""
    source = Source(records, "in memory", [], {})
    batches = train_batches(
        [Ingredient(source, keep_decoded=kept)],
        transforms(),
        batch_size=_BATCH_SIZE,
        seed=0,
        process_index=0,
        process_count=1,
        num_workers=workers,
        num_threads=threads,
    )
    with contextlib.closing(iter(batches)) as iterator:
        for _ in range(_IMAGES // _BATCH_SIZE + 2 * threads if kept else 0):
            next(iterator)
        yield taking(iterator)


class Examples:
    """What a DataLoader reads: the same operations, example by example."""

    def __init__(self, records: list[dict[str, bytes]]):
        self._source = Source(records, "in memory", [], {})
        self._transforms = transforms()

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        example = decode(self._source[index % _IMAGES])
        random = np.random.default_rng(index)
        for transform in self._transforms:
            example = transform(example, random)
        return example["image"], example["label"]


@contextlib.contextmanager
def peer(records: list[dict[str, bytes]], workers: int) -> Iterator[Call]:
    """What takes torch's batches."""
    from torch.utils.data import DataLoader

    loader = DataLoader(
        Examples(records),
        _BATCH_SIZE,
        num_workers=workers,
        multiprocessing_context="spawn",  # JAX has threads, which a fork leaves behind
    )
    yield taking(iter(loader))


@contextlib.contextmanager
def decoding(records: list[dict[str, bytes]], threads: int) -> Iterator[Call]:
    """What decodes as many images as the others, and does no more."""
    source = Source(records, "in memory", [], {})
    numbers = [i % _IMAGES for i in range(_BATCHES.value * _BATCH_SIZE)]
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        yield lambda: list(
            pool.map(lambda i: decode(source[i])["label"].shape, numbers)
        )


def taking(batches: Iterator[Any]) -> Call:
    """A call takes a few of the batches."""

    def take() -> None:
        for _ in range(_BATCHES.value):
            next(batches)

    return take


if __name__ == "__main__":
    app.run(main)
