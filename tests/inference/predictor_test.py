import jax
import numpy as np
import pytest
from flax import nnx

from refinenet_jax.inference.evaluator import evaluate
from refinenet_jax.inference.predictor import Predictor
from refinenet_jax.models.build import normalize, split_network
from tests.random_network import random_light_resnet18

MEAN, STD = (120.0, 110.0, 100.0), (60.0, 55.0, 50.0)
NUM_CLASSES = 4


@pytest.fixture(scope="module")
def network():
    network = random_light_resnet18(NUM_CLASSES, seed=3)
    return nnx.view(network, deterministic=True, use_running_average=True)


def predictor_for(network, batch_size, devices):
    predictor = Predictor(
        network,
        mean=MEAN,
        std=STD,
        batch_size=batch_size,
        size_multiple=64,
        mesh=jax.sharding.Mesh(np.asarray(jax.devices()[:devices]), ("data",)),
    )
    _, params, batch_stats = split_network(network)
    predictor.load(params, batch_stats)
    return predictor


def pictures(*shapes):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*shape, 3)).astype(np.uint8) for shape in shapes]


def test_padded_images_give_what_they_give_alone(network):
    images = pictures((50, 61), (33, 40))
    together = predictor_for(network, 2, 1)
    found = together.probabilities(images)
    assert together.compilations == 1
    forward = nnx.jit(network)
    for image, shares in zip(images, found, strict=True):
        logits = forward(normalize(image[None], MEAN, STD))
        # Enlarging by half-pixel bilinear is checked against torch in layers_test.
        height, width = image.shape[:2]
        alone = jax.image.resize(logits, (1, height, width, NUM_CLASSES), "bilinear")
        expected = np.asarray(jax.nn.softmax(alone[0]))
        assert shares.shape == (height, width, NUM_CLASSES)
        np.testing.assert_allclose(shares, expected, atol=2e-6)
        np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-6)
    classes = together.predict(images)
    for label, shares in zip(classes, found, strict=True):
        assert label.dtype == np.uint8
        assert np.array_equal(label, shares.argmax(-1))


def test_one_compilation_for_each_padded_size(network):
    predictor = predictor_for(network, 1, 1)
    for image in pictures((10, 20), (64, 64), (63, 1), (65, 64), (128, 20)):
        assert predictor.predict([image])[0].shape == image.shape[:2]
    assert predictor.compilations == 2


def test_evaluation_counts_every_pixel_once_in_any_batch_size(network):
    rng = np.random.default_rng(1)
    examples = []
    for image in pictures((40, 50), (64, 30), (20, 65), (20, 64), (64, 64)):
        label = rng.choice([0, 1, 2, 3, 255], image.shape[:2]).astype(np.uint8)
        examples.append({"image": image, "label": label})
    alone = predictor_for(network, 1, 1)
    expected = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)
    for example in examples:
        valid = example["label"] != 255
        predicted = alone.predict([example["image"]])[0]
        pairs = (example["label"][valid], predicted[valid])
        np.add.at(expected, pairs, 1)
    seen = []
    counted = evaluate(
        predictor_for(network, 2, 2),
        examples,
        NUM_CLASSES,
        num_rows=2,
        on_image=lambda: seen.append(1),
    )
    assert counted.matrix.tolist() == expected.tolist()
    assert counted.num_images == len(seen) == 5
    assert counted.ignored_pixels == sum((e["label"] == 255).sum() for e in examples)
    assert [row[0].shape for row in counted.rows] == [(40, 50, 3), (64, 30, 3)]
    assert np.array_equal(counted.rows[1][2], alone.predict([examples[1]["image"]])[0])


def test_batch_size_suits_the_devices(network):
    assert predictor_for(network, 3, 4).batch_size == 4
    assert predictor_for(network, 8, 4).batch_size == 8
