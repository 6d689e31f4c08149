"""Prints what mode plan says that a training step takes, and what the device reports.

    python benchmarks/plan_bytes.py --config=camvid:light_resnet50 --dtype=bfloat16

For the devices of this machine, with a batch of zeros. The plan is compiled first and its
bytes are those of `plan.json`; then the state is made, a few steps are taken, and jax asks
the device for the most it ever had in use, `peak_bytes_in_use`. That is since the process
began, so that each config has a process of its own, and "before the steps" is the same
number before the first of them: compiling for a GPU tries ways to write products, with
memory of its own. A CPU reports nothing.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from flax import nnx
from ml_collections import ConfigDict
from parts.tables import machine

from refinenet_jax import config as configs
from refinenet_jax import memory
from refinenet_jax.assembly.planning import network_of, step_program
from refinenet_jax.assembly.training import build_step, layout_of
from refinenet_jax.models import RefineNet
from refinenet_jax.planning import targets
from refinenet_jax.planning.program import plan
from refinenet_jax.training.state import TrainState, create_state
from refinenet_jax.tuning import tune

_CONFIG = flags.DEFINE_multi_string(
    "config", ["camvid:light_resnet50"], "Config with a network; may be given again"
)
_PER_DEVICE = flags.DEFINE_integer("per_device", 16, "Crops on each device")
_CROP_SIZE = flags.DEFINE_integer("crop_size", 0, "Height and width; 0: the config's")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Arithmetic")
_HEAD = (
    "| config | a device | planned, MiB | the device's peak, MiB | planned ÷ peak | "
    "before the steps, MiB |\n|---|---|---|---|---|---|"
)
_MARK = "PLAN_BYTES_ROW"  # in the environment of a process for one row
_STEPS = 3


def main(argv: list[str]) -> None:
    """Prints the table, made by a process for each row."""
    del argv
    if _MARK in os.environ:
        tune()
        print(f"{machine()}\n\n{_HEAD}\n{row(os.environ[_MARK])}")
        return
    environment = dict(os.environ)
    for index, name in enumerate(_CONFIG.value):
        environment[_MARK] = name
        done = subprocess.run(
            [sys.executable, *sys.argv],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(done.returncode)
        # Here jax is not asked for devices, which it would take memory of.
        said = done.stdout.strip()
        print(said.splitlines()[-1] if index else said, flush=True)


def row(name: str) -> str:
    """A line of the table."""
    file, _, variant = name.partition(":")
    config = configs.load(configs.locate(file), variant)
    config.model.dtype = _DTYPE.value
    config.train.batch_size = _PER_DEVICE.value * jax.device_count()
    config.data.crop_size = _CROP_SIZE.value or config.data.crop_size
    target = targets.attached(memory.device_bytes())
    found = plan(step_program(config, network_of(config), target), target, silently)
    planned = found["bytes_per_device"]["total"]
    before, after = peaks(config)
    about = f"{_PER_DEVICE.value} × {config.data.crop_size}², {_DTYPE.value}"
    cells = [name, about, f"{planned / 2**20:,.0f}"]
    if after is None or before is None:
        cells += ["not reported by this device", "", ""]
    else:
        cells += [
            f"{after / 2**20:,.0f}",
            f"{planned / after:.2f}",
            f"{before / 2**20:,.0f}",
        ]
    return f"| {' | '.join(cells)} |"


def peaks(config: ConfigDict) -> tuple[int | None, int | None]:
    """Bytes of the first device at its fullest, before and after some steps."""
    network = network_of(config)
    layout = layout_of(config, jax.devices())
    step = build_step(config, network, layout)

    def create() -> TrainState:
        rngs = nnx.Rngs(params=jax.random.key(config.seed, impl="rbg"))
        dtype = jnp.dtype(config.model.dtype)
        filled = RefineNet(network.architecture, dtype=dtype, rngs=rngs)
        averages = config.train.ema > 0
        return create_state(filled, step.optimizer, config.seed, averages=averages)

    state = jax.jit(create, out_shardings=layout.state)()
    batch = {
        name: jax.device_put(jnp.zeros(leaf.shape, leaf.dtype), leaf.sharding)
        for name, leaf in step.abstract_batch.items()
    }
    compiled = step.function.lower(step.abstract_state, step.abstract_batch).compile()
    jax.block_until_ready((state, batch))
    before = _peak()
    metrics: dict[str, Any] = {}
    for _ in range(_STEPS):
        state, metrics = compiled(state, batch)
    jax.block_until_ready((state, metrics))
    return before, _peak()


def _peak() -> int | None:
    stats = jax.local_devices()[0].memory_stats()
    return None if stats is None else stats.get("peak_bytes_in_use")


@contextlib.contextmanager
def silently(what: str, seconds: float) -> Iterator[None]:
    """Waits without a word."""
    del what, seconds
    yield


if __name__ == "__main__":
    app.run(main)
