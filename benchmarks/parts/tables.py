"""What the tables of all benchmarks share: interleaved timing, medians, and the machine."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib import metadata, util

import jax
import numpy as np

from refinenet_jax.provenance import provenance

_PAUSE = 1.0  # seconds
_IN_A_ROW = 10  # calls on an accelerator
_OTHERS = ("jax", "torch", "onnxruntime", "openvino")


def interleaved(
    candidates: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each call; every round calls each of them once, after two warm-ups.

    What the machine does besides then meets all alike, and nobody always comes after the
    same other. On CPUs, threads of one library wait actively for a while after a call:
    the pause is for these. An accelerator lowers its clock in a pause: there a round is
    ten calls in a row, after one that does not count, and a time is their mean.
    """
    on_cpu = jax.default_backend() == "cpu"
    for call in candidates.values():
        call()
        call()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    random = np.random.default_rng(0)
    for _ in range(rounds):
        random.shuffle(names)
        for name in names:
            call = candidates[name]
            if on_cpu:
                time.sleep(_PAUSE)
            else:
                call()
            count = 1 if on_cpu else _IN_A_ROW
            start = time.perf_counter()
            for _ in range(count):
                call()
            seconds[name].append((time.perf_counter() - start) / count)
    return seconds


def peer_device() -> str:
    """Where PyTorch does the same, in its own words.

    Raises:
        SystemExit: it has nothing for the accelerator of this machine.
    """
    import torch

    backend = jax.default_backend()
    if backend == "cpu":
        return "cpu"
    if backend == "gpu" and torch.cuda.is_available():
        return "cuda"
    raise SystemExit(f"this PyTorch has nothing for a {backend}: leave --peer out")


def machine() -> str:
    """The device, its cores, the versions and the commit, as a line."""
    versions = [
        f"{name} {metadata.version(name)}" for name in _OTHERS if util.find_spec(name)
    ]
    commit = str(provenance()["commit"])[:12]
    python = platform.python_version()
    return f"{device()}; Python {python}, {', '.join(versions)}; {commit}"


def device() -> str:
    """What computes here: a kind of accelerator and how many, or a processor's cores."""
    devices = jax.devices()
    if devices[0].platform == "cpu":
        return f"{_cpu()}, {len(os.sched_getaffinity(0))} cores"
    count = f"{len(devices)} × " if len(devices) > 1 else ""
    return f"{count}{devices[0].device_kind}"


def table(
    head: str, seconds: Mapping[str, list[float]], ours: str, images: int = 1
) -> str:
    """A Markdown table: median, spread, images a second, and the share of ours.

    ours: the name of the row that the others are compared with.
    """
    base = statistics.median(seconds[ours])
    lines = [
        f"| {head} | median, ms | least–most | images a second | ours ÷ it |",
        "|---|---|---|---|---|",
    ]
    for name, times in seconds.items():
        median = statistics.median(times)
        lines.append(
            f"| {name} | {1e3 * median:.1f} | {1e3 * min(times):.1f}–"
            f"{1e3 * max(times):.1f} | {images / median:.2f} | {base / median:.2f} |"
        )
    return "\n".join(lines)


def _cpu() -> str:
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
