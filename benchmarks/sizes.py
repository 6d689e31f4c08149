"""Images of many sizes: padded into a few buckets, against a program for each size.

    python benchmarks/sizes.py WORKDIR FOLDER [HEIGHT,WIDTH ...]

Predicts every image below FOLDER with the best checkpoint of WORKDIR twice: padded to
the smallest of the given sizes that holds it, and alone at its own size. Prints
compilations, seconds, and the largest difference between the probabilities.
"""

import dataclasses
import resource
import sys
import time
from pathlib import Path

import numpy as np

from refinenet_jax import Segmenter
from refinenet_jax.data.images import SUFFIXES, read_image


def main(workdir: str, folder: str, *sizes: str) -> None:
    """Predicts and prints."""
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES)
    buckets = [tuple(int(n) for n in size.split(",")) for size in sizes]
    padded = Segmenter.from_checkpoint(workdir, buckets=buckets)
    alone = Segmenter.from_checkpoint(workdir)
    alone = Segmenter(alone.model, dataclasses.replace(alone.metadata, size_multiple=1))
    images = [read_image(path) for path in paths]
    seconds = {"padded": 0.0, "alone": 0.0}
    largest, differing, pixels = 0.0, 0, 0
    for image in images:
        found = {}
        for name, segmenter in (("padded", padded), ("alone", alone)):
            start = time.monotonic()
            found[name] = segmenter.probabilities(image)
            seconds[name] += time.monotonic() - start
        one, other = found.values()
        largest = max(largest, float(np.abs(one - other).max()))
        differing += int((one.argmax(-1) != other.argmax(-1)).sum())
        pixels += one[..., 0].size
    shapes = {image.shape for image in images}
    print(f"{len(images)} images of {len(shapes)} sizes; buckets {buckets or 'none'}")
    print("              compilations   seconds")
    for name, segmenter in (("padded", padded), ("alone", alone)):
        print(f"{name:12}  {segmenter.compilations:12d}  {seconds[name]:8.1f}")
    print(f"largest difference of a probability {largest:.1e}")
    print(f"pixels of another class {differing} of {pixels}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MiB")


if __name__ == "__main__":
    main(*sys.argv[1:])
