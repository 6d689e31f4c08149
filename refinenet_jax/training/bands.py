"""Scores enlarged to the label, a band of rows at a time.

The scores at the size of the label, and their softmax, would be the largest arrays of a
training step. Here no more than a band of them is there at once.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from refinenet_jax.labels import IGNORE_LABEL
from refinenet_jax.models.resize import resize_weights, weighted

_Found = TypeVar("_Found")

# Of pixels: (logits float32 [B,r,W,classes], label integer [B,r,W], *constants) →.
OfPixels = Callable[..., _Found]
# Row weights float32 [rows,h] and label [B,rows,W]; or many of them.
Band = tuple[jax.Array, jax.Array]

_BAND = 64  # rows of the label that are enlarged together


def bands(logits: jax.Array, label: jax.Array) -> Band:
    """The label in bands of every n-th row, and how their scores are made.

    A band of neighbouring rows would lie on one device where pictures are split by
    rows, and the others would wait.

    Returns:
        Row weights float32 [n,rows,h] and labels [n,B,rows,W]; of the last bands some
        rows may be beyond the picture, and have nothing valid.
    """
    height, rows = label.shape[1], min(_BAND, label.shape[1])
    count = -(-height // rows)
    beyond = count * rows - height
    weights = _to_label(logits.shape[1], height)
    weights = jnp.pad(weights, [(0, beyond), (0, 0)])
    label = jnp.pad(label, [(0, 0), (0, beyond), (0, 0)], constant_values=IGNORE_LABEL)
    return (
        weights.reshape(rows, count, -1).swapaxes(0, 1),
        jnp.moveaxis(label.reshape(len(label), rows, count, -1), 2, 0),
    )


def joined(values: jax.Array, height: int) -> jax.Array:
    """What was made of `bands`, [n,B,rows,W], in the order of the label, [B,H,W]."""
    count, size, rows, width = values.shape
    return jnp.moveaxis(values, 0, 2).reshape(size, rows * count, width)[:, :height]


def enlarged(logits: jax.Array, band: Band) -> jax.Array:
    """The scores of a band: [B,h,w,classes] → [B,rows,W,classes]."""
    row_weights, label = band
    rows = weighted(logits, row_weights, 1)
    return weighted(rows, _to_label(logits.shape[2], label.shape[2]), 2)


def enlarged_plane(plane: jax.Array, row_weights: jax.Array, width: int) -> jax.Array:
    """All bands of one class: [B,h,w], [n,rows,h] → [n,B,rows,width]."""
    rows = jnp.einsum(
        "nrh,bhw->nbrw", row_weights, plane, precision=lax.Precision.HIGHEST
    )
    columns = _to_label(plane.shape[2], width)
    return jnp.einsum("nbrw,ow->nbro", rows, columns, precision=lax.Precision.HIGHEST)


def _to_label(length: int, to: int) -> jax.Array:
    """Shares of pixels as torch's interpolate has them: float32 [to,length]."""
    return resize_weights(length, to, jnp.asarray(length), jnp.asarray(to), "bilinear")


def of_each(function: OfPixels, logits: jax.Array, label: jax.Array) -> jax.Array:
    """A value for each pixel, [B,H,W]: what `function` gives as [B,rows,W].

    Its gradient keeps the logits and enlarges them again.
    """

    @jax.checkpoint
    def of_band(band: Band) -> jax.Array:
        return function(enlarged(logits, band), band[1])

    return joined(lax.map(of_band, bands(logits, label)), label.shape[1])


def sums(function: OfPixels[Any], logits: jax.Array, label: jax.Array) -> Any:
    """Sums over all pixels, a tree of arrays; `function` gives those of a band.

    Its gradient keeps the logits and enlarges them again.
    """

    @jax.checkpoint
    def add(total: Any, band: Band) -> tuple[Any, None]:
        found = function(enlarged(logits, band), band[1])
        return jax.tree.map(jnp.add, total, found), None

    shape = jax.eval_shape(lambda z, y: function(z, y[..., :1]), logits, label[:, :1])
    start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape)
    return lax.scan(add, start, bands(logits, label))[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def sum_with_gradient(
    function: OfPixels[jax.Array],
    logits: jax.Array,
    label: jax.Array,
    constants: tuple[Any, ...] = (),
) -> jax.Array:
    """`sums` of one number, whose gradient is taken band by band at the same time.

    constants: arrays that `function` also takes, which have no gradient.
    """

    def add(total: jax.Array, band: Band) -> tuple[jax.Array, None]:
        return total + function(enlarged(logits, band), band[1], *constants), None

    return lax.scan(add, jnp.zeros((), jnp.float32), bands(logits, label))[0]


def _sum_and_gradient(
    function: OfPixels[jax.Array],
    logits: jax.Array,
    label: jax.Array,
    constants: tuple[Any, ...],
) -> tuple[jax.Array, jax.Array]:
    @jax.value_and_grad
    def of_band(logits: jax.Array, band: Band) -> jax.Array:
        return function(enlarged(logits, band), band[1], *constants)

    def add(
        totals: tuple[jax.Array, jax.Array], band: Band
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        return jax.tree.map(jnp.add, totals, of_band(logits, band)), None

    start = jnp.zeros((), jnp.float32), jnp.zeros_like(logits)
    return lax.scan(add, start, bands(logits, label))[0]


def _scaled(
    function: OfPixels[jax.Array], gradient: jax.Array, scale: jax.Array
) -> tuple[jax.Array, None, None]:
    del function
    return scale * gradient, None, None


sum_with_gradient.defvjp(_sum_and_gradient, _scaled)
