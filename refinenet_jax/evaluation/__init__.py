"""Scores of predictions, from arrays; `scores` shows the way from them to a mean IoU."""

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
