import cv2
import numpy as np
import pytest

from refinenet_jax.evaluation.boundary import RADII, count_boundaries, summary
from refinenet_jax.evaluation.metrics import iou, own_convention

OWN = own_convention("voc2012")
WIDTH = 0.02


def neighbours(row, column, distance, shape):
    """The square around a pixel, and whether it reaches beyond the image."""
    rows = range(row - distance, row + distance + 1)
    columns = range(column - distance, column + distance + 1)
    inside = [
        (r, c) for r in rows for c in columns if 0 <= r < shape[0] and 0 <= c < shape[1]
    ]
    return inside, len(inside) < len(rows) * len(columns)


def near(classes, counted, distance, *, edge):
    found = np.zeros(classes.shape, bool)
    for place in np.ndindex(classes.shape):
        inside, beyond = neighbours(*place, distance, classes.shape)
        other = any(counted[p] and classes[p] != classes[place] for p in inside)
        found[place] = counted[place] and (other or (edge and beyond))
    return found


def oracle(prediction, label, num_classes, width):
    counted = label != 255
    distance = max(1, round(width * np.hypot(*label.shape)))
    truth = near(label, counted, distance, edge=True)
    predicted = near(prediction, counted, distance, edge=True)
    rows = []
    for c in range(num_classes):
        t, p = truth & (label == c), predicted & (prediction == c)
        rows.append([(t & p).sum(), p.sum(), t.sum()])
    counts = [rows]
    for radius in RADII:
        band = near(label, counted, radius, edge=False)
        t = [band & (label == c) for c in range(num_classes)]
        p = [band & (prediction == c) for c in range(num_classes)]
        counts.append(
            [[(a & b).sum(), b.sum(), a.sum()] for a, b in zip(t, p, strict=True)]
        )
    return np.asarray(counts)


def blobs(rng, shape, classes):
    """Random areas of a few pixels."""
    small = rng.choice(classes, [-(-n // 4) for n in shape]).astype(np.uint8)
    return np.kron(small, np.ones((4, 4), np.uint8))[: shape[0], : shape[1]].copy()


@pytest.mark.first_cases(8)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (13, 22), (37, 41), (40, 8)])
@pytest.mark.parametrize("width", [0.001, 0.02, 0.1, 1.0])
def test_equals_brute_force(shape, width):
    rng = np.random.default_rng(sum(shape))
    label = blobs(rng, shape, [0, 0, 1, 2, 4, 255])
    prediction = blobs(rng, shape, [0, 0, 1, 2, 3])
    prediction = np.where(rng.random(shape) < 0.6, label % 255, prediction)
    found = count_boundaries(prediction, label, 5, width)
    assert found.dtype == np.int64
    assert found.tolist() == oracle(prediction, label, 5, width).tolist()


def test_mask_to_boundary_of_the_paper():
    # As Cheng et al. 2021 publish it, for each class: eroded within a border of zeros.
    rng = np.random.default_rng(0)
    label = cv2.resize(blobs(rng, (30, 41), [0, 1, 2]), (411, 307), interpolation=0)
    prediction = np.roll(label, (3, -5), (0, 1))
    found = count_boundaries(prediction, label, 3, WIDTH)[0]
    distance = round(WIDTH * np.hypot(307, 411))
    assert distance == 10
    for c in range(3):
        bands = []
        for classes in (prediction, label):
            mask = np.pad((classes == c).astype(np.uint8), 1)
            inner = cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=distance)
            bands.append((mask - inner)[1:-1, 1:-1] > 0)
        both = bands[0] & bands[1]
        assert found[c].tolist() == [both.sum(), bands[0].sum(), bands[1].sum()]


def test_by_hand():
    # Left half class 0, right half class 1; the prediction's edge is one column right.
    label = np.zeros((6, 10), np.uint8)
    label[:, 5:] = 1
    prediction = np.zeros((6, 10), np.uint8)
    prediction[:, 6:] = 1
    counts = count_boundaries(prediction, label, 2, 0.001)  # a width of one pixel
    # Rims of 5×6 and 5×6 true pixels, of 6×6 and 4×6 predicted ones. Class 0 shares
    # top, left and bottom: 5 + 5 + 4; class 1 4 + 4 + 4.
    assert counts[0].tolist() == [[14, 20, 18], [12, 16, 18]]
    # One column on each side of the true edge; that of class 1 is predicted as 0.
    assert counts[1].tolist() == [[6, 12, 6], [0, 0, 6]]
    # Two columns on each side: 12 true pixels of each class.
    assert counts[2].tolist() == [[12, 18, 12], [6, 6, 12]]
    # All of the image, from radius 8 on.
    assert counts[4].tolist() == counts[-1].tolist() == [[30, 36, 30], [24, 24, 30]]
    record = summary(counts, OWN, ("left", "right"), 0.001)
    assert record["per_class_iou"] == {
        "left": pytest.approx(14 / 24),
        "right": pytest.approx(12 / 22),
    }
    assert record["mean_iou"] == pytest.approx((14 / 24 + 12 / 22) / 2)
    assert record["trimap"]["radii"] == [1, 2, 4, 8, 16, 32]
    assert record["trimap"]["mean_iou"][0] == 0.25
    assert record["trimap"]["pixel_accuracy"][:2] == [0.5, 0.75]
    assert record["trimap"]["pixels"] == [12, 24, 48, 60, 60, 60]


def test_a_small_shift_costs_boundary_iou_far_more_than_iou():
    label = np.zeros((400, 500), np.uint8)
    label[100:300, 100:400] = 1
    counts = count_boundaries(label, label, 2, WIDTH)
    assert iou(counts[0]).tolist() == [1, 1]
    shifted = np.roll(label, 2, axis=(0, 1))
    area = (label & shifted).sum() / (label | shifted).sum()
    band = iou(count_boundaries(shifted, label, 2, WIDTH)[0])[1]
    assert area == pytest.approx(0.967, abs=1e-3)
    # Two frames of 300 × 200, 13 pixels wide, shifted by (2, 2): by counting.
    assert band == pytest.approx(0.734, abs=1e-3)


def test_ignored_pixels_are_of_no_class():
    # A strip of 255 between two objects, as in VOC: distances run across it.
    label = np.zeros((9, 40), np.uint8)
    label[:, 18:22] = 255
    label[:, 22:] = 1
    anything = np.where(label == 255, 7, label).astype(np.uint8)
    found = count_boundaries(anything, label, 8, WIDTH)
    # Whatever is predicted there, what is counted agrees.
    assert iou(found[0])[:2].tolist() == [1, 1]
    assert found[0, 2:].sum() == 0
    # Columns 17 and 22 are 5 apart: within 8, but not within 4.
    assert found[1:4].sum() == 0
    assert found[4].tolist() == [[36, 36, 36]] * 2 + [[0, 0, 0]] * 6
    # Ignored pixels on one side only: no boundary there.
    alone = np.where(label == 1, 255, label).astype(np.uint8)
    assert count_boundaries(alone * 0, alone, 8, WIDTH)[1:].sum() == 0
    record = summary(found, OWN, tuple("abcdefgh"), WIDTH)
    assert record["trimap"]["mean_iou"][0] is None
    assert record["per_class_iou"]["c"] is None


def test_nothing_labelled():
    label = np.full((5, 6), 255, np.uint8)
    assert count_boundaries(label * 0, label, 3, WIDTH).sum() == 0
