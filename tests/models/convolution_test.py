from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from refinenet_jax.models import convolution as module
from refinenet_jax.models.convolution import (
    convolution,
    convolution_with_care,
    grouped,
    product,
)
from refinenet_jax.sharding import Layout


@pytest.mark.first_cases(4)
@pytest.mark.parametrize("edge", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(8, 11), (7, 6)])
@pytest.mark.parametrize("fewer", [0, 1])  # zeros before, as TensorFlow has them
def test_gradients_are_those_of_jax(edge, stride, shape, fewer):
    assert_gradients_of_jax(edge, stride, shape, ((edge // 2 - fewer, edge // 2),) * 2)


@pytest.mark.parametrize("edge", [2, 4])
def test_gradients_of_patches_are_those_of_jax(edge):
    assert_gradients_of_jax(edge, edge, (7, 8), ((0, 1), (0, 0)))


def assert_gradients_of_jax(edge, stride, shape, zeros):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, *shape, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(edge, edge, 3, 4)), jnp.float32)

    def loss(function):
        return lambda *operands: jnp.sin(function(*operands, stride, zeros)).sum()

    expected = jax.grad(loss(convolution), argnums=(0, 1))(x, kernel)
    found = jax.grad(loss(convolution_with_care), argnums=(0, 1))(x, kernel)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_no_gradient_has_another_layout_on_a_cpu():
    x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))
    gradient = jax.grad(
        lambda x, k: convolution_with_care(x, k, 2, ((1, 1), (1, 1))).sum(),
        argnums=(0, 1),
    )
    text = jax.jit(gradient).lower(x, kernel).as_text()
    lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert lines
    assert all("[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in line for line in lines)


@pytest.mark.first_cases(2)
@pytest.mark.parametrize("convolve", [convolution, convolution_with_care])
@pytest.mark.parametrize("groups", [1, 2, 6, 24])
def test_groups_of_channels_are_those_of_xla(groups, convolve, monkeypatch):
    monkeypatch.setattr("refinenet_jax.models.convolution._BLOCK", 8)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 7, 6, 24)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 24 // groups, 48)), jnp.float32)

    def ours(x, kernel):
        bound = partial(convolve, stride=2, zeros=((1, 1), (1, 1)))
        return jnp.sin(grouped(bound, x, kernel, groups))

    def theirs(x, kernel):
        return jnp.sin(
            lax.conv_general_dilated(
                x,
                kernel,
                (2, 2),
                ((1, 1), (1, 1)),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=groups,
            )
        )

    (found, back), (expected, back_of_xla) = (
        jax.vjp(f, x, kernel) for f in (ours, theirs)
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    for one, other in zip(back(expected), back_of_xla(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 2])  # of each device
@pytest.mark.parametrize("stride", [1, 2])
def test_divided_rows_are_convolved_as_whole_ones(rows, stride):
    layout = Layout.over(jax.devices(), row_shards=2)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 2 * rows, 4, 8)).astype(np.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 8, 8)), jnp.float32)
    zeros = ((1, 1), (1, 1))

    def outcome(x, sharding=None):
        def convolve(x):
            return convolution_with_care(x, kernel, stride, zeros, sharding)

        y, backward = jax.vjp(convolve, x)
        return y, backward(jnp.sin(y))[0]

    divided = jax.jit(lambda x: outcome(x, layout.kernels), in_shardings=layout.batch)
    for ours, theirs in zip(
        divided(jax.device_put(x, layout.batch)), jax.jit(outcome)(x), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "form"),
    [
        ((2, 9, 12, 64), (3, 3, 64, 5), 1, "_by_outputs"),
        ((2, 9, 12, 64), (5, 5, 64, 16), 1, "_by_outputs"),
        ((1, 3, 5, 32), (3, 3, 32, 20), 1, "_by_patches"),
        ((1, 6, 7, 32), (3, 3, 32, 20), 2, "_by_patches"),
    ],
)
@pytest.mark.parametrize("fewer", [0, 1])
def test_on_a_cpu_some_convolutions_are_products(
    shape, kernel, stride, form, fewer, monkeypatch
):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=kernel), jnp.float32)
    edge = len(kernel)
    zeros = ((edge // 2 - fewer, edge // 2),) * 2
    calls = []
    taken = getattr(module, form)
    monkeypatch.setattr(
        module, form, lambda *a, **k: [calls.append(form), taken(*a, **k)][1]
    )

    def outcome(function):
        y, back = jax.vjp(
            lambda *operands: function(*operands, stride, zeros), x, kernel
        )
        weights = np.random.default_rng(1).normal(size=y.shape)
        return y, *back(jnp.asarray(weights, jnp.float32))

    found = outcome(convolution)
    assert calls
    monkeypatch.setattr(
        module.lax, "platform_dependent", lambda *x, default, **_: default(*x)
    )
    expected = outcome(convolution)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=3e-6 * np.abs(theirs).max())


@pytest.mark.parametrize("rows", [300, 2 * 47 * 45])  # in one part, and in several
@pytest.mark.parametrize("channels", [(5, 9), (9, 5)])
def test_the_gradients_of_a_product_are_those_of_jax(channels, rows):
    pixels, kernel, gradient = operands_of_a_product(channels, rows)
    found = jax.vjp(product, pixels, kernel)[1](gradient)
    expected = jax.vjp(jnp.dot, pixels, kernel)[1](gradient)
    for ours, theirs in zip(found, expected, strict=True):
        # Measured: at most 7.9e-7 of the largest.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * abs(theirs).max())


def test_in_bfloat16_the_gradient_of_a_product_is_rounded_once():
    operands = operands_of_a_product((5, 9), 2 * 47 * 45)
    pixels, kernel, gradient = (x.astype(jnp.bfloat16) for x in operands)
    [_, found] = jax.vjp(product, pixels, kernel)[1](gradient)
    assert found.dtype == jnp.bfloat16
    exact = np.asarray(pixels, np.float64).T @ np.asarray(gradient, np.float64)
    # Half of the last of eight bits.
    np.testing.assert_allclose(np.asarray(found, np.float64), exact, rtol=2**-8)


def operands_of_a_product(channels, rows):
    """Pixels, kernel and the gradient of what they give."""
    rng = np.random.default_rng(0)
    shapes = (rows, channels[0]), channels, (rows, channels[1])
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
