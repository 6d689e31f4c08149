"""Prints how fast the training step is, ours and PyTorch's in one run.

    python benchmarks/train_step.py --variant=light_resnet18 --crop_size=96 --batch_size=8

Whole steps on a batch that lies on the devices: forward, the loss at the size of the
labels, backward, clipping and AdamW. With --peer, PyTorch takes the same step, eager and
compiled, on the GPU where jax has one. Below the table: the arithmetic of the step's convolutions and products, and the
share that its rate is of one large matrix product's on the same device.
"""

import functools
import os
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import nnx
from parts.tables import interleaved, machine, peer_device, table

from refinenet_jax.models import VARIANTS, Architecture, RefineNet
from refinenet_jax.planning import hlo
from refinenet_jax.planning.products import products, total_flops
from refinenet_jax.sharding import global_layout, to_devices
from refinenet_jax.training.losses import cross_entropy
from refinenet_jax.training.optimizer import build_optimizer, schedule
from refinenet_jax.training.state import TrainState, create_state
from refinenet_jax.training.steps import build_train_step
from refinenet_jax.tuning import tune

_VARIANT = flags.DEFINE_multi_enum(
    "variant", ["light_resnet18"], list(VARIANTS), "Network; may be given again"
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Over all devices")
_CROP_SIZE = flags.DEFINE_integer("crop_size", 96, "Height and width")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Arithmetic")
_ROUNDS = flags.DEFINE_integer("rounds", 10, "Steps of each to time")
_PEER = flags.DEFINE_boolean("peer", False, "PyTorch, too")
_COMPILE = flags.DEFINE_boolean("compile", True, "And torch.compile")

_NUM_CLASSES = 21


def main(argv: list[str]) -> None:
    """Compiles, warms up, times and prints a table for each network."""
    del argv
    tune()
    print(f"{machine()}\n")
    rng = np.random.default_rng(0)
    shape = (_BATCH_SIZE.value, _CROP_SIZE.value, _CROP_SIZE.value)
    images = rng.integers(0, 256, (*shape, 3), np.uint8)
    labels = rng.integers(0, _NUM_CLASSES, shape, np.uint8)
    for variant in _VARIANT.value:
        step, compile_seconds, flops = ours(variant, images, labels)
        candidates = {"ours": step}
        if _PEER.value:
            candidates |= peers(variant, images, labels)
        seconds = interleaved(candidates, _ROUNDS.value)
        head = f"{variant}, {_DTYPE.value}, {list(shape)}"
        print(table(head, seconds, "ours", len(images)))
        print(f"\ncompiled in {compile_seconds:.1f} s")
        print(f"{share_of_peak(flops / statistics.median(seconds['ours']))}\n")


def ours(
    variant: str, images: np.ndarray, labels: np.ndarray
) -> tuple[Callable[[], object], float, int]:
    """A step on the batch, the seconds that compiling took, and FLOPs of the step."""
    layout = global_layout()
    rate = schedule("cosine", 2e-3, 240, warmup_steps=20)
    optimizer = build_optimizer("adamw", rate, clip_norm=1.0)

    def network() -> RefineNet:
        return RefineNet(
            Architecture(variant, _NUM_CLASSES),
            dtype=jnp.dtype(_DTYPE.value),
            rngs=nnx.Rngs(params=jax.random.key(0, impl="rbg")),
        )

    def create() -> TrainState:
        return create_state(network(), optimizer, 0)

    state = jax.jit(create, out_shardings=layout.state)()
    batch = to_devices({"image": images, "label": labels}, layout)
    step = build_train_step(
        nnx.eval_shape(network),
        optimizer,
        rate,
        functools.partial(cross_entropy, resolution="label"),
        layout,
    )
    start = time.perf_counter()
    lowered = step.lower(state, batch)
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    program = hlo.parse(lowered.as_text(dialect="hlo"))
    flops = sum(total_flops(products(program)).values())

    def take() -> None:
        nonlocal state
        state, metrics = compiled(state, batch)
        jax.block_until_ready((state, metrics))

    return take, seconds, flops


def share_of_peak(rate: float) -> str:
    """What so many FLOP/s of all devices are beside a product alone, on one of them."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    factor = jnp.ones((size, size), _DTYPE.value)
    multiply = jax.jit(jnp.dot)
    multiply(factor, factor).block_until_ready()
    times = []
    for _ in range(7):
        start = time.perf_counter()
        multiply(factor, factor).block_until_ready()
        times.append(time.perf_counter() - start)
    peak = jax.device_count() * 2 * size**3 / statistics.median(times)
    return (
        f"{rate / 1e9:,.0f} GFLOP/s, {rate / peak:.0%} of the {peak / 1e9:,.0f} of a "
        f"product of {size} x {size}"
    )


def peers(
    variant: str, images: np.ndarray, labels: np.ndarray
) -> dict[str, Callable[[], object]]:
    """PyTorch, eager and compiled."""
    from parts import torch_peer

    threads = len(os.sched_getaffinity(0))
    found: dict[str, Callable[[], object]] = {}
    for name, compiled in (("eager", False), ("torch.compile", True)):
        if compiled and not _COMPILE.value:
            continue
        model = torch_peer.network(variant, _NUM_CLASSES, threads, peer_device())
        found[f"PyTorch, {name}"] = torch_peer.training(
            model, images, labels, _DTYPE.value, compiled=compiled
        )
    return found


if __name__ == "__main__":
    app.run(main)
