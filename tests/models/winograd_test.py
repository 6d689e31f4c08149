from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from refinenet_jax.models import winograd
from refinenet_jax.models.convolution import convolution

torch = pytest.importorskip("torch", reason="convolutions are compared with torch's")


def exact(x, kernel):
    """torch's convolution in double precision."""
    found = torch.nn.functional.conv2d(
        torch.from_numpy(x).double().permute(0, 3, 1, 2),
        torch.from_numpy(kernel).double().permute(3, 2, 0, 1),
        padding=1,
    )
    return found.permute(0, 2, 3, 1).numpy()


@pytest.mark.first_cases(2)
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (4, 4), (13, 6), (33, 40)])
def test_equals_torch_at_any_size(size):
    random = np.random.default_rng(0)
    x = random.normal(size=(2, *size, 24)).astype(np.float32)
    kernel = random.normal(size=(3, 3, 24, 5)).astype(np.float32)
    tiles = jnp.asarray(winograd.transformed(kernel))
    expected = exact(x, kernel)
    # Measured: at most 2.2e-6 of the largest.
    tolerance = 4e-6 * abs(expected).max()
    found = winograd.conv3x3(jnp.asarray(x), tiles)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(16, 16), (13, 21), (5, 130)])
def test_gradients_equal_torch_and_are_quick_on_a_cpu(size):
    random = np.random.default_rng(0)
    x = random.normal(size=(3, *size, 64)).astype(np.float32)
    kernel = random.normal(size=(3, 3, 64, 96)).astype(np.float32)
    gradient = random.normal(size=(3, *size, 96)).astype(np.float32)
    convolve = partial(convolution, stride=1, zeros=((1, 1), (1, 1)))

    def pulled(x, kernel):
        return jax.vjp(convolve, x, kernel)[1](jnp.asarray(gradient))

    operands = [torch.from_numpy(each).double() for each in (x, kernel, gradient)]
    taken = torch.ops.aten.convolution_backward(
        operands[2].permute(0, 3, 1, 2),
        operands[0].permute(0, 3, 1, 2),
        operands[1].permute(3, 2, 0, 1),
        *(None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, False]),
    )
    expected = taken[0].permute(0, 2, 3, 1), taken[1].permute(2, 3, 1, 0)
    for ours, theirs in zip(pulled(x, kernel), expected, strict=True):
        # Measured: at most 3.6e-6 of the largest.
        tolerance = 6e-6 * abs(theirs.numpy()).max()
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=tolerance)
    program = jax.jit(pulled).lower(x, kernel).compile().as_text()
    assert "[36," in program
    assert " convolution(" not in program


def test_only_training_differs():
    x, kernel = jnp.ones((2, 16, 16, 64)), jnp.ones((3, 3, 64, 64))
    zeros = ((1, 1), (1, 1))
    assert winograd.suits_training(x, kernel)
    program = jax.jit(partial(convolution, stride=1, zeros=zeros))
    assert "[36," not in program.lower(x, kernel).as_text()
    assert not winograd.suits_training(x[:1], kernel)
    assert not winograd.suits_training(x, kernel[..., :32])
    assert not winograd.suits_training(x, kernel[:1, :1])


def test_whole_numbers_by_hand():
    x = jnp.zeros((1, 6, 6, 1)).at[0, 2, 3, 0].set(1)
    kernel = np.arange(9.0).reshape(3, 3, 1, 1)
    found = winograd.conv3x3(x, jnp.asarray(winograd.transformed(kernel)))
    # Around the one, the kernel turned by half a turn.
    expected = [[8, 7, 6], [5, 4, 3], [2, 1, 0]]
    np.testing.assert_allclose(found[0, 1:4, 2:5, 0], expected, atol=5e-6)
    assert abs(found).sum() == pytest.approx(36, rel=1e-5)


def test_it_is_for_wide_and_large_ones():
    assert winograd.suits(3, 1, 256, 128)
    for other in [
        (1, 1, 256, 256),
        (3, 2, 256, 256),
        (3, 1, 64, 256),
        (3, 1, 512, 512),
    ]:
        assert not winograd.suits(*other)
    assert winograd.pays(32, 32)
    assert not winograd.pays(16, 63)
