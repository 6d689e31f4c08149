"""Scores of predictions.

from refinenet_jax.evaluation import class_counts, confusion_matrices, own_convention
from refinenet_jax.evaluation import scores

matrices = confusion_matrices(prediction, label, 21)  # integer [B,H,W] → int32 [B,21,21]
counts = class_counts(np.asarray(matrices).sum(axis=0))
scores(counts, own_convention("voc2012"))  # {"mean_iou": ..., "pixel_accuracy": ..., ...}
"""

from refinenet_jax.evaluation.boundary import count_boundaries
from refinenet_jax.evaluation.counting import class_counts, confusion_matrices
from refinenet_jax.evaluation.intervals import bootstrap
from refinenet_jax.evaluation.metrics import conventions, iou, own_convention, scores

__all__ = [
    "bootstrap",
    "class_counts",
    "confusion_matrices",
    "conventions",
    "count_boundaries",
    "iou",
    "own_convention",
    "scores",
]
