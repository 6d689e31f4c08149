"""What a GPU or TPU computes, beside numpy and beside XLA's programs for a CPU.

    ACCELERATOR=cuda pytest -n 0 -m accelerator      # or tpu

With ACCELERATOR=cpu a CPU stands in, and gets the programs that are written for
accelerators. float32 is float32 here: GPUs and TPUs would otherwise round the factors of
a product.
"""

import contextlib
import functools
import os
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from refinenet_jax.evaluation.counting import confusion_matrices
from refinenet_jax.inference.predictor import Buckets, Predictor
from refinenet_jax.inference.protocol import PLAIN
from refinenet_jax.models import Architecture, RefineNet, in_inference, kernels
from refinenet_jax.models.layers import FeatureMap
from refinenet_jax.models.leaves import named_leaves, split_network
from refinenet_jax.models.resize import resize
from refinenet_jax.sharding import Layout, to_devices
from refinenet_jax.training import losses
from refinenet_jax.training.optimizer import build_optimizer
from refinenet_jax.training.state import create_state
from refinenet_jax.training.steps import build_train_step

ASKED = os.environ.get("ACCELERATOR", "")
pytestmark = [
    pytest.mark.accelerator,
    pytest.mark.skipif(
        not ASKED, reason="ACCELERATOR says on what: cuda, tpu, or cpu that stands in"
    ),
]

NUM_CLASSES = 5
CPU = jax.devices("cpu")[0]
VARIANTS = ("resnet18", "light_mobilenet_v2")


def test_the_accelerator_is_there():
    assert jax.default_backend() == {"cuda": "gpu"}.get(ASKED, ASKED)


@contextlib.contextmanager
def on_a_cpu():
    """What is traced within is for a CPU and runs there."""
    with jax.default_device(CPU):
        yield


@contextlib.contextmanager
def as_for_an_accelerator():
    """What is traced within is what an accelerator gets, wherever it runs."""
    with contextlib.ExitStack() as held:
        held.enter_context(jax.default_matmul_precision("highest"))
        if ASKED == "cpu":
            default = mock.patch.object(
                jax.lax, "platform_dependent", lambda *x, default, **_: default(*x)
            )
            held.enter_context(default)
            jax.clear_caches()
            held.callback(jax.clear_caches)
        yield


def on_both(function, *arguments):
    """Results of the accelerator and of a CPU, as trees of numpy arrays."""
    arguments = jax.tree.map(np.asarray, arguments)
    with as_for_an_accelerator():
        there = jax.tree.map(np.asarray, jax.jit(lambda *x: function(*x))(*arguments))
    with on_a_cpu():
        here = jax.tree.map(np.asarray, jax.jit(lambda *x: function(*x))(*arguments))
    return there, here


def assert_near(there, here, share):
    """Every array is within a share of the largest value of the CPU's."""
    pairs = zip(jax.tree.leaves(there), jax.tree.leaves(here), strict=True)
    for found, expected in pairs:
        limit = share * np.abs(expected).max()
        assert np.abs(found - expected).max() <= limit
        assert np.isfinite(found).all()


def pictures(size, height=48, width=65):
    """A batch whose classes can be told by colour."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, NUM_CLASSES, (size, height // 12, width // 13))
    label = label.repeat(12, 1).repeat(13, 2).astype(np.uint8)
    image = 50 * label[..., None] + rng.integers(0, 40, (*label.shape, 3))
    label[0, :10] = 255
    return {"image": image.astype(np.uint8), "label": label}


@functools.cache
def network_of(variant, dtype="float32"):
    """Weights on the CPU; without dropout, whose bits are each platform's own."""
    description = Architecture(variant, NUM_CLASSES, pooling_stages=1)

    def create():
        rngs = nnx.Rngs(params=jax.random.key(0))
        return RefineNet(description, dtype=jnp.dtype(dtype), rngs=rngs)

    graph, _ = nnx.split(nnx.eval_shape(create))
    with on_a_cpu():
        network = nnx.merge(graph, jax.jit(lambda: nnx.split(create())[1])())
    for module in (network.decoder.tap_dropout, network.decoder.classifier_dropout):
        module.dropout.rate = 0.0
    return network


def loss_and_logits(structure, params, statistics, batch):
    network = structure.merge(params, statistics)
    logits = network(network.normalize(batch["image"]))
    return losses.cross_entropy(logits, batch["label"], "label"), logits


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_and_gradients_are_those_of_a_cpu(variant):
    structure, params, statistics = split_network(in_inference(network_of(variant)))
    run = jax.value_and_grad(
        functools.partial(loss_and_logits, structure), has_aux=True
    )
    there, here = on_both(run, params, statistics, pictures(2))
    # Hundreds of sums, each in another order; a value near zero may pass a ReLU on one
    # side alone: 4e-3 was seen between two programs for a CPU.
    assert_near(there[0], here[0], 1e-4)
    assert_near(there[1], here[1], 1e-2)
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(here[1]))


def test_bfloat16_is_near_float32():
    logits = {}
    for dtype in ("float32", "bfloat16"):
        network = in_inference(network_of("light_resnet18", dtype))
        structure, params, statistics = split_network(network)
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
        with as_for_an_accelerator():
            run = jax.jit(functools.partial(loss_and_logits, structure))
            logits[dtype] = np.asarray(run(params, statistics, pictures(2))[1])
    assert_near(logits["bfloat16"], logits["float32"], 0.05)  # 8 bits, dozens of layers
    assert np.abs(logits["bfloat16"] - logits["float32"]).max() > 0


