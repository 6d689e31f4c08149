import numpy as np
import pytest

from refinenet_jax.errors import UserError
from refinenet_jax.evaluation import metrics
from refinenet_jax.evaluation.counting import class_counts
from refinenet_jax.evaluation.metrics import (
    conventions,
    iou,
    own_convention,
    scores,
)

OWN = own_convention("voc2012")


def means(matrix, names):
    counts = class_counts(np.asarray(matrix))
    return {each.name: float(each.mean_iou(counts)) for each in conventions(names)}


def test_scores_by_hand():
    # True class 0: 3 right, 1 taken for 1. True class 1: 2 right. Class 2: absent.
    counts = class_counts(np.asarray([[3, 1, 0], [0, 2, 0], [0, 0, 0]]))
    assert counts.tolist() == [[3, 3, 4], [2, 3, 2], [0, 0, 0]]
    assert iou(counts)[:2].tolist() == pytest.approx([3 / 4, 2 / 3])
    assert np.isnan(iou(counts)[2])
    found = scores(counts, OWN)
    assert found["mean_iou"] == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert found["pixel_accuracy"] == pytest.approx(5 / 6)
    assert found["mean_accuracy"] == pytest.approx((3 / 4 + 1) / 2)
    assert found["frequency_weighted_iou"] == pytest.approx((4 * 3 / 4 + 2 * 2 / 3) / 6)


def test_every_convention_by_hand():
    # IoU 6/8 of class 0, 3/4 of class 1; class 2 is only predicted, 3 is absent.
    matrix = np.zeros((4, 4), np.int64)
    matrix[0, :3] = 6, 1, 1
    matrix[1, 1] = 3
    assert means(matrix, ("wall", "floor", "door", "lamp")) == {
        "absent_left_out": (0.75 + 0.75 + 0) / 3,
        "absent_counts_0": (0.75 + 0.75 + 0 + 0) / 4,
        "absent_counts_1": (0.75 + 0.75 + 0 + 1) / 4,
        "without_truth_left_out": 0.75,
    }
    matrix[0, 0] = 12
    found = means(matrix, ("Background", "floor", "door", "lamp"))
    assert len(found) == 8
    assert found["absent_left_out_without_background"] == (0.75 + 0) / 2
    assert found["absent_counts_0_without_background"] == 0.25
    assert found["absent_counts_1_without_background"] == (0.75 + 0 + 1) / 3
    assert found["without_truth_left_out_without_background"] == 0.75


def test_the_headline_is_the_data_sets_own_convention():
    counts = class_counts(np.asarray([[3, 1, 0], [0, 0, 0], [0, 0, 0]]))
    names = ("wall", "floor", "door")
    for dataset, convention, mean in (
        ("nyudv2", "absent_left_out", 0.375),
        ("ade20k", "absent_counts_0", 0.25),
    ):
        own = own_convention(dataset)
        record = metrics.by_convention(counts, own, names)
        assert record["convention"] == own.name == convention
        assert scores(counts, own)["mean_iou"] == mean
        assert record["mean_iou_by_convention"][convention] == mean
        assert set(record["conventions"]) == set(record["mean_iou_by_convention"])


def test_only_background_leaves_nothing_to_average_without_it():
    counts = class_counts(np.asarray([[3, 0], [0, 0]]))
    found = metrics.by_convention(counts, OWN, ("background", "disk"))
    means = found["mean_iou_by_convention"]
    assert means["absent_left_out"] == 1
    assert means["absent_left_out_without_background"] is None
    assert metrics.by_class(iou(counts), ("background", "disk")) == {
        "background": 1.0,
        "disk": None,
    }


def test_a_class_that_is_only_predicted_counts_as_zero():
    counts = class_counts(np.asarray([[3, 1], [0, 0]]))
    assert iou(counts).tolist() == [0.75, 0.0]
    assert scores(counts, OWN)["mean_iou"] == 0.375
    assert scores(counts, OWN)["mean_accuracy"] == 0.75


def test_large_counts_stay_exact():
    matrix = np.asarray([[10**11, 1], [1, 10**11]])
    assert iou(class_counts(matrix))[0] == 10**11 / (10**11 + 2)


def test_score_of_an_image_is_over_the_classes_it_holds():
    matrices = np.asarray(
        [
            [[2, 2, 0], [0, 4, 0], [0, 0, 0]],
            [[0, 1, 3], [0, 0, 0], [0, 0, 0]],
            np.zeros((3, 3)),
        ],
        np.int32,
    )
    found = metrics.image_scores(class_counts(matrices))
    assert found[:2].tolist() == pytest.approx([(2 / 4 + 4 / 6) / 2, 0])
    assert np.isnan(found[2])


def test_nothing_to_score():
    with pytest.raises(UserError, match="no labelled pixel"):
        scores(np.zeros((2, 3), np.int64), OWN)
