"""Arithmetic on plain arrays that keeps less, or rounds less, than it would by itself."""

import functools

import jax
import jax.numpy as jnp
from jax import lax


def max_pool(x: jax.Array, window: int, stride: int) -> jax.Array:
    """Largest value in a square window around each `stride`-th pixel, -inf outside.

    The maximum is separable: a pass along the rows, then one along the columns. For
    each pass the gradient needs to know which of its values was the largest, a byte for
    each; differentiated by JAX it would keep every shifted slice. Of equal values the
    first in reading order has the gradient, as in torch.

    x: float [B,H,W,C]; window: odd → [B,ceil(H/stride),ceil(W/stride),C] of x's dtype.
    """
    return _max_along(_max_along(x, window, stride, 2), window, stride, 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_along(x: jax.Array, window: int, stride: int, axis: int) -> jax.Array:
    return functools.reduce(jnp.maximum, _shifted(x, window, stride, axis))


def _max_and_place(
    x: jax.Array, window: int, stride: int, axis: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    first, *others = _shifted(x, window, stride, axis)
    largest, place = first, jnp.zeros(first.shape, jnp.uint8)
    for index, other in enumerate(others, 1):
        place = jnp.where(other > largest, jnp.uint8(index), place)
        largest = jnp.maximum(largest, other)
    # Only the shape of the second is used: a row of no bytes says it.
    return largest, (place, jnp.zeros((x.shape[axis], 0), x.dtype))


def _max_gradient(
    window: int,
    stride: int,
    axis: int,
    kept: tuple[jax.Array, jax.Array],
    gradient: jax.Array,
) -> tuple[jax.Array]:
    """Each pixel takes the gradients of the windows in which it was the largest."""
    place, shape = kept
    length = shape.shape[0]
    covered = (place.shape[axis] - 1) * stride + 1
    borders = [(0, 0, 0)] * place.ndim
    before = window - 1 - window // 2
    borders[axis] = (before, length + window - 1 - before - covered, stride - 1)
    place = lax.pad(place, jnp.uint8(window), borders)  # a place that no pixel has
    gradient = lax.pad(gradient, jnp.zeros((), gradient.dtype), borders)
    total = jnp.zeros((), jnp.float32)
    for index in range(window):
        start = window - 1 - index
        at = functools.partial(
            lax.slice_in_dim, start_index=start, limit_index=start + length, axis=axis
        )
        total = total + jnp.where(at(place) == index, at(gradient), 0).astype(
            jnp.float32
        )
    return (total.astype(gradient.dtype),)


_max_along.defvjp(_max_and_place, _max_gradient)


def _shifted(x: jax.Array, window: int, stride: int, axis: int) -> list[jax.Array]:
    """For each place in the window, what is there around each `stride`-th pixel."""
    length = x.shape[axis]
    borders = [(0, 0)] * x.ndim
    borders[axis] = (window // 2, window // 2)
    padded = jnp.pad(x, borders, constant_values=-jnp.inf)
    return [
        lax.slice_in_dim(padded, start, start + length, stride, axis)
        for start in range(window)
    ]


def depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Each channel convolved with a kernel of its own, without a border.

    A sum of shifted slices, which XLA fuses; the products of bfloat16 values are added
    in float32.

    x: float [B,H,W,C], with the zeros of the border; kernel: [k,k,1,C] of x's dtype →
    [B,(H-k)//stride+1,(W-k)//stride+1,C] of that dtype.
    """
    size = kernel.shape[0]
    height, width = ((length - size) // stride * stride + 1 for length in x.shape[1:3])
    # Before they are shifted, so that gradients are added in float32, too.
    wide, weights = x.astype(jnp.float32), kernel.astype(jnp.float32)
    total = jnp.zeros((), jnp.float32)
    for row in range(size):
        for column in range(size):
            shifted = wide[
                :, row : row + height : stride, column : column + width : stride
            ]
            total = total + shifted * weights[row, column, 0][None, None, None]
    return total.astype(x.dtype)
