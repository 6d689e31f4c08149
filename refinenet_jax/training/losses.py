"""Softmax cross-entropy over the labelled pixels of a whole batch."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from refinenet_jax.labels import IGNORE_LABEL
from refinenet_jax.models.layers import FeatureMap
from refinenet_jax.models.resize import resize


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
        _, height, width = label.shape
        logits = resize(FeatureMap(logits), (height, width), None, "bilinear").values
    else:
        _, height, width, _ = logits.shape
        label = nearest(label, (height, width))
    valid = label != IGNORE_LABEL
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits, jnp.where(valid, label, 0).astype(jnp.int32)
    )
    return jnp.where(valid, losses, 0).sum() / jnp.maximum(valid.sum(), 1)


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
