"""Arithmetic on plain arrays that keeps less, or rounds less, than it would by itself."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

_Arrays = tuple[jax.Array, ...]


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
    def largest(first: int, seen: Sequence[_Arrays]) -> _Arrays:
        return (functools.reduce(jnp.maximum, (values for (values,) in seen)),)

    [maxima] = _along(largest, (x,), (-jnp.inf,), window, stride, axis)
    return maxima


def _max_and_place(
    x: jax.Array, window: int, stride: int, axis: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    def largest_and_place(first: int, seen: Sequence[_Arrays]) -> _Arrays:
        [largest], *others = seen
        place = jnp.full(largest.shape, first, jnp.uint8)
        for index, [other] in enumerate(others, first + 1):
            place = jnp.where(other > largest, jnp.uint8(index), place)
            largest = jnp.maximum(largest, other)
        return largest, place

    maxima, place = _along(largest_and_place, (x,), (-jnp.inf,), window, stride, axis)
    # Only the shape of the second is used: a row of no bytes says it.
    return maxima, (place, jnp.zeros((x.shape[axis], 0), x.dtype))


def _max_gradient(
    window: int,
    stride: int,
    axis: int,
    kept: tuple[jax.Array, jax.Array],
    gradient: jax.Array,
) -> tuple[jax.Array]:
    """Each pixel takes the gradients of the windows in which it was the largest."""
    place, shape = kept
    arrays, fills = (place, gradient), (window, 0)  # a place that no pixel has
    if stride > 1:
        gaps = [(0, 0, 0)] * place.ndim
        covered = (place.shape[axis] - 1) * stride + 1
        gaps[axis] = (0, shape.shape[0] - covered, stride - 1)
        place, gradient = (
            lax.pad(array, jnp.asarray(fill, array.dtype), gaps)
            for array, fill in zip(arrays, fills, strict=True)
        )

    def gathered(first: int, seen: Sequence[_Arrays]) -> _Arrays:
        total = jnp.zeros((), jnp.float32)
        for index, (place, gradient) in reversed(list(enumerate(seen, first))):
            here = place == window - 1 - index
            total = total + jnp.where(here, gradient, 0).astype(jnp.float32)
        return (total.astype(gradient.dtype),)

    [total] = _along(gathered, (place, gradient), fills, window, 1, axis)
    return (total,)


_max_along.defvjp(_max_and_place, _max_gradient)


def _along(
    compute: Callable[[int, Sequence[_Arrays]], _Arrays],
    arrays: _Arrays,
    fills: tuple[float, ...],
    window: int,
    stride: int,
    axis: int,
) -> _Arrays:
    """What `compute` makes of a window around each `stride`-th pixel, along an axis.

    On CPUs it is called for runs of pixels that see the same part of their windows,
    which takes less than half the time: with a border around the arrays each value
    would be asked whether it is one.

    Args:
        compute: is given the first place in the window that its pixels see, and for
            that and the following the arrays as they are there.
        arrays: [B,H,W,C] each.
        fills: what each array has beyond its border.
        window: odd.
        stride: of the result.
        axis: 1 or 2.
    """
    length, reach = arrays[0].shape[axis], window // 2
    count = -(-length // stride)

    def seen(arrays: _Arrays, start: int, count: int) -> _Arrays:
        end = start + (count - 1) * stride + 1
        return tuple(lax.slice_in_dim(x, start, end, stride, axis) for x in arrays)

    def of_bordered(*arrays: jax.Array) -> _Arrays:
        border = [(0, 0)] * arrays[0].ndim
        border[axis] = (reach, reach)
        bordered = tuple(
            jnp.pad(x, border, constant_values=fill)
            for x, fill in zip(arrays, fills, strict=True)
        )
        return compute(0, [seen(bordered, place, count) for place in range(window)])

    def of_runs(*arrays: jax.Array) -> _Arrays:
        whole = range(
            min(-(-reach // stride), count), (length - 1 - reach) // stride + 1
        )
        runs = [(i, 1) for i in range(count) if i not in whole]
        if whole:
            runs.insert(whole.start, (whole.start, len(whole)))
        found = []
        for pixel, pixels in runs:
            start = pixel * stride - reach
            places = [p for p in range(window) if 0 <= start + p < length]
            found.append(
                compute(places[0], [seen(arrays, start + p, pixels) for p in places])
            )
        joined = (lax.concatenate(parts, axis) for parts in zip(*found, strict=True))
        return lax.optimization_barrier(tuple(joined))

    return lax.platform_dependent(*arrays, cpu=of_runs, default=of_bordered)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Each channel convolved with a kernel of its own, without a border.

    The products of bfloat16 values are added in float32.

    x: float [B,H,W,C], with the zeros of the border; kernel: [k,k,1,C] of x's dtype →
    [B,(H-k)//stride+1,(W-k)//stride+1,C] of that dtype.
    """
    return _sum_of_shifted(x, kernel, stride)


