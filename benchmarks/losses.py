"""Prints the memory that each loss takes for its value and gradient.

    python benchmarks/losses.py [--batch=8] [--size=512] [--classes=21]

Logits of a quarter of the size of the labels are compared at the size of the labels. Shown
is what the compiled program needs on each device besides logits and labels: MiB, and bytes
for each pixel of the labels of that device. Nothing is run; the devices are played by the
CPU, and the batch is divided among them.
"""

import argparse
import functools
import os

# Read when JAX starts.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4")

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.console import Console
from rich.table import Table

from refinenet_jax.training import losses

DEVICES = (1, 2, 4)


def named_losses(classes: int) -> dict[str, losses.Loss]:
    """The losses by what they are called in the table."""
    weighted = {"class_weights": np.ones(classes)}
    options = {
        "cross_entropy": (losses.cross_entropy, {}),
        "cross_entropy, weighted and smooth": (
            losses.cross_entropy,
            weighted | {"label_smoothing": 0.1},
        ),
        "focal": (losses.focal, {}),
        "ohem": (losses.ohem, {}),
        "dice": (losses.dice, {}),
        "lovasz": (losses.lovasz_softmax, {}),
    }
    return {
        name: functools.partial(loss, resolution="label", **more)
        for name, (loss, more) in options.items()
    }


def needed(loss: losses.Loss, batch: int, size: int, classes: int, devices: int) -> int:
    """Bytes on each device."""
    mesh = Mesh(np.asarray(jax.devices()[:devices]), ("data",))
    split = NamedSharding(mesh, PartitionSpec("data"))
    logits = jax.ShapeDtypeStruct(
        (batch, size // 4, size // 4, classes), jnp.float32, sharding=split
    )
    label = jax.ShapeDtypeStruct((batch, size, size), jnp.uint8, sharding=split)
    compiled = jax.jit(jax.value_and_grad(loss)).lower(logits, label).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def main() -> None:
    """Prints a row for each loss, and one for the enlarged scores for comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--classes", type=int, default=21)
    given = parser.parse_args()
    pixels = given.batch * given.size**2
    table = Table(
        title=f"{given.batch} labels of {given.size}², {given.classes} classes"
    )
    table.add_column("loss")
    for devices in DEVICES:
        table.add_column(f"{devices} device{'s' * (devices > 1)}", justify="right")

    def row(name: str, bytes_of: dict[int, int]) -> None:
        cells = [
            f"{count / 2**20:.0f} MiB, {count / (pixels / devices):.0f}"
            for devices, count in bytes_of.items()
        ]
        table.add_row(name, *cells)

    for name, loss in named_losses(given.classes).items():
        row(
            name,
            {
                n: needed(loss, given.batch, given.size, given.classes, n)
                for n in DEVICES
            },
        )
    row(
        "(the enlarged scores)",
        {n: 4 * given.classes * pixels // n for n in DEVICES},
    )
    Console().print(table)


if __name__ == "__main__":
    main()
