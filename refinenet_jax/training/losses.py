"""Softmax cross-entropy over the labelled pixels of a whole batch."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from refinenet_jax.labels import IGNORE_LABEL
from refinenet_jax.models.resize import resize_weights, weighted

_Band = tuple[jax.Array, jax.Array]

_BAND = 64  # rows of the label that are enlarged together


def cross_entropy(
    logits: jax.Array,
    label: jax.Array | np.ndarray,
    resolution: Literal["label", "prediction"],
) -> jax.Array:
    """Mean cross-entropy over the valid pixels of the global batch.

    Example:
        logits = jnp.zeros((4, 16, 12, 3))  # of a quarter of the size of the labels
        loss = cross_entropy(logits, labels, "label")
        np.testing.assert_allclose(loss, np.log(3), rtol=1e-6)

    Args:
        logits: float32 [B,h,w,classes].
        label: integer [B,H,W] class ids, 255 = ignore.
        resolution: "label" resizes the logits to [H,W] (bilinear, half-pixel centres,
            as the light-weight RefineNet's code); "prediction" picks the nearest label
            of each logit (as the paper's code).

    Returns:
        float32 []; 0 where no pixel is valid.
    """
    label = jnp.asarray(label)
    if resolution == "label":
        total = _sum_over_enlarged(logits, label)
    else:
        _, height, width, _ = logits.shape
        label = nearest(label, (height, width))
        total = _sum(logits, label)
    return total / jnp.maximum((label != IGNORE_LABEL).sum(), 1)


def _sum(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Of the losses of all valid pixels: [B,h,w,classes], [B,h,w] → float32 []."""
    valid = label != IGNORE_LABEL
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits, jnp.where(valid, label, 0).astype(jnp.int32)
    )
    return jnp.where(valid, losses, 0).sum()


@jax.custom_vjp
def _sum_over_enlarged(logits: jax.Array, label: jax.Array) -> jax.Array:
    """`_sum` of the logits resized to the label, [B,h,w,classes], [B,H,W] → float32 [].

    The enlarged scores and their softmax would be the largest arrays of a training
    step. A band of rows at a time is enlarged, and its gradient taken at once, so that
    nothing of the label's size is kept for the backward pass.
    """

    def add(total: jax.Array, band: _Band) -> tuple[jax.Array, None]:
        return total + _sum_of_band(logits, band), None

    return lax.scan(add, jnp.zeros((), jnp.float32), _bands(logits, label))[0]


def _sum_and_gradient(
    logits: jax.Array, label: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def add(
        totals: tuple[jax.Array, jax.Array], band: _Band
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        found = jax.value_and_grad(_sum_of_band)(logits, band)
        return jax.tree.map(jnp.add, totals, found), None

    start = jnp.zeros((), jnp.float32), jnp.zeros_like(logits)
    return lax.scan(add, start, _bands(logits, label))[0]


def _scaled(gradient: jax.Array, scale: jax.Array) -> tuple[jax.Array, None]:
    return scale * gradient, None


_sum_over_enlarged.defvjp(_sum_and_gradient, _scaled)


def _bands(logits: jax.Array, label: jax.Array) -> _Band:
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
    weights = resize_weights(
        logits.shape[1],
        height,
        jnp.asarray(logits.shape[1]),
        jnp.asarray(height),
        "bilinear",
    )
    weights = jnp.pad(weights, [(0, beyond), (0, 0)])
    label = jnp.pad(label, [(0, 0), (0, beyond), (0, 0)], constant_values=IGNORE_LABEL)
    return (
        weights.reshape(rows, count, -1).swapaxes(0, 1),
        jnp.moveaxis(label.reshape(len(label), rows, count, -1), 2, 0),
    )


def _sum_of_band(logits: jax.Array, band: _Band) -> jax.Array:
    row_weights, label = band
    width, to = logits.shape[2], label.shape[2]
    column_weights = resize_weights(
        width, to, jnp.asarray(width), jnp.asarray(to), "bilinear"
    )
    rows = weighted(logits, row_weights, 1)
    return _sum(weighted(rows, column_weights, 2), label)


def valid_pixels(
    outputs: jax.Array,
    label: jax.Array | np.ndarray,
    resolution: Literal["label", "prediction"] = "label",
) -> jax.Array:
    """Number of pixels that `cross_entropy` is the mean of; arguments as there.

    Example:
        assert valid_pixels(logits, jnp.array([[[0, 255, 1]]])) == 2

    Returns:
        float32 [].
    """
    label = jnp.asarray(label)
    if resolution == "prediction":
        _, height, width, _ = outputs.shape
        label = nearest(label, (height, width))
    return (label != IGNORE_LABEL).sum().astype(jnp.float32)


def nearest(label: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Labels at pixel centres: [B,H,W] → [B,h,w], as MATLAB's imresize "nearest".

    Example:
        assert nearest(labels, (16, 12)).shape == (4, 16, 12)
    """
    rows, columns = (
        ((jnp.arange(to) + 0.5) * (size / to)).astype(jnp.int32)
        for to, size in zip(shape, label.shape[1:3], strict=True)
    )
    return label[:, rows][:, :, columns]
