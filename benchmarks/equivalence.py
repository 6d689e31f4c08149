"""Prints how far steps that fit into less memory are from the plain step.

    python benchmarks/equivalence.py

Trains a small network (ResNet-50 in blocks of a few channels, with residual units, frozen
statistics and no dropout) for three steps in every form of docs/memory.md, on 1, 2, 4 and
8 devices that the CPU plays, and prints the largest difference of any parameter, as a
share of the largest value of its array, from the plain run on one device. "=": the state
has the same digest.
"""

import dataclasses
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

# Read when JAX starts.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from refinenet_jax import sharding
from refinenet_jax.models import (
    FULL,
    Architecture,
    Backbone,
    FeatureMap,
    RefineNet,
    add_backbone,
)
from refinenet_jax.models.chain import Chain, Recomputing, recomputed
from refinenet_jax.models.resnet import BlockForm
from refinenet_jax.sharding import Layout, to_devices
from refinenet_jax.training.losses import cross_entropy
from refinenet_jax.training.state import TrainState, create_state, sha256
from refinenet_jax.training.steps import StepOptions, build_train_step

_CLASSES = 5
_STRIDES = (4, 2, 2, 2)
_OPTIMIZER = optax.sgd(0.01, momentum=0.9)


class _SmallResNet(Recomputing):
    """Four stages of bottlenecks, the third of nine; x: [B,H,W,3] → four taps."""

    tap_strides = (4, 8, 16, 32)
    tap_channels = (8, 16, 16, 16)

    def __init__(self, channels: int, *, dtype: Any, rngs: nnx.Rngs):
        form = BlockForm(expands=True, dtype=dtype)
        self.stages = nnx.List()
        for number, (width, repeats) in enumerate(((2, 1), (4, 1), (4, 9), (4, 1))):
            blocks = []
            for place in range(repeats):
                stride = _STRIDES[number] if place == 0 else 1
                blocks.append(form.block(channels, width, stride, rngs=rngs))
                channels = 4 * width
            self.stages.append(Chain(blocks))

    def __call__(self, x: FeatureMap) -> list[FeatureMap]:
        taps = []
        for blocks in self.stages:
            x = recomputed(Chain.__call__, blocks, x, when=self.remat == "all")
            taps.append(x)
        return taps


@dataclasses.dataclass(frozen=True)
class Form:
    """A way to compute a step.

    Attributes:
        options: of the step.
        layout: options of the layout.
        devices: the fewest that it can be tried on.
    """

    options: StepOptions
    layout: dict[str, Any] = dataclasses.field(default_factory=dict)
    devices: int = 1


_PLAIN = StepOptions(frozen_statistics=True)
_with = functools.partial(dataclasses.replace, _PLAIN)
_SHARES = {"divides_state": True}
FORMS = {
    "plain": Form(_PLAIN),
    "train.accumulate=2": Form(_with(accumulate=2)),
    "model.remat=blocks": Form(_with(remat="blocks")),
    "model.remat=all": Form(_with(remat="all")),
    "train.ema=0.9": Form(_with(ema_decay=0.9)),
    "train.shard_state": Form(_PLAIN, _SHARES, 2),
    "train.row_shards=2": Form(_PLAIN, {"row_shards": 2}, 2),
    "all of them": Form(
        _with(accumulate=2, remat="all", ema_decay=0.9),
        {"row_shards": 2, **_SHARES},
        2,
    ),
}


def small_network() -> RefineNet:
    """With weights that let every layer take part."""
    decoder = dataclasses.replace(
        FULL, width=8, coarsest_width=8, tap_dropout=0.0, classifier_dropout=0.0
    )
    add_backbone(
        "small", Backbone(_SmallResNet, decoder, mean=(127.5,) * 3, std=(127.5,) * 3)
    )
    description = Architecture(
        "light_small", _CLASSES, cascade="2_cascaded", pooling_stages=1
    )
    network = RefineNet(description, rngs=nnx.Rngs(params=0))
    rng = np.random.default_rng(0)
    _, params = nnx.split(network, nnx.Param, ...)[:2]
    filled = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(0, 0.2, x.shape), x.dtype), params
    )
    nnx.update(network, filled)
    return network


def batches(count: int, size: int) -> Iterator[dict[str, np.ndarray]]:
    """Batches of sixteen, whose pictures have very different numbers of labels."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        label = rng.integers(0, _CLASSES, (16, size, size)).astype(np.uint8)
        for number, rows in enumerate(label):
            rows[: number * size // 16] = 255
        image = rng.integers(0, 256, (16, size, size, 3)).astype(np.uint8)
        yield {"image": image, "label": label}


def trained(
    network: RefineNet, form: Form, devices: int, num_steps: int, size: int
) -> TrainState:
    """The state after a few steps."""
    layout = Layout.over(jax.devices()[:devices], **form.layout)
    step = build_train_step(
        network,
        _OPTIMIZER,
        optax.constant_schedule(0.01),
        functools.partial(cross_entropy, resolution="label"),
        layout,
        form.options,
    )
    averages = form.options.ema_decay > 0
    state = create_state(network, _OPTIMIZER, seed=0, averages=averages)
    state = jax.tree.map(jnp.copy, state)
    state = jax.device_put(state, layout.state_shardings(state))
    for batch in batches(num_steps, size):
        state, _ = step(state, to_devices(batch, layout))
    # The average follows the training and has no part in it.
    return dataclasses.replace(state, average=None)


def difference(found: TrainState, expected: TrainState) -> str:
    """In words: "=", or the largest difference."""
    if sha256(found) == sha256(expected):
        return "="
    differences = [
        float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max())
        for a, b in zip(
            *map(jax.tree.leaves, (found.params, expected.params)), strict=True
        )
    ]
    return f"{max(differences):.1e}"


def main(
    devices: Sequence[int] = (1, 2, 4, 8), num_steps: int = 3, size: int = 64
) -> None:
    """Prints the table."""
    # Programs that run thrice are best compiled in a hurry.
    jax.config.update("jax_disable_most_optimizations", True)
    sharding._FEWEST = 1  # every array of the small network, too
    network = small_network()
    expected = trained(network, FORMS["plain"], 1, num_steps, size)
    print(f"{'':20}" + "".join(f"{number:>10}" for number in devices))
    for name, form in FORMS.items():
        cells = [
            difference(trained(network, form, number, num_steps, size), expected)
            if number >= form.devices
            else ""
            for number in devices
        ]
        print(f"{name:20}" + "".join(f"{cell:>10}" for cell in cells), flush=True)


if __name__ == "__main__":
    main(*[[int(number) for number in sys.argv[1:]]] if len(sys.argv) > 1 else [])
