"""Peak memory of predicting ten images of 2048×1024, whole and in windows.

    python benchmarks/eval_memory.py WORKDIR [WINDOW ...]

Each line is a process of its own: the best checkpoint of WORKDIR, with windows of that
many pixels (0: the whole image), and its peak memory after the first and tenth image.
"""

import dataclasses
import resource
import subprocess
import sys
import time

import numpy as np

from refinenet_jax import Segmenter
from refinenet_jax.inference.protocol import PLAIN

_SHAPE = (1024, 2048, 3)


def peak_mebibytes() -> float:
    """Of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(workdir: str, window: int) -> None:
    """Predicts and prints."""
    protocol = dataclasses.replace(PLAIN, window=window, overlap=1 / 3)
    segmenter = Segmenter.from_checkpoint(workdir, protocol=protocol)
    loaded = peak_mebibytes()
    rng = np.random.default_rng(0)
    peaks, start = [], time.monotonic()
    for _ in range(10):
        segmenter.predict(rng.integers(0, 256, _SHAPE, np.uint8))
        peaks.append(peak_mebibytes())
    seconds = (time.monotonic() - start) / 10
    print(
        f"{window:6d} {loaded:12.0f} {peaks[0]:12.0f} {peaks[1]:12.0f} "
        f"{peaks[-1]:12.0f} {seconds:14.1f}"
    )


def main(workdir: str, *windows: str) -> None:
    """Prints one line for each window."""
    print("window   MiB: loaded   first image       second        tenth   s per image")
    for window in windows or ("0", "768"):
        command = [sys.executable, __file__, "--measure", workdir, window]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        print(done.stdout.splitlines()[-1], flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--measure":
        measure(sys.argv[2], int(sys.argv[3]))
    else:
        main(*sys.argv[1:])
