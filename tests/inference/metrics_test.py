import jax.numpy as jnp
import numpy as np
import pytest

from refinenet_jax.errors import UserError
from refinenet_jax.inference.metrics import confusion_matrix, per_class_iou, scores


def oracle(prediction, label, num_classes):
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for true, predicted in zip(label.ravel(), prediction.ravel(), strict=True):
        if true != 255:
            matrix[true, predicted] += 1
    return matrix


def test_confusion_matrix_counts_every_labelled_pixel_once():
    rng = np.random.default_rng(0)
    prediction = rng.integers(0, 5, (3, 7, 11)).astype(np.uint8)
    label = rng.choice([0, 1, 2, 4, 255], (3, 7, 11)).astype(np.uint8)
    matrix = np.asarray(
        confusion_matrix(jnp.asarray(prediction), jnp.asarray(label), 5)
    )
    assert matrix.tolist() == oracle(prediction, label, 5).tolist()
    assert matrix.sum() == (label != 255).sum()


def test_scores_by_hand():
    # True class 0: 3 right, 1 taken for 1. True class 1: 2 right. Class 2: absent.
    matrix = np.asarray([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    iou = per_class_iou(matrix)
    assert iou[:2].tolist() == pytest.approx([3 / 4, 2 / 3])
    assert np.isnan(iou[2])
    found = scores(matrix)
    assert found["mean_iou"] == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert found["pixel_accuracy"] == pytest.approx(5 / 6)
    assert found["mean_accuracy"] == pytest.approx((3 / 4 + 1) / 2)
    assert found["frequency_weighted_iou"] == pytest.approx((4 * 3 / 4 + 2 * 2 / 3) / 6)


def test_a_class_that_is_only_predicted_counts_as_zero():
    matrix = np.asarray([[3, 1], [0, 0]])
    assert per_class_iou(matrix).tolist() == [0.75, 0.0]
    assert scores(matrix)["mean_iou"] == 0.375
    assert scores(matrix)["mean_accuracy"] == 0.75


def test_large_counts_stay_exact():
    matrix = np.asarray([[10**11, 1], [1, 10**11]])
    assert per_class_iou(matrix)[0] == 10**11 / (10**11 + 2)


def test_nothing_to_score():
    with pytest.raises(UserError, match="no labelled pixel"):
        scores(np.zeros((2, 2), np.int64))
