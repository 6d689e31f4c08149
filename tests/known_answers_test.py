"""Every kind of reduction in our programs, compiled, against NumPy in double.

XLA's fusion of reductions for CPU has computed wrongly in jaxlib 0.10 (jax issues 39103,
39257 and 40412: tail rows, odd sizes). These are the sizes at which it would show.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from refinenet_jax.evaluation.counting import confusion_matrices
from refinenet_jax.labels import IGNORE_LABEL
from refinenet_jax.models.layers import (
    BatchNorm,
    Conv,
    DepthwiseConv,
    FeatureMap,
    max_pool,
)
from refinenet_jax.models.resize import resize
from refinenet_jax.training.losses import cross_entropy

# Batch, height, width, channels: ones, odd numbers, and one more than a power of two.
SHAPES = [
    (1, 1, 1, 1),
    (1, 5, 7, 3),
    (2, 17, 9, 21),
    (3, 13, 33, 65),
    (5, 31, 3, 7),
    (7, 4, 6, 129),
]


def values(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_near(found, expected, tolerance=2e-6):
    expected = np.asarray(expected)
    largest = max(np.abs(expected).max(), 1e-3)
    np.testing.assert_allclose(
        np.asarray(found, np.float64), expected, rtol=0, atol=tolerance * largest
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_statistics_of_a_batch(shape):
    norm = BatchNorm(shape[-1], rngs=nnx.Rngs(params=0))
    graph, state = nnx.split(norm)
    x = values(shape)

    @jax.jit
    def run(state, x):
        norm = nnx.merge(graph, state)
        return norm(FeatureMap(x)).values, nnx.state(norm)

    y, after = run(state, x)
    x = x.astype(np.float64)
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    # A lone value has variance 0 and is left with rounding over sqrt(epsilon).
    tolerance = 1e-5 if x.size > x.shape[-1] else 1e-3
    assert_near(y, (x - mean) / np.sqrt(variance + 1e-5), tolerance)
    assert_near(after["mean"][...], 0.1 * mean)
    assert_near(after["var"][...], 0.9 + 0.1 * variance)


def softmax_cross_entropy(logits, label):
    """Mean over valid pixels, and its gradient, in double."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    valid = label != IGNORE_LABEL
    one_hot = np.eye(logits.shape[-1])[np.where(valid, label, 0)]
    number = max(valid.sum(), 1)
    loss = -(logs * one_hot).sum(-1)[valid].sum() / number
    return loss, (np.exp(logs) - one_hot) * valid[..., None] / number


@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_its_gradient(shape):
    logits = values(shape)
    label = np.random.default_rng(1).integers(0, shape[-1], shape[:3]).astype(np.uint8)
    label[:, 0, ::2] = IGNORE_LABEL
    loss = functools.partial(cross_entropy, resolution="prediction")
    found, gradient = jax.jit(jax.value_and_grad(loss))(logits, label)
    expected, expected_gradient = softmax_cross_entropy(logits, label)
    assert_near(found, expected)
    assert_near(gradient, expected_gradient, 5e-6)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize("method", ["align_corners", "bilinear", "bicubic"])
@pytest.mark.parametrize(
    "shape",
    [
        SHAPES[1],
        # Each compiles six programs of its own.
        *(pytest.param(shape, marks=pytest.mark.slow) for shape in SHAPES[2:]),
    ],
)
def test_resizing_and_its_gradient(shape, method):
    x = values(shape)
    height, width = 2 * shape[1] + 1, 3 * shape[2] + 2

    def enlarged(x):
        return resize(FeatureMap(x), (height, width), None, method).values

    # The weights of each axis, from single bright pixels; then the sums in double.
    rows = np.asarray(
        resize(
            FeatureMap(jnp.eye(shape[1])[None, :, :, None]),
            (height, shape[1]),
            None,
            method,
        ).values
    )[0, :, :, 0]
    columns = np.asarray(
        resize(
            FeatureMap(jnp.eye(shape[2])[None, :, :, None]),
            (width, shape[2]),
            None,
            method,
        ).values
    )[0, :, :, 0]
    expected = np.einsum(
        "oh,pw,bhwc->bopc",
        rows.astype(np.float64),
        columns.astype(np.float64),
        x.astype(np.float64),
    )
    assert_near(jax.jit(enlarged)(x), expected, 5e-6)
    ahead = values((shape[0], height, width, shape[3]), seed=2)
    _, pull = jax.vjp(jax.jit(enlarged), x)
    back = np.einsum(
        "oh,pw,bopc->bhwc",
        rows.astype(np.float64),
        columns.astype(np.float64),
        ahead.astype(np.float64),
    )
    assert_near(pull(ahead)[0], back, 5e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_counting(shape):
    rng = np.random.default_rng(3)
    label = rng.integers(0, 22, shape[:3]).astype(np.uint8)
    label[label == 21] = IGNORE_LABEL
    prediction = rng.integers(0, 21, shape[:3]).astype(np.uint8)
    found = jax.jit(confusion_matrices, static_argnums=2)(prediction, label, 21)
    expected = np.zeros((shape[0], 21, 21), np.int64)
    for image, (truth, guess) in enumerate(zip(label, prediction, strict=True)):
        valid = truth != IGNORE_LABEL
        np.add.at(expected[image], (truth[valid], guess[valid]), 1)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.first_cases(2)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_of_kernels(shape):
    """Sums over all pixels of all pictures, where a tail row would be missed."""
    rngs, init = nnx.Rngs(params=0), nnx.initializers.normal(1.0)
    x = values(shape)
    pointwise = Conv(shape[-1], 5, 1, kernel_init=init, dtype=jnp.float32, rngs=rngs)
    ahead = values((*shape[:3], 5), seed=4)
    found = _kernel_gradient(pointwise, x, ahead)
    double = np.einsum("bhwi,bhwo->io", x.astype(np.float64), ahead.astype(np.float64))
    assert_near(found[0, 0], double, 5e-6)

    depthwise = DepthwiseConv(
        shape[-1], 3, kernel_init=init, dtype=jnp.float32, rngs=rngs
    )
    ahead = values(shape, seed=5)
    found = _kernel_gradient(depthwise, x, ahead)
    padded = np.pad(x.astype(np.float64), [(0, 0), (1, 1), (1, 1), (0, 0)])
    for row in range(3):
        for column in range(3):
            seen = padded[:, row : row + shape[1], column : column + shape[2]]
            expected = (seen * ahead).sum((0, 1, 2))
            assert_near(found[row, column, 0], expected, 1e-5)


def _kernel_gradient(layer, x, ahead):
    graph, state = nnx.split(layer)

    def weighted(state):
        return (nnx.merge(graph, state)(FeatureMap(x)).values * ahead).sum()

    return jax.jit(jax.grad(weighted))(state)["kernel"][...]


@pytest.mark.parametrize("shape", SHAPES)
def test_pooling(shape):
    x = values(shape)
    padded = np.pad(x, [(0, 0), (2, 2), (2, 2), (0, 0)], constant_values=-np.inf)
    expected = np.max(
        [
            padded[:, i : i + shape[1], j : j + shape[2]]
            for i in range(5)
            for j in range(5)
        ],
        axis=0,
    )
    found = jax.jit(lambda x: max_pool(FeatureMap(x), 5).values)(x)
    np.testing.assert_array_equal(found, expected)