def trained(devices, dtype, steps):
    """The losses of a few steps on the same batch, and the state that is left."""
    layout = Layout.over(devices)
    network = network_of("light_resnet18", dtype)
    optimizer = build_optimizer("adamw", 2e-3, clip_norm=1.0)
    step = build_train_step(
        network,
        optimizer,
        optax.constant_schedule(2e-3),
        functools.partial(losses.cross_entropy, resolution="label"),
        layout,
    )
    # A copy: the step takes the memory of its state, and here that may be the network's.
    state = jax.tree.map(jnp.copy, create_state(network, optimizer, seed=0))
    state = jax.device_put(state, layout.state)
    batch = to_devices(pictures(2 * len(jax.devices())), layout)
    found = []
    for _ in range(steps):
        state, metrics = step(state, batch)
        found.append(float(metrics["loss"]))
    return found, state


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_steps_lower_the_loss(dtype):
    with as_for_an_accelerator():
        found, state = trained(jax.devices(), dtype, 12)
    assert found[-1] < 0.7 * found[0]
    for name, leaf in named_leaves(state.params).items():
        assert leaf.dtype == jnp.float32, name
        assert bool(jnp.isfinite(leaf).all()), name


def test_steps_are_those_of_a_cpu():
    with as_for_an_accelerator():
        there, _ = trained(jax.devices(), "float32", 3)
    with on_a_cpu():
        here, _ = trained([CPU], "float32", 3)
    # AdamW divides by the root of what may be a rounded zero.
    np.testing.assert_allclose(there, here, rtol=5e-3)


def test_a_padded_picture_has_the_classes_it_has_on_a_cpu():
    network = in_inference(network_of("light_mobilenet_v2"))
    image = pictures(1)["image"][0]

    def probabilities(device):
        predictor = Predictor(
            network,
            batch_size=1,
            buckets=Buckets(((64, 96),), 32),
            protocol=PLAIN,
            layout=Layout.over([device]),
        )
        _, *variables = split_network(network)
        predictor.load(*jax.device_put(variables, predictor.layout.state))
        return np.asarray(predictor.probabilities([image])[0])

    with as_for_an_accelerator():
        there = probabilities(jax.devices()[0])
    with on_a_cpu():
        here = probabilities(CPU)
    assert there.shape == (*image.shape[:2], NUM_CLASSES)
    np.testing.assert_allclose(there, here, atol=1e-4)


@pytest.mark.parametrize(("window", "stride"), [(3, 2), (5, 1)])
def test_max_pool_with_ties(window, stride):
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 3, (2, 9, 14, 3)).astype(np.float32)
    shape = (2, *(-(-length // stride) for length in x.shape[1:3]), 3)
    weights = rng.integers(1, 9, shape).astype(np.float32)

    def pooled_and_gradient(x, weights):
        pooled, back = jax.vjp(lambda x: kernels.max_pool(x, window, stride), x)
        return pooled, *back(weights)

    there, here = on_both(pooled_and_gradient, x, weights)
    for found, expected in zip(there, here, strict=True):
        np.testing.assert_array_equal(found, expected)
    reach = window // 2
    for row, column in np.ndindex(shape[1:3]):
        seen = x[
            :,
            max(0, row * stride - reach) : row * stride + reach + 1,
            max(0, column * stride - reach) : column * stride + reach + 1,
        ]
        np.testing.assert_array_equal(there[0][:, row, column], seen.max((1, 2)))
    assert there[1].sum() == weights.sum()


def test_resizing_with_aligned_corners():
    x = np.random.default_rng(0).normal(size=(2, 7, 11, 6)).astype(np.float32)
    new = (17, 23)

    def resized(x):
        return resize(FeatureMap(x, None), new, None, "align_corners").values

    expected = x.astype(np.float64)
    for axis, length in enumerate(new, start=1):
        old = np.arange(x.shape[axis])
        places = np.linspace(0, old[-1], length)
        expected = np.apply_along_axis(
            lambda line, places=places, old=old: np.interp(places, old, line),
            axis,
            expected,
        )
    there, here = on_both(resized, x)
    np.testing.assert_allclose(there, expected, atol=1e-5)
    np.testing.assert_allclose(here, expected, atol=1e-5)


LOSSES = {
    "cross_entropy": losses.cross_entropy,
    "focal": losses.focal,
    "ohem": losses.ohem,
    "dice": losses.dice,
    "lovasz": losses.lovasz_softmax,
}


@pytest.mark.parametrize("name", list(LOSSES))
def test_losses_and_their_gradients(name):
    label = pictures(2)["label"]
    shape = (2, 12, 17, NUM_CLASSES)
    logits = np.random.default_rng(0).normal(size=shape).astype(np.float32)

    def run(logits):
        return LOSSES[name](logits, label, resolution="label")

    there, here = on_both(jax.value_and_grad(run), logits)
    assert np.abs(here[1]).max() > 0
    assert_near(there, here, 1e-4)


def test_pixels_are_counted_exactly():
    rng = np.random.default_rng(0)
    predicted, label = rng.integers(0, NUM_CLASSES, (2, 3, 70, 90))
    label[:, :5] = 255
    count = functools.partial(confusion_matrices, num_classes=NUM_CLASSES)
    there, _ = on_both(count, predicted.astype(np.uint8), label.astype(np.uint8))
    for matrix, truth, found in zip(there, label, predicted, strict=True):
        counted = truth < NUM_CLASSES
        edges = np.arange(NUM_CLASSES + 1)
        expected, *_ = np.histogram2d(truth[counted], found[counted], (edges, edges))
        np.testing.assert_array_equal(matrix, expected)
