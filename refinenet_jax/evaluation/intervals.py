"""How far scores may be off because the images are only a sample."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet_jax.evaluation.counting import Counts
from refinenet_jax.evaluation.metrics import (
    Convention,
    Scores,
    iou,
    pixel_accuracy,
)

CONFIDENCE = 0.95

_CHUNK = 64  # resampled data sets at a time: bounds the memory


@dataclasses.dataclass(frozen=True)
class Intervals:
    """Lower and upper bounds; NaN where there is nothing to score.

    Attributes:
        mean_iou: float64 [2].
        pixel_accuracy: float64 [2].
        per_class_iou: float64 [C,2].
        samples: how many data sets were drawn.
    """

    mean_iou: Scores
    pixel_accuracy: Scores
    per_class_iou: Scores
    samples: int

    def to_json(self, class_names: Sequence[str]) -> dict[str, Any]:
        """What eval.json holds: [low, high] each, null where there is nothing."""
        return {
            "mean_iou": _pair(self.mean_iou),
            "pixel_accuracy": _pair(self.pixel_accuracy),
            "per_class_iou": {
                name: _pair(pair)
                for name, pair in zip(class_names, self.per_class_iou, strict=True)
            },
            "samples": self.samples,
            "confidence": CONFIDENCE,
        }


def bootstrap(
    counts: Counts, convention: Convention, *, samples: int, seed: int
) -> Intervals:
    """Percentile intervals from data sets of as many images, drawn with replacement.

    Efron and Tibshirani 1993, section 13.3. Each image stays whole: its pixels err
    together. A class's interval is over the data sets that hold it.

    Example:
        matrices = confusion_matrices(jnp.zeros_like(labels), labels, 3)
        counts = class_counts(np.asarray(matrices))  # of each image
        low, high = bootstrap(counts, own_convention(""), samples=100, seed=0).mean_iou

    Args:
        counts: int64 [N,C,3] of each image, N > 0; see `counting.class_counts`.
        convention: which classes mean_iou is over.
        samples: how many data sets are drawn, > 0.
        seed: decides which; 0 <= seed < 2**32.
    """
    rng = np.random.default_rng(seed)
    num_images, num_classes, _ = counts.shape
    # Exact: float64 holds every integer up to 2**53, more than the pixels of any set.
    flat = counts.reshape(num_images, -1).astype(np.float64)
    found = []
    for start in range(0, samples, _CHUNK):
        size = min(_CHUNK, samples - start)
        # How often each image is drawn.
        times = rng.multinomial(num_images, np.full(num_images, 1 / num_images), size)
        drawn = (times @ flat).reshape(size, num_classes, 3)
        overall = np.stack([convention.mean_iou(drawn), pixel_accuracy(drawn)], axis=1)
        found.append(np.concatenate([overall, iou(drawn)], axis=1))
    mean, accuracy, *classes = (
        _bounds(column) for column in np.concatenate(found, axis=0).T
    )
    return Intervals(mean, accuracy, np.stack(classes), samples)


def _bounds(values: Scores) -> Scores:
    """float64 [S], NaN left out → float64 [2]."""
    values = values[~np.isnan(values)]
    if not len(values):
        return np.full(2, np.nan)
    tail = (1 - CONFIDENCE) / 2
    return np.quantile(values, [tail, 1 - tail])


def _pair(bounds: npt.NDArray[np.float64]) -> list[float] | None:
    return None if np.isnan(bounds).any() else bounds.tolist()
