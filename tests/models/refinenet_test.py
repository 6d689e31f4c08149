import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from refinenet_jax.models.layers import Conv, FeatureMap
from refinenet_jax.models.light_weight import LightWeightBlock, conv1x1
from refinenet_jax.models.refinenet import (
    ChainedResidualPooling,
    MultiResolutionFusion,
    RefineNet,
    RefineNetBlock,
    ResidualConvUnit,
)
from refinenet_jax.models.resnet import basic_block, bottleneck_block

OPTIONS = {"dtype": jnp.float32}


def features(height: int, width: int, channels: int, seed: int = 0) -> FeatureMap:
    values = np.random.default_rng(seed).normal(size=(1, height, width, channels))
    return FeatureMap(jnp.asarray(values, jnp.float32))


def identity1x1(channels: int, factor: float = 1.0) -> Conv:
    conv = conv1x1(channels, channels, **OPTIONS, rngs=nnx.Rngs(0))
    conv.kernel[...] = factor * jnp.eye(channels)[None, None]
    return conv


def row(*values: float) -> FeatureMap:
    return FeatureMap(jnp.array(values)[None, None, :, None])


def test_residual_unit_adds_to_its_own_input_not_to_the_activated():
    unit = ResidualConvUnit(1, **OPTIONS, rngs=nnx.Rngs(0))
    for conv in (unit.conv1, unit.conv2):
        conv.kernel[...] = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1)
    unit.conv1.bias[...] = jnp.array([-1.0])
    # x + max(max(x, 0) - 1, 0)
    assert unit(row(-2, 0.5, 3)).values.flatten().tolist() == [-2, 0.5, 5]


def test_residual_unit_has_one_bias():
    unit = ResidualConvUnit(4, **OPTIONS, rngs=nnx.Rngs(0))
    assert unit.conv1.bias is not None
    assert unit.conv2.bias is None


def test_chained_pooling_with_zero_convolutions_is_relu():
    x = features(5, 8, 3)
    pooling = ChainedResidualPooling([identity1x1(3, 0.0) for _ in range(4)])
    np.testing.assert_array_equal(pooling(x).values, jnp.maximum(x.values, 0))


def test_chained_pooling_by_hand():
    pooling = ChainedResidualPooling([identity1x1(1, 2.0), identity1x1(1, 10.0)])
    result = pooling(row(-1, 1, 0, -4, 0, 0, 0, 3)).values.flatten()
    activated = np.array([0, 1, 0, 0, 0, 0, 0, 3])
    # The largest of five, times 2; then the largest of five of that, times 10.
    path1 = np.array([2, 2, 2, 2, 0, 6, 6, 6])
    path2 = np.array([20, 20, 20, 60, 60, 60, 60, 60])
    np.testing.assert_array_equal(result, activated + path1 + path2)


def test_lone_input_passes_fusion_unchanged():
    fusion = MultiResolutionFusion([])
    assert jax.tree.leaves(nnx.state(fusion)) == []
    x = features(5, 8, 3)
    assert fusion([x]) is x


def test_fusion_adds_at_the_finest_resolution():
    fusion = MultiResolutionFusion([identity1x1(1), identity1x1(1, 10.0)])
    result = fusion([row(1, 2, 3, 4), row(0, 3)])
    np.testing.assert_allclose(
        result.values.flatten(), [1, 12, 23, 34], rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("make_block", [RefineNetBlock, LightWeightBlock])
def test_block_keeps_the_size_of_its_tap(make_block):
    block = nnx.eval_shape(lambda: make_block(5, 7, 4, **OPTIONS, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(block)
    result = jax.eval_shape(
        lambda state, *inputs: nnx.merge(graph, state)(*inputs),
        state,
        features(9, 14, 5),
        features(5, 7, 7),
    )
    assert result.values.shape == (1, 9, 14, 4)


@pytest.mark.parametrize("make_block", [basic_block, bottleneck_block])
def test_residual_block_starts_as_its_shortcut(make_block):
    channels = 8
    width = channels if make_block is basic_block else channels // 4
    block = make_block(channels, width, 1, **OPTIONS, rngs=nnx.Rngs(0))
    assert block.shortcut is None
    x = features(5, 8, channels)
    result = nnx.view(block, use_running_average=True)(x)
    np.testing.assert_array_equal(result.values, jnp.maximum(x.values, 0))


@pytest.fixture(scope="module")
def decoder() -> RefineNet:
    # Light-weight blocks for speed; the places of the dropout are the decoder's.
    return RefineNet(
        (3, 3, 3, 3),
        2,
        block=LightWeightBlock,
        classifier_dropout=0.5,
        **OPTIONS,
        rngs=nnx.Rngs(0),
    )


@pytest.fixture(scope="module")
def taps() -> list[FeatureMap]:
    sizes = [(9, 14), (5, 7), (3, 4), (2, 2)]
    return [features(*size, 3, seed=i) for i, size in enumerate(sizes)]


class TestDropout:
    """Dropout on the two coarsest taps, and before the full network's classifier."""

    def test_none_in_inference(self, decoder, taps):
        view = nnx.view(decoder, deterministic=True)
        first, second, third = (
            view(taps, rngs=rngs).values
            for rngs in (None, nnx.Rngs(dropout=0), nnx.Rngs(dropout=1))
        )
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, third)

    def test_follows_its_key_in_training(self, decoder, taps):
        view = nnx.view(decoder, deterministic=False)
        first, again, other = (
            view(taps, rngs=nnx.Rngs(dropout=seed)).values for seed in (0, 0, 1)
        )
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_needs_a_key_in_training(self, decoder, taps):
        view = nnx.view(decoder, deterministic=False)
        with pytest.raises(ValueError, match="rngs"):
            view(taps)

    def test_halves_the_values_and_doubles_the_rest(self, decoder, taps):
        tap = FeatureMap(jnp.ones((1, 40, 50, 3)))
        dropout = nnx.view(decoder.tap_dropout, deterministic=False)
        dropped = dropout(tap, rngs=nnx.Rngs(dropout=0)).values
        assert set(np.unique(dropped).tolist()) == {0.0, 2.0}
        assert abs(float(dropped.mean()) - 1) < 0.05
