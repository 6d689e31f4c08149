"""Peak memory of preparing a data set and of streaming it, by its number of images.

    python benchmarks/data_memory.py [500 5000]

Each figure is the peak resident memory of a process of its own, which does that alone.
The images are noise of 320×240, some 90 KB each as JPEG.
"""

import contextlib
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from refinenet_jax.data import datasets, preparation
from refinenet_jax.data.mixture import Ingredient
from refinenet_jax.data.pipeline import train_batches
from refinenet_jax.data.request import FolderLabels, Request
from refinenet_jax.data.source import Source
from refinenet_jax.data.transforms import RandomCrop

HEIGHT, WIDTH = 240, 320
BATCH_SIZE = 8


class Silent:
    """Reports nothing."""

    def say(self, message: str) -> None:
        """Says nothing."""

    @contextlib.contextmanager
    def progress(self, task: str, total: int | None):
        """Shows nothing."""
        yield lambda: None


def write_images(folder: Path, count: int) -> None:
    """Writes `count` images for training and ten for validation."""
    rng = np.random.default_rng(0)
    for split, number in (("train", count), ("val", 10)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(number):
            image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            label = np.full((HEIGHT, WIDTH), index % 2, np.uint8)
            cv2.imwrite(str(folder / "images" / split / f"{index}.jpg"), image)
            cv2.imwrite(str(folder / "labels" / split / f"{index}.png"), label)
    (folder / "classes.txt").write_text("even\nodd\n")


def request(folder: Path) -> Request:
    """The images of `write_images`, prepared beside them."""
    labels = FolderLabels("ids", 0, (255,), "", "classes.txt")
    return Request("folder", f"{folder}.prepared", str(folder), "stop", labels)


def open_train(folder: Path) -> Source:
    """The training images, prepared on first use."""
    return datasets.open_split(preparation.prepare(request(folder), Silent()), "train")


def stream(folder: Path, num_batches: int) -> None:
    """Takes batches, shuffled anew each epoch."""
    source = open_train(folder)
    everything = Ingredient(source, 1.0, None, None, 1, None)
    batches = train_batches(
        [everything],
        [RandomCrop(200, 200, (0, 0, 0))],
        batch_size=BATCH_SIZE,
        seed=0,
        process_index=0,
        process_count=1,
        num_workers=0,
        num_threads=4,
    )
    with contextlib.closing(iter(batches)) as iterator:
        for _ in range(num_batches):
            next(iterator)


def peak_mebibytes(task: str, folder: Path) -> float:
    """Peak resident memory of a process that does one task."""
    command = [sys.executable, __file__, task, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def main(counts: list[int]) -> None:
    """Prints one line for each number of images."""
    print(f"{'images':>8} {'preparing':>12} {'streaming':>12}   MiB")
    for count in counts:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "data"
            write_images(folder, count)
            prepare = peak_mebibytes("prepare", folder)
            streaming = peak_mebibytes("stream", folder)
        print(f"{count:8d} {prepare:12.0f} {streaming:12.0f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] in (["prepare"], ["stream"]):
        folder = Path(sys.argv[2])
        if sys.argv[1] == "prepare":
            open_train(folder)
        else:
            stream(folder, num_batches=625)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    else:
        main([int(count) for count in sys.argv[1:]] or [500, 5000])
