import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from refinenet_jax.models import kernels
from refinenet_jax.models.layers import FeatureMap, max_pool


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_for_its_gradient_a_max_pool_keeps_a_byte_for_each_value_and_pass(dtype):
    x = jnp.zeros((1, 8, 8, 4), dtype)
    _, back = jax.vjp(lambda x: kernels.max_pool(x, 5, 1), x)
    kept = [array for array in jax.tree.leaves(back) if array.size]
    assert [array.dtype for array in kept] == [jnp.uint8] * 2
    assert sum(array.nbytes for array in kept) == 2 * x.size


@pytest.fixture
def elsewhere(monkeypatch):
    """Programs as they are for accelerators."""

    def default(*arrays, default, **by_platform):
        assert by_platform
        return default(*arrays)

    monkeypatch.setattr(kernels.lax, "platform_dependent", default)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize(("window", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (5, 3)])
@pytest.mark.parametrize("shape", [(7, 10), (2, 3), (1, 4)])
def test_a_max_pool_is_the_same_on_every_platform(window, stride, shape, request):
    # Small integers, so that there are ties.
    x = np.random.default_rng(0).integers(-3, 3, (2, *shape, 3)).astype(np.float32)
    weights = random(2, *(-(-length // stride) for length in shape), 3)

    def pooled_and_gradient(x):
        pooled, back = jax.vjp(lambda x: kernels.max_pool(x, window, stride), x)
        return pooled, *back(jnp.asarray(weights))

    here = pooled_and_gradient(x)
    request.getfixturevalue("elsewhere")
    for ours, theirs in zip(here, pooled_and_gradient(x), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_max_pool_adds_the_gradients_of_a_pixel_in_float32():
    # 1 and four times 2⁻⁸, of which bfloat16 would lose each.
    x = jnp.asarray([0, 0, 9, 0, 0], jnp.bfloat16).reshape(1, 1, 5, 1)
    _, back = jax.vjp(lambda x: kernels.max_pool(x, 5, 1), x)
    gradient = jnp.asarray([2**-8, 2**-8, 1, 2**-8, 2**-8], jnp.bfloat16)
    (found,) = back(gradient.reshape(x.shape))
    assert found.ravel().tolist() == [0, 0, 1 + 2**-6, 0, 0]


def test_a_max_pool_hands_on_what_is_no_number():
    x = jnp.asarray([1, jnp.nan, 3, 0, 0, 0], jnp.float32).reshape(1, 1, 6, 1)
    pooled = kernels.max_pool(x, 3, 1).ravel()
    assert jnp.isnan(pooled[:3]).all()
    assert pooled[3:].tolist() == [3, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize(("window", "stride"), [(3, 2), (5, 1)])
def test_a_padded_picture_has_the_gradient_it_has_alone(window, stride):
    alone = np.random.default_rng(0).integers(-9, 9, (1, 7, 10, 2)).astype(np.float32)
    padded = np.full((1, 12, 13, 2), 99, np.float32)
    padded[:, :7, :10] = alone

    def total(x, size):
        pooled = max_pool(FeatureMap(x, size), window, stride)
        values = pooled.filled(0)
        rows, columns = (jnp.arange(1.0, length + 1) for length in values.shape[1:3])
        return (values * (rows[:, None] * columns[None])[None, :, :, None]).sum()

    expected = jax.grad(total)(jnp.asarray(alone), None)
    found = np.array(jax.grad(total)(jnp.asarray(padded), jnp.asarray([[7, 10]])))
    np.testing.assert_array_equal(found[:, :7, :10], expected)
    assert found.sum() == np.sum(expected)


@pytest.mark.slow
def test_a_max_pool_is_the_same_where_rows_lie_on_several_devices():
    mesh = Mesh(np.array(jax.devices()[:4]), ("rows",))
    x = random(1, 16, 9, 2)

    def pooled_and_gradient(x):
        pooled, back = jax.vjp(lambda x: kernels.max_pool(x, 5, 1), x)
        return pooled, back(jnp.round(8 * pooled))

    split = NamedSharding(mesh, PartitionSpec(None, "rows"))
    ours = jax.jit(pooled_and_gradient, in_shardings=split)(x)
    jax.tree.map(np.testing.assert_array_equal, ours, pooled_and_gradient(x))


def convolve(x, kernel, stride):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_in_bfloat16_a_depthwise_convolution_rounds_its_sum_once(size, stride):
    x = jnp.asarray(random(2, 20, 23, 16), jnp.bfloat16)
    kernel = jnp.asarray(random(size, size, 1, 16, seed=1), jnp.bfloat16)
    wide = convolve(x.astype(jnp.float32), kernel.astype(jnp.float32), stride)
    found = kernels.depthwise_conv(x, kernel, stride)
    exact = np.asarray(wide.astype(jnp.bfloat16), np.float32)
    # Beside a rounding boundary the order of float32 sums decides: one value in 4,000.
    different = np.asarray(found, np.float32) != exact
    assert different.mean() < 1e-3
    np.testing.assert_allclose(np.asarray(found, np.float32), exact, rtol=2**-7)


@pytest.mark.slow
def test_in_bfloat16_the_gradients_of_a_depthwise_convolution_are_rounded_once():
    x = jnp.asarray(random(2, 20, 23, 16), jnp.bfloat16)
    kernel = jnp.asarray(random(3, 3, 1, 16, seed=1), jnp.bfloat16)
    weights = jnp.asarray(random(2, 18, 21, 16, seed=2), jnp.bfloat16)

    def total(conv, *arguments):
        return (conv(*arguments, 1) * weights.astype(jnp.float32)).sum()

    gradient = jax.grad(total, argnums=(1, 2))
    found = gradient(kernels.depthwise_conv, x, kernel)
    wide = gradient(convolve, x.astype(jnp.float32), kernel.astype(jnp.float32))
    for ours, exact in zip(found, wide, strict=True):
        assert ours.dtype == jnp.bfloat16
        error = np.abs(np.asarray(ours, np.float32) - exact)
        assert (error <= 2**-8 * np.abs(exact) + 1e-5).all()


@pytest.mark.parametrize("mean", [0, 100, 1000])
def test_a_batch_norm_keeps_its_digits_where_the_mean_is_large(mean):
    x = (mean + random(4, 8, 8, 5)).astype(np.float32)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean((0, 1, 2))) / np.sqrt(wide.var((0, 1, 2)) + 1e-5)
    found, _, variance = kernels.batch_norm(x, jnp.ones(5), jnp.zeros(5), 1e-5)
    # The mean is rounded to a multiple of 2⁻²⁴ of it, 6e-5 for 1,000.
    np.testing.assert_allclose(found, expected, atol=max(2e-6, 1e-6 * mean))
    np.testing.assert_allclose(variance, wide.var((0, 1, 2)), rtol=2e-6)


def test_the_gradients_of_a_batch_norm_are_those_of_its_definition():
    x, weights = random(3, 5, 4, 6), random(3, 5, 4, 6, seed=1)
    scale, bias = 1 + random(6, seed=2), random(6, seed=3)

    def defined(x, scale, bias):
        mean, variance = (f((0, 1, 2), keepdims=True) for f in (x.mean, x.var))
        return (x - mean) / jnp.sqrt(variance + 1e-5) * scale[None, None, None] + bias[
            None, None, None
        ]

    def gradients(norm):
        return jax.grad(
            lambda *operands: (norm(*operands) * weights).sum(), argnums=(0, 1, 2)
        )(x, scale, bias)

    found = gradients(lambda *operands: kernels.batch_norm(*operands, 1e-5)[0])
    for ours, theirs in zip(found, gradients(defined), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=5e-6)


def test_for_its_gradient_a_batch_norm_keeps_its_input_in_its_own_dtype():
    x = jnp.zeros((2, 8, 8, 4), jnp.bfloat16)
    _, back = jax.vjp(
        lambda x: kernels.batch_norm(x, jnp.ones(4), jnp.zeros(4), 1e-5)[0], x
    )
    sizes = sorted(array.nbytes for array in jax.tree.leaves(back))
    assert sizes[-1] == x.nbytes
    assert sum(sizes[:-1]) <= 100
