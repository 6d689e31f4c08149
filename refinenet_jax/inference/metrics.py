"""Scores from one confusion matrix over a whole data set."""

import jax
import jax.numpy as jnp
import numpy as np

from refinenet_jax.errors import UserError

CONVENTION = (
    "one confusion matrix over all images at their own size; pixels labelled 255 are "
    "left out; IoU = TP / (TP + FP + FN); a class in neither truth nor prediction is "
    "null and left out of the mean"
)


def confusion_matrix(
    prediction: jax.Array, label: jax.Array, num_classes: int
) -> jax.Array:
    """Counts pixels by true class (row) and predicted class (column).

    prediction, label: integer [B,H,W]; pixels whose label is num_classes or more, such
    as 255, are left out → int32 [num_classes,num_classes].
    """
    label, prediction = label.astype(jnp.int32), prediction.astype(jnp.int32)
    counted = label < num_classes
    # Pixels that do not count fall beyond the end, where a scatter drops them.
    cell = jnp.where(counted, label * num_classes + prediction, num_classes**2)
    counts = jnp.zeros(num_classes**2, jnp.int32).at[cell.ravel()].add(1, mode="drop")
    return counts.reshape(num_classes, num_classes)


def per_class_iou(matrix: np.ndarray) -> np.ndarray:
    """int64 [C,C] → float64 [C]; NaN where a class is in neither truth nor prediction."""
    correct = np.diag(matrix).astype(np.float64)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - correct
    return _ratio(correct, union)


def scores(matrix: np.ndarray) -> dict[str, float]:
    """The four scores of Long et al. 2015, section 5, as shares in 0..1.

    matrix: int64 [C,C], row = true class. A class without true pixels has no accuracy
    and is left out of mean_accuracy.

    Raises:
        UserError: the matrix is empty; there is nothing to score.
    """
    if not matrix.sum():
        raise UserError(
            "config.data.eval_split holds no labelled pixel: choose another split"
        )
    correct, truth = np.diag(matrix).astype(np.float64), matrix.sum(axis=1)
    iou = per_class_iou(matrix)
    return {
        "mean_iou": float(np.nanmean(iou)),
        "pixel_accuracy": float(correct.sum() / truth.sum()),
        "mean_accuracy": float(np.nanmean(_ratio(correct, truth))),
        "frequency_weighted_iou": float(np.nansum(iou * truth) / truth.sum()),
    }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
