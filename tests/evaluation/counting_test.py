import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refinenet_jax.evaluation import own_convention, scores
from refinenet_jax.evaluation.counting import (
    class_counts,
    confusion_matrices,
    count_on_devices,
)
from refinenet_jax.sharding import Layout


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
    matrices = np.asarray(
        confusion_matrices(jnp.asarray(prediction), jnp.asarray(label), 5)
    )
    for image, matrix in enumerate(matrices):
        assert matrix.tolist() == oracle(prediction[image], label[image], 5).tolist()
    assert matrices.sum() == (label != 255).sum()


def test_labels_of_other_sizes_are_counted_without_their_padding():
    rng = np.random.default_rng(1)
    layout = Layout.over(jax.devices()[:2])
    prediction = rng.integers(0, 5, (4, 8, 12)).astype(np.uint8)
    shapes = [(7, 11), (8, 5), (3, 12)]
    labels = [rng.choice([0, 3, 255], shape).astype(np.uint8) for shape in shapes]
    on_devices = jax.device_put(prediction, layout.batch)
    matrices = count_on_devices(on_devices, labels, 5, layout)
    assert matrices.sharding == layout.batch
    for image, label in enumerate(labels):
        seen = prediction[image, : label.shape[0], : label.shape[1]]
        assert matrices[image].tolist() == oracle(seen, label, 5).tolist()
    assert not matrices[3].any()


def test_sums_of_32_bit_counts_do_not_overflow():
    # 60 images, each as large as one matrix of 32 bits can count: 1.3e11 pixels.
    most = 2**31 - 1
    images = np.zeros((60, 2, 2), np.int32)
    images[:, 0, 0] = most
    matrix = images.sum(axis=0, dtype=np.int64)
    assert matrix[0, 0] == 60 * most > 10**11
    assert class_counts(images)[:, 0].tolist() == [[most] * 3] * 60
    images[:, 0] = most, most
    assert class_counts(images)[:, 0].tolist() == [[most, most, 2 * most]] * 60


def test_the_example_of_the_package():
    prediction, label = jnp.zeros((2, 4, 6), jnp.uint8), jnp.ones((2, 4, 6), jnp.uint8)
    label = label.at[:, :3].set(0)
    counts = class_counts(np.asarray(confusion_matrices(prediction, label, 21)).sum(0))
    found = scores(counts, own_convention("voc2012"))
    assert found["pixel_accuracy"] == pytest.approx(3 / 4)
    assert found["mean_iou"] == pytest.approx((3 / 4 + 0) / 2)
