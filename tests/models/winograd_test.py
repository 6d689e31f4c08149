import jax.numpy as jnp
import numpy as np
import pytest

from refinenet_jax.models import winograd

torch = pytest.importorskip("torch", reason="convolutions are compared with torch's")


def exact(x, kernel):
    """torch's convolution in double precision."""
    found = torch.nn.functional.conv2d(
        torch.from_numpy(x).double().permute(0, 3, 1, 2),
        torch.from_numpy(kernel).double().permute(3, 2, 0, 1),
        padding=1,
    )
    return found.permute(0, 2, 3, 1).numpy()


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
