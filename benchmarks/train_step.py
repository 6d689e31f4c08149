"""Prints how fast the training step is on this machine's devices.

    python benchmarks/train_step.py --variant=light_resnet18 --crop_size=96 --batch_size=8

Times whole steps, forward, backward and update, on a batch that lies on the devices.
"""

import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import nnx

from refinenet_jax.models import VARIANTS, Architecture, RefineNet
from refinenet_jax.sharding import global_layout, to_devices
from refinenet_jax.training.losses import cross_entropy
from refinenet_jax.training.optimizer import build_optimizer, schedule
from refinenet_jax.training.state import TrainState, create_state
from refinenet_jax.training.steps import build_train_step

_VARIANT = flags.DEFINE_enum("variant", "light_resnet18", list(VARIANTS), "Network")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Over all devices")
_CROP_SIZE = flags.DEFINE_integer("crop_size", 96, "Height and width")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Arithmetic")
_NUM_STEPS = flags.DEFINE_integer("num_steps", 10, "Steps to time")

_NUM_CLASSES = 21


def main(argv: list[str]) -> None:
    """Compiles, warms up, times and prints."""
    del argv
    layout = global_layout()
    rate = schedule("cosine", 2e-3, 240, warmup_steps=20)
    optimizer = build_optimizer("adamw", rate, clip_norm=1.0)

    def network() -> RefineNet:
        return RefineNet(
            Architecture(_VARIANT.value, _NUM_CLASSES),
            dtype=jnp.dtype(_DTYPE.value),
            rngs=nnx.Rngs(params=jax.random.key(0, impl="rbg")),
        )

    def create() -> TrainState:
        return create_state(network(), optimizer, 0)

    state = jax.jit(create, out_shardings=layout.state)()
    rng = np.random.default_rng(0)
    shape = (_BATCH_SIZE.value, _CROP_SIZE.value, _CROP_SIZE.value)
    batch = to_devices(
        {
            "image": rng.integers(0, 256, (*shape, 3)).astype(np.uint8),
            "label": rng.integers(0, _NUM_CLASSES, shape).astype(np.uint8),
        },
        layout,
    )
    step = build_train_step(
        nnx.eval_shape(network),
        optimizer,
        rate,
        functools.partial(cross_entropy, resolution="label"),
        layout,
    )
    start = time.perf_counter()
    compiled = step.lower(state, batch).compile()
    compile_seconds = time.perf_counter() - start

    times = []
    for _ in range(_NUM_STEPS.value + 1):
        start = time.perf_counter()
        state, metrics = compiled(state, batch)
        jax.block_until_ready((state, metrics))
        times.append(time.perf_counter() - start)
    median = statistics.median(times[1:])
    print(f"device            {layout.num_devices} × {jax.devices()[0].device_kind}")
    print(f"network           {_VARIANT.value}, {_DTYPE.value}")
    print(f"batch             {list(shape)}")
    print(f"compilation       {compile_seconds:.1f} s")
    print(f"median step       {1e3 * median:.1f} ms of {_NUM_STEPS.value}")
    print(f"images per second {_BATCH_SIZE.value / median:.1f}")


if __name__ == "__main__":
    app.run(main)
