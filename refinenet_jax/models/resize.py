"""Resizing that knows which part of a padded picture is real."""

from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from refinenet_jax.models.layers import FeatureMap

ResizeMethod = Literal["align_corners", "bilinear", "bicubic"]

_Sizes = TypeVar("_Sizes", np.ndarray, jax.Array)


def scaled_sizes(sizes: _Sizes, scale: float) -> _Sizes:
    """Integer sizes, on the host or traced, times a number → int32, rounded.

    In float32 in both cases, so that halves are rounded alike.
    """
    return (sizes.astype(np.float32) * np.float32(scale)).round().astype(np.int32)


def resize_like(x: FeatureMap, target: FeatureMap, method: ResizeMethod) -> FeatureMap:
    """`x` [B,h,w,C] at the height and width of `target` [B,H,W,any] → [B,H,W,C]."""
    height, width = target.values.shape[1:3]
    if x.values.shape[1:3] == (height, width) and x.size is target.size:
        return x
    return resize(x, (height, width), target.size, method)


def resize(
    x: FeatureMap,
    shape: tuple[int, int],
    size: jax.Array | None,
    method: ResizeMethod,
) -> FeatureMap:
    """Resizes every picture to a size of its own, as two matrix products.

    Args:
        x: [B,h,w,C].
        shape: H and W of the result.
        size: int32 [B,2], true sizes of the resized pictures; may be traced. None
            where x.size is None: the result fills `shape`.
        method: "align_corners" puts the corner pixels' centres on each other, as
            torch's interpolate(mode="bilinear", align_corners=True); "bilinear" keeps
            half-pixel centres, as align_corners=False; "bicubic" is the Keys kernel
            with a = -0.5 on half-pixel centres, smoothed when it shrinks, as MATLAB's
            imresize away from the border.

    Returns:
        [B,H,W,C] of x's dtype.
    """
    values = x.filled(0)
    for axis, out_length in enumerate(shape):
        in_length = values.shape[1 + axis]
        if x.size is None or size is None:
            in_size, out_size = jnp.asarray(in_length), jnp.asarray(out_length)
        else:
            in_size, out_size = x.size[:, axis], size[:, axis]
        weights = resize_weights(in_length, out_length, in_size, out_size, method)
        values = weighted(values, weights, 1 + axis)
    return FeatureMap(values, size)


def weighted(values: jax.Array, weights: jax.Array, axis: int) -> jax.Array:
    """Sums of rows, or of columns, with weights.

    values: float [B,H,W,C]; weights: [new,old] or [B,new,old], old the length of the
    axis, which is 1 or 2 → the same with the length `new`.
    """
    # One product for each picture, also where all have the same weights: on CPU it is
    # as fast, and XLA for an H100 has no program for the other form (jax 0.10.2).
    batched = jnp.broadcast_to(weights, (values.shape[0], *weights.shape[-2:]))
    batched = batched.astype(values.dtype)
    if axis == 1:
        return _einsum("boi,biwc->bowc", batched, values)
    new, old = weights.shape[-2:]
    if new * old > (new + old) * values.shape[-1]:
        return _by_planes(batched, values)
    return lax.platform_dependent(batched, values, cpu=_by_rows, default=_by_planes)


def _by_planes(weights: jax.Array, values: jax.Array) -> jax.Array:
    # XLA for an H100 has no program for rows of a number of channels that is no power
    # of two, next to each other.
    planes = values.transpose(0, 3, 1, 2)
    return _einsum("boi,bchi->bcho", weights, planes).transpose(0, 2, 3, 1)


def _by_rows(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Transposes nothing, but has the weights once for each row."""
    batch, new, old = weights.shape
    repeated = jnp.broadcast_to(weights[:, None], (batch, values.shape[1], new, old))
    return _einsum("bhoi,bhic->bhoc", repeated, values)


def _einsum(subscripts: str, weights: jax.Array, values: jax.Array) -> jax.Array:
    return jnp.einsum(subscripts, weights, values, precision=lax.Precision.HIGHEST)


def resize_weights(
    in_length: int,
    out_length: int,
    in_size: jax.Array,
    out_size: jax.Array,
    method: ResizeMethod,
) -> jax.Array:
    """Share of each input pixel in each output pixel.

    in_size, out_size: int [] or [B] → float32 [out_length,in_length], with a leading B
    where the sizes have it.
    """
    in_size, out_size = (
        s[..., None, None].astype(jnp.float32) for s in (in_size, out_size)
    )
    rank = in_size.ndim
    outputs = jnp.arange(out_length, dtype=jnp.float32).reshape(
        (1,) * (rank - 2) + (-1, 1)
    )
    inputs = jnp.arange(in_length, dtype=jnp.float32).reshape((1,) * (rank - 1) + (-1,))
    if method == "align_corners":
        position = outputs * ((in_size - 1) / jnp.maximum(out_size - 1, 1))
        kernel, reach = _triangle, jnp.ones(())
    elif method == "bilinear":
        position = (outputs + 0.5) * (in_size / out_size) - 0.5
        kernel, reach = _triangle, jnp.ones_like(in_size)
    else:
        position = (outputs + 0.5) * (in_size / out_size) - 0.5
        kernel, reach = _keys_cubic, jnp.maximum(in_size / out_size, 1)
    position = jnp.clip(position, 0, in_size - 1)
    weights = kernel((position - inputs) / reach) * (inputs < in_size)
    if kernel is _triangle:  # two weights that make 1
        return weights
    return weights / weights.sum(axis=-1, keepdims=True)


def _triangle(distance: jax.Array) -> jax.Array:
    return jnp.maximum(1 - jnp.abs(distance), 0)


def _keys_cubic(distance: jax.Array) -> jax.Array:
    """Keys 1981, a = -0.5."""
    x = jnp.abs(distance)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return jnp.where(x < 1, near, jnp.where(x < 2, far, 0))
