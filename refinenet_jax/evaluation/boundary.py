"""Scores along the boundaries of objects, which the IoU of large areas hides.

Ignored pixels are never counted and belong to no class: distances run across them. So
where a strip of them separates two objects, as in VOC, the boundary pixels are those
within reach of the other object beyond the strip; where they fill one side, as the
car's bonnet in Cityscapes, there is no boundary.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from refinenet_jax.evaluation.counting import Counts
from refinenet_jax.evaluation.metrics import (
    Convention,
    by_class,
    iou,
    known,
    pixel_accuracy,
)
from refinenet_jax.labels import IGNORE_LABEL

RADII = (1, 2, 4, 8, 16, 32)  # of the trimaps, in pixels
NUM_BANDS = 1 + len(RADII)

Label = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def count_boundaries(
    prediction: Label, label: Label, num_classes: int, width: float
) -> Counts:
    """Counts the pixels of one image near boundaries.

    A pixel is within a distance of a boundary where a pixel of another class is at most
    so many rows and so many columns away.

    Example:
        label = np.zeros((40, 60), np.uint8)
        label[10:30, 20:40] = 1
        counts = count_boundaries(np.roll(label, 2, axis=1), label, 2, width=0.02)
        boundary_iou = iou(counts[0])  # float64 [2]

    Args:
        prediction: uint8 [H,W] class ids.
        label: uint8 [H,W] class ids, 255 = ignore.
        num_classes: C.
        width: of the band of the boundary IoU, as a share of the image's diagonal.

    Returns:
        int64 [NUM_BANDS,C,3], as `counting.class_counts`. First for the boundary IoU of
        Cheng et al. 2021: truth and prediction each reduced to the pixels within the
        width of their own boundary or of the edge of the image, as in their
        mask_to_boundary. Then for the trimaps of Kohli et al. 2009: the pixels within
        each of RADII of a true boundary.
    """
    counted = label != IGNORE_LABEL
    distance = max(1, round(width * np.hypot(*label.shape)))
    true_band = _band(label, counted, distance)
    predicted_band = _band(prediction, counted, distance)
    both = true_band & predicted_band & (prediction == label)
    masks = (label[both], prediction[predicted_band], label[true_band])
    band = [np.bincount(values, minlength=num_classes) for values in masks]
    trimaps = _count_trimaps(prediction, label, counted, num_classes)
    return np.concatenate([np.stack(band, axis=-1)[None], trimaps])


def summary(
    counts: Counts, convention: Convention, class_names: Sequence[str], width: float
) -> dict[str, Any]:
    """What eval.json holds; int64 [NUM_BANDS,C,3], summed over the images."""
    band, trimaps = counts[0], counts[1:]
    return {
        "mean_iou": known([convention.mean_iou(band)])[0],
        "per_class_iou": by_class(iou(band), class_names),
        "width_of_diagonal": width,
        "trimap": {
            "radii": list(RADII),
            "mean_iou": known(convention.mean_iou(trimaps)),
            "pixel_accuracy": known(pixel_accuracy(trimaps)),
            "pixels": trimaps[..., 2].sum(axis=-1).tolist(),
        },
    }


def _count_trimaps(
    prediction: Label, label: Label, counted: Mask, num_classes: int
) -> Counts:
    """int64 [len(RADII),C,3], see `count_boundaries`."""
    # How many of the radii a pixel is beyond.
    beyond = np.zeros(label.shape, np.int64)
    lowest, highest = _extremes(label, counted)
    reached = 0
    for radius in RADII:
        # From one radius to the next: a square grown twice is a larger square.
        lowest = _grow(cv2.erode, lowest, radius - reached)
        highest = _grow(cv2.dilate, highest, radius - reached)
        beyond += (lowest == label) & (highest == label)
        reached = radius
    shape = (NUM_BANDS, num_classes)
    correct = counted & (prediction == label)
    counts = [
        np.bincount(
            beyond[mask] * num_classes + values[mask], minlength=np.prod(shape)
        ).reshape(shape)
        for values, mask in ((label, correct), (prediction, counted), (label, counted))
    ]
    # Each radius holds the pixels of the smaller ones; the last row is beyond them all.
    return np.stack(counts, axis=-1).cumsum(axis=0)[: len(RADII)]


def _band(classes: Label, counted: Mask, distance: int) -> Mask:
    """Counted pixels that near another class or the edge of the image: bool [H,W]."""
    lowest, highest = _extremes(classes, counted)
    near = _grow(cv2.erode, lowest, distance) != classes
    near |= _grow(cv2.dilate, highest, distance) != classes
    inside = np.zeros_like(near)
    inside[distance:-distance, distance:-distance] = True
    return counted & (near | ~inside)


def _extremes(classes: Label, counted: Mask) -> tuple[Label, Label]:
    """The map for minima and for maxima; what is not counted changes neither."""
    return np.where(counted, classes, 255).astype(np.uint8), classes * counted


def _grow(operation: Any, values: Label, distance: int) -> Label:
    """Minimum (cv2.erode) or maximum (cv2.dilate) over a square; none beyond the edge."""
    edge = 2 * distance + 1
    across = operation(values, np.ones((1, edge), np.uint8))
    return operation(across, np.ones((edge, 1), np.uint8))
