import dataclasses
import weakref

import jax
import numpy as np
import pytest
from flax import nnx

from refinenet_jax.inference.predictor import Buckets, Predictor
from refinenet_jax.inference.protocol import PLAIN
from refinenet_jax.models import in_inference
from refinenet_jax.models.leaves import split_network
from refinenet_jax.sharding import Layout
from tests.random_network import random_light_resnet18

NUM_CLASSES = 4


@pytest.fixture(scope="module")
def network():
    return in_inference(random_light_resnet18(NUM_CLASSES, seed=3))


BUCKETS = Buckets((), 64)


def predictor_for(network, batch_size, devices, buckets=BUCKETS, protocol=PLAIN):
    predictor = Predictor(
        network,
        batch_size=batch_size,
        buckets=buckets,
        protocol=protocol,
        layout=Layout.over(jax.devices()[:devices]),
    )
    _, params, batch_stats = split_network(network)
    predictor.load(params, batch_stats)
    return predictor


def pictures(*shapes):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*shape, 3)).astype(np.uint8) for shape in shapes]


@pytest.mark.slow  # compiles the network at three sizes
def test_padded_images_give_what_they_give_alone(network):
    images = pictures((50, 61), (33, 40))
    together = predictor_for(network, 2, 1)
    found = together.probabilities(images)
    assert together.compilations == 1
    forward = nnx.jit(network)
    for image, shares in zip(images, found, strict=True):
        logits = forward(network.normalize(image[None]))
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


@pytest.mark.slow  # compiles two programs
def test_one_compilation_for_each_padded_size(network):
    predictor = predictor_for(network, 1, 1)
    for image in pictures((10, 20), (64, 64), (63, 1), (65, 64), (128, 20)):
        assert predictor.predict([image])[0].shape == image.shape[:2]
    assert predictor.compilations == 2


def test_batch_size_suits_the_devices(network):
    assert predictor_for(network, 3, 4).batch_size == 4
    assert predictor_for(network, 8, 4).batch_size == 8


def test_weights_that_were_taken_for_a_while_are_let_go_of(network):
    predictor = predictor_for(network, 1, 1)
    _, params, batch_stats = split_network(network)
    with predictor.loaded(params, batch_stats):
        leaf = weakref.ref(jax.tree.leaves(predictor._variables)[0])
        assert leaf() is not None
    assert leaf() is None
    with pytest.raises(ValueError, match="load the weights first"):
        predictor.start(pictures((10, 20)))


def test_buckets():
    buckets = Buckets(((128, 256), (256, 128), (256, 256)), 64)
    assert buckets.holding((100, 200)) == (128, 256)
    assert buckets.holding((129, 128)) == (256, 128)
    assert buckets.holding((200, 129)) == (256, 256)
    assert buckets.holding((257, 1)) == (320, 64)  # none holds it


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"scales": (0.5, 1.0), "flip": True, "short_edge": (60, 80)},
        {"window": 48, "overlap": 1 / 3},
    ],
)
def test_protocols_with_a_network(network, changes):
    """The same in one padded program and in programs of each image's own size."""
    protocol = dataclasses.replace(PLAIN, **changes)
    images = pictures((50, 61), (33, 40), (64, 64))
    found = {}
    for buckets in (Buckets(((64, 64), (128, 128)), 32), Buckets((), 1)):
        predictor = predictor_for(network, 1, 1, buckets, protocol)
        found[buckets] = [predictor.probabilities([image])[0] for image in images]
    padded, alone = found.values()
    for one, other in zip(padded, alone, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)
