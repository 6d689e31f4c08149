"""Counts pixels by class, on the devices that predicted them."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from refinenet_jax.labels import IGNORE_LABEL
from refinenet_jax.sharding import Layout

Counts = npt.NDArray[np.int64]


def confusion_matrices(
    prediction: jax.Array | np.ndarray,
    label: jax.Array | np.ndarray,
    num_classes: int,
) -> jax.Array:
    """Counts the pixels of each image by true class (row) and predicted class (column).

    prediction, label: integer [B,H,W], an image with fewer than 2³¹ pixels; pixels whose
    label is num_classes or more, such as 255, are left out → int32
    [B,num_classes,num_classes].

    Example:
        matrices = confusion_matrices(jnp.array([[[0, 1]]]), jnp.array([[[1, 255]]]), 2)
        assert matrices.tolist() == [[[0, 0], [1, 0]]]
    """
    label, prediction = (jnp.asarray(x, jnp.int32) for x in (label, prediction))
    counted = label < num_classes
    # Pixels that do not count fall beyond the end, where a scatter drops them.
    cell = jnp.where(counted, label * num_classes + prediction, num_classes**2)

    def count(cells: jax.Array) -> jax.Array:
        zeros = jnp.zeros(num_classes**2, jnp.int32)
        return zeros.at[cells.ravel()].add(1, mode="drop")

    return jax.vmap(count)(cell).reshape(-1, num_classes, num_classes)


def class_counts(matrices: npt.NDArray[np.integer]) -> Counts:
    """Correct, predicted and true pixels of each class: [...,C,C] → int64 [...,C,3].

    Example:
        assert class_counts(np.array([[5, 1], [0, 4]])).tolist() == [[5, 5, 6], [4, 5, 4]]
    """
    correct = np.diagonal(matrices, axis1=-2, axis2=-1).astype(np.int64)
    predicted = matrices.sum(axis=-2, dtype=np.int64)
    true = matrices.sum(axis=-1, dtype=np.int64)
    return np.stack([correct, predicted, true], axis=-1)


def count_on_devices(
    prediction: jax.Array,
    labels: Sequence[np.ndarray],
    num_classes: int,
    layout: Layout,
) -> jax.Array:
    """Confusion matrices of predictions that need not have arrived yet.

    Args:
        prediction: uint8 [B,H,W], divided as `layout` says; padded.
        labels: at most B of uint8 [h,w], 255 = ignore, no larger than H and W.
        num_classes: C.
        layout: of the predictions.

    Returns:
        int32 [B,C,C], of zeros beyond the labels given; on its way.
    """
    padded = np.full(prediction.shape, IGNORE_LABEL, np.uint8)
    for row, label in zip(padded, labels, strict=False):
        row[: label.shape[0], : label.shape[1]] = label
    label_array = jax.device_put(padded, layout.batch)
    return _compiled(layout)(prediction, label_array, num_classes)


@functools.cache
def _compiled(layout: Layout) -> jax.stages.Wrapped:
    """`confusion_matrices`, compiled once for all evaluations of a run."""
    return jax.jit(
        confusion_matrices,
        static_argnums=2,
        in_shardings=(layout.batch, layout.batch),
        out_shardings=layout.examples,
    )
