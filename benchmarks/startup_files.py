"""Seconds that a start costs, by the number of small files in manual_dir.

    python benchmarks/startup_files.py [10000 100000]

A person's own folder of so many images of 8×8 and as many labels, prepared before.
Process 0 looks at every file; the others trust it. Then the class counts, and the first
batch of a run that goes on after step 100 and after step 1,000,000: in the plain order,
and in a class-balanced one.
"""

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from refinenet_jax.data import datasets, preparation
from refinenet_jax.data.mixture import Ingredient
from refinenet_jax.data.pipeline import train_batches
from refinenet_jax.data.request import FolderLabels, Request
from refinenet_jax.pictures import encode

BATCH_SIZE = 8
STEPS = (100, 1_000_000)
COLUMNS = (
    "process 0",
    "others",
    "class counts",
    *(f"step {step:,}" for step in STEPS),
    *(f"balanced {step:,}" for step in STEPS),
)


class Silent:
    """Reports nothing."""

    def say(self, message: str) -> None:
        """Says nothing."""

    @contextlib.contextmanager
    def progress(self, task: str, total: int | None):
        """Shows nothing."""
        yield lambda: None


def write_images(folder: Path, count: int) -> None:
    """Writes `count` images for training and one for validation."""
    rng = np.random.default_rng(0)
    image = encode(rng.integers(0, 256, (8, 8, 3), np.uint8), "PNG")
    labels = [encode(np.full((8, 8), n, np.uint8), "PNG") for n in range(2)]
    for split, number in (("train", count), ("val", 1)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(number):
            (folder / f"images/{split}/{index}.png").write_bytes(image)
            (folder / f"labels/{split}/{index}.png").write_bytes(labels[index % 2])
    (folder / "classes.txt").write_text("even\nodd\n")


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def first_batch(ingredient: Ingredient, step: int) -> None:
    """Takes the batch behind a step."""
    batches = train_batches(
        [ingredient],
        [],
        batch_size=BATCH_SIZE,
        seed=0,
        process_index=0,
        process_count=1,
        num_workers=0,
        num_threads=2,
    )
    with contextlib.closing(iter(batches)) as iterator:
        iterator.set_state({"next_example": step * BATCH_SIZE})
        next(iterator)


def measure(folder: Path) -> list[float]:
    """Seconds, one for each of COLUMNS."""
    labels = FolderLabels("ids", 0, (255,), "", "classes.txt")
    request = Request("folder", f"{folder}.prepared", str(folder), "stop", labels)
    preparation.prepare(request, Silent())
    checking, checked = timed(lambda: preparation.prepare(request, Silent()))
    fingerprint = datasets.fingerprint_of(checked)
    trusting, found = timed(lambda: datasets.find_prepared(request, fingerprint))
    source = datasets.open_split(found, "train")
    counting, counts = timed(lambda: source.class_pixels(Silent()))
    seconds = [checking, trusting, counting]
    for present in (None, counts[:, :-1] > 0):
        ingredient = Ingredient(source, 1.0, None, present, 100, None)
        first_batch(ingredient, 0)  # opens the files
        for step in STEPS:
            seconds.append(timed(lambda s=step, i=ingredient: first_batch(i, s))[0])
    return seconds


def main(counts: list[int]) -> None:
    """Prints one line for each number of images."""
    print(f"{'images':>8}", *(f"{name:>18}" for name in COLUMNS), "  seconds")
    for count in counts:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "data"
            write_images(folder, count)
            seconds = measure(folder)
        print(f"{count:8d}", *(f"{value:18.4f}" for value in seconds), flush=True)


if __name__ == "__main__":
    main([int(count) for count in sys.argv[1:]] or [10_000, 100_000])
