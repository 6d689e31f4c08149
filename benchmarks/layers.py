"""Prints how our way of writing a layer compares with XLA's own operation.

    python benchmarks/layers.py

Each line is one layer at one size, forward and forward with gradients, in milliseconds.
"""

import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from absl import app
from flax import nnx
from jax import lax

from refinenet_jax.models.convolution import convolution, grouped
from refinenet_jax.models.layers import Conv, DepthwiseConv, FeatureMap, max_pool

_REPEATS = 10
_init = nnx.initializers.normal(0.1)


def main(argv: list[str]) -> None:
    """Times and prints."""
    del argv
    print(f"device {jax.devices()[0].device_kind}; median of {_REPEATS}, ms")
    print("layer                      x                    ours          XLA's")
    for size, channels, kernel_size in ((40, 144, 3), (20, 240, 5), (10, 672, 5)):
        layer = DepthwiseConv(
            channels,
            kernel_size,
            kernel_init=_init,
            dtype=jnp.float32,
            rngs=nnx.Rngs(0),
        )
        compare(
            f"depthwise {kernel_size}×{kernel_size}",
            (8, size, size, channels),
            lambda x, layer=layer: layer(FeatureMap(x)).values,
            lambda x, layer=layer: convolve(x, layer.kernel[...], x.shape[-1]),
        )
    for size, channels in ((64, 256), (16, 1024)):
        pointwise = Conv(
            channels, 256, 1, kernel_init=_init, dtype=jnp.float32, rngs=nnx.Rngs(0)
        )
        compare(
            "convolution 1×1",
            (4, size, size, channels),
            lambda x, layer=pointwise: layer(FeatureMap(x)).values,
            lambda x, layer=pointwise: convolve(x, layer.kernel[...], 1),
        )
    for size, channels in ((64, 128), (16, 512)):  # of ResNeXt-50
        pictures = jax.random.normal(jax.random.key(1), (2, size, size, channels))
        kernel = jax.random.normal(jax.random.key(2), (3, 3, channels // 32, channels))
        same = partial(convolution, stride=1, zeros=((1, 1), (1, 1)))
        compare(
            "32 groups 3×3",
            pictures.shape,
            lambda x, kernel=kernel, same=same: grouped(same, x, kernel, 32),
            lambda x, kernel=kernel: convolve(x, kernel, 32),
        )
        compare(
            "the same of their kernel",
            kernel.shape,
            lambda k, x=pictures, same=same: grouped(same, x, k, 32),
            lambda k, x=pictures: convolve(x, k, 32),
        )
    compare(
        "max-pool 5×5",
        (4, 64, 64, 256),
        lambda x: max_pool(FeatureMap(x), 5).values,
        lambda x: lax.reduce_window(
            x, -jnp.inf, lax.max, (1, 5, 5, 1), (1, 1, 1, 1), "SAME"
        ),
    )


def convolve(x: jax.Array, kernel: jax.Array, groups: int) -> jax.Array:
    """XLA's convolution, stride 1: [B,H,W,in] and [k,k,in/groups,out] → [B,H,W,out]."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def compare(
    name: str,
    shape: tuple[int, ...],
    ours: Callable[[jax.Array], jax.Array],
    theirs: Callable[[jax.Array], jax.Array],
) -> None:
    """Prints a line."""
    x = jax.random.normal(jax.random.key(0), shape)
    times = []
    for layer in (ours, theirs):
        forward = jax.jit(layer)
        gradient = jax.jit(jax.grad(lambda x, layer=layer: (layer(x) ** 2).sum()))
        times.append(
            f"{milliseconds(forward, x):6.1f} {milliseconds(gradient, x):6.1f}"
        )
    print(f"{name:26} {list(shape)!s:20} {times[0]}  {times[1]}")


def milliseconds(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> float:
    """Median time of a compiled function."""
    jax.block_until_ready(function(x))
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(function(x))
        times.append(time.perf_counter() - start)
    return 1e3 * sorted(times)[_REPEATS // 2]


if __name__ == "__main__":
    app.run(main)