def _sum_of_shifted(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """A sum of shifted slices, which XLA fuses."""
    size = kernel.shape[0]
    height, width = ((length - size) // stride * stride + 1 for length in x.shape[1:3])
    # Before they are shifted, so that gradients are added in float32, too.
    wide, weights = x.astype(jnp.float32), kernel.astype(jnp.float32)
    # On CPUs a border that is not written first is asked for at each value.
    wide = lax.platform_dependent(
        wide, cpu=lax.optimization_barrier, default=lambda x: x
    )
    total = jnp.zeros((), jnp.float32)
    for row in range(size):
        for column in range(size):
            shifted = wide[
                :, row : row + height : stride, column : column + width : stride
            ]
            total = total + shifted * weights[row, column, 0][None, None, None]
    return total.astype(x.dtype)


def _depthwise_and_kept(
    x: jax.Array, kernel: jax.Array, stride: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _sum_of_shifted(x, kernel, stride), (x, kernel)


def _depthwise_gradient(
    stride: int, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def of_jax(*arrays: jax.Array) -> tuple[jax.Array, jax.Array]:
        x, kernel, gradient = arrays
        convolve = functools.partial(_sum_of_shifted, stride=stride)
        found: tuple[jax.Array, jax.Array] = jax.vjp(convolve, x, kernel)[1](gradient)
        return found

    def row_by_row(*arrays: jax.Array) -> tuple[jax.Array, jax.Array]:
        of_x, _ = of_jax(*arrays)
        return of_x, _kernel_gradient_by_rows(*arrays, stride=stride)

    return lax.platform_dependent(*kept, gradient, cpu=row_by_row, default=of_jax)


def _kernel_gradient_by_rows(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, *, stride: int
) -> jax.Array:
    """On CPUs a sum over whole pictures would have each shifted copy written."""
    size, width = kernel.shape[0], gradient.shape[2]
    x, gradient = lax.optimization_barrier((x, gradient))

    def add(totals: list[jax.Array], index: jax.Array) -> tuple[list[jax.Array], None]:
        over = lax.dynamic_index_in_dim(gradient, index, 1, keepdims=False)
        over = over.astype(jnp.float32)
        rows = (
            lax.dynamic_index_in_dim(x, index * stride + row, 1, keepdims=False)
            for row in range(size)
        )
        seen = (
            row[:, column : column + (width - 1) * stride + 1 : stride]
            for row in rows
            for column in range(size)
        )
        return [
            total + part.astype(jnp.float32) * over
            for total, part in zip(totals, seen, strict=True)
        ], None

    batch, height, _, channels = gradient.shape
    none = [jnp.zeros((batch, width, channels))] * size**2
    totals, _ = lax.scan(add, none, jnp.arange(height))
    found = jnp.stack([total.sum((0, 1)) for total in totals])
    return found.reshape(kernel.shape).astype(kernel.dtype)


depthwise_conv.defvjp(_depthwise_and_kept, _depthwise_gradient)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Batch normalisation with the statistics of the batch.

    The variance is the mean square of what lies around the mean: E[x²] − E[x]² would
    lose its digits where the mean is large. For the gradient x alone is kept, in its
    own dtype; the arithmetic is float32.

    x: float [B,H,W,C]; scale, bias: float32 [C] → of x's shape and dtype; the mean and
    the variance, divided by n, float32 [C] each, through which no gradient goes.
    """
    results, _ = _normalized_and_kept(x, scale, bias, epsilon)
    return results


def _normalized_and_kept(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], _Arrays]:
    wide = x.astype(jnp.float32)
    mean = wide.mean((0, 1, 2), keepdims=True)
    variance = jnp.square(wide - mean).mean((0, 1, 2), keepdims=True)
    rate = lax.rsqrt(variance + epsilon)
    factor = rate * scale[None, None, None]
    # Not of `wide - mean`, which XLA would write for both.
    normalized = wide * factor + (bias[None, None, None] - mean * factor)
    results = normalized.astype(x.dtype), mean.ravel(), variance.ravel()
    return results, (x, mean, rate, factor)


def _norm_gradient(epsilon: float, kept: _Arrays, gradients: _Arrays) -> _Arrays:
    x, mean, rate, factor = kept
    wide, gradient = x.astype(jnp.float32), gradients[0].astype(jnp.float32)
    of_bias = gradient.sum((0, 1, 2), keepdims=True)
    of_scale = (gradient * (wide - mean)).sum((0, 1, 2), keepdims=True) * rate
    count = x.size // x.shape[-1]
    along = rate * of_scale / count
    offset = of_bias / count - mean * along
    of_x = factor * gradient - (factor * along) * wide - factor * offset
    return of_x.astype(x.dtype), of_scale.ravel(), of_bias.ravel()


batch_norm.defvjp(_normalized_and_kept, _norm_gradient)
