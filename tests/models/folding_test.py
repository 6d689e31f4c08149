import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from refinenet_jax.models import (
    Architecture,
    FeatureMap,
    RefineNet,
    in_inference,
    layers,
    winograd,
)
from refinenet_jax.models.folding import fold


def network_of(variant, dtype=jnp.float32):
    """With random weights, compiled at once instead of layer by layer."""

    def create():
        rngs = nnx.Rngs(params=jax.random.key(0, impl="rbg"))
        return RefineNet(Architecture(variant, 5), dtype=dtype, rngs=rngs)

    return nnx.jit(create)()


def randomized(network):
    """With norms that change what they are given."""
    random = np.random.default_rng(0)
    for norm in modules(network, layers.BatchNorm):
        for variable, low, high in (
            (norm.scale, 0.3, 1.5),
            (norm.bias, -0.3, 0.3),
            (norm.mean, -0.3, 0.3),
            (norm.var, 0.3, 2.0),
        ):
            values = random.uniform(low, high, variable.shape)
            variable[...] = jnp.asarray(values, jnp.float32)
    return network


def modules(network, kind):
    return [m for _, m in nnx.iter_graph(network) if isinstance(m, kind)]


@pytest.mark.slow
@pytest.mark.every_network
@pytest.mark.parametrize(
    "variant",
    [
        "light_resnet18",
        pytest.param("light_efficientnet_lite0", marks=pytest.mark.slow),
        pytest.param("light_mobilenet_v2", marks=pytest.mark.slow),
        pytest.param("light_mobilenet_v3_large", marks=pytest.mark.slow),
        pytest.param("light_resnet50d", marks=pytest.mark.slow),
        pytest.param("light_resnext50_32x4d", marks=pytest.mark.slow),
        pytest.param("light_efficientnet_b0", marks=pytest.mark.slow),
        pytest.param("resnet18", marks=pytest.mark.slow),
    ],
)
def test_a_folded_network_gives_the_same(variant, monkeypatch):
    monkeypatch.setattr(winograd, "_LEAST_PIXELS", 4 * 4)
    network = in_inference(randomized(network_of(variant)))
    folded = fold(nnx.clone(network))
    assert not modules(folded, layers.BatchNorm)
    assert len(modules(network, layers.BatchNorm)) > 15
    images = np.random.default_rng(1).integers(0, 256, (2, 64, 96, 3), np.uint8)
    padded = FeatureMap(network.normalize(images), jnp.asarray([[64, 96], [37, 53]]))
    expected, found = (
        jax.jit(lambda x, n=n: n.forward(x).filled(0))(padded)
        for n in (network, folded)
    )
    # Measured: at most 3e-6 of the largest.
    tolerance = 1e-5 * float(abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.slow
def test_wide_convolutions_are_transformed():
    network = in_inference(network_of("light_resnet18"))
    tiles = [c for c in modules(fold(network), layers.Conv) if c.tiles is not None]
    assert len(tiles) == 6  # of stages 2 and 3, but for those with a stride
    assert {c.tiles.shape[0] for c in tiles} == {36}


@pytest.mark.slow
def test_bfloat16_stays_as_it_is():
    network = in_inference(network_of("light_resnet18", jnp.bfloat16))
    count = len(modules(network, layers.BatchNorm))
    assert len(modules(fold(network), layers.BatchNorm)) == count
