import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from refinenet_jax.models.activations import relu6
from refinenet_jax.models.blocks import (
    FULL,
    LIGHT_WEIGHT,
    LIGHT_WEIGHT_MOBILE,
    BlockInputs,
    ChainedResidualPooling,
    MultiResolutionFusion,
    RefineNetBlock,
    ResidualConvUnit,
)
from refinenet_jax.models.layers import Conv, FeatureMap
from refinenet_jax.models.refinenet import Decoder
from refinenet_jax.models.resnet import BlockForm
from tests.architectures import architecture

OPTIONS = {"dtype": jnp.float32}


def features(height: int, width: int, channels: int, seed: int = 0) -> FeatureMap:
    values = np.random.default_rng(seed).normal(size=(1, height, width, channels))
    return FeatureMap(jnp.asarray(values, jnp.float32))


def identity1x1(channels: int, factor: float = 1.0) -> Conv:
    ones = nnx.initializers.ones
    conv = Conv(channels, channels, 1, kernel_init=ones, **OPTIONS, rngs=nnx.Rngs(0))
    conv.kernel[...] = factor * jnp.eye(channels)[None, None]
    return conv


def row(*values: float) -> FeatureMap:
    return FeatureMap(jnp.array(values, jnp.float32)[None, None, :, None])


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


@pytest.mark.parametrize("order", ["original", "improved"])
@pytest.mark.parametrize("stages", [0, 4])
def test_chained_pooling_with_zero_convolutions_is_relu(order, stages):
    x = features(5, 8, 3)
    pooling = ChainedResidualPooling(
        [identity1x1(3, 0.0)] * stages, convolves_first=order == "improved"
    )
    np.testing.assert_array_equal(pooling(x).values, jnp.maximum(x.values, 0))


@pytest.mark.parametrize(
    ("order", "path1", "path2"),
    [
        # The largest of five, times -2; then the largest of five of that, times 10.
        ("original", [-10] * 7 + [-6], [-100] * 5 + [-60] * 3),
        # Times -2, of that the largest of five; then times 10, of that the largest.
        (
            "improved",
            [-10, -10, -10, -4, -2, -2, -2, -2],
            [-100, -40, -20, -20, -20, -20, -20, -20],
        ),
    ],
)
def test_chained_pooling_by_hand(order, path1, path2):
    pooling = ChainedResidualPooling(
        [identity1x1(1, -2.0), identity1x1(1, 10.0)],
        convolves_first=order == "improved",
    )
    result = pooling(row(5, 5, 5, 5, 5, 2, 1, 3)).values.flatten()
    activated = np.array([5, 5, 5, 5, 5, 2, 1, 3])
    np.testing.assert_array_equal(result, activated + path1 + path2)


def test_chained_pooling_with_relu6():
    pooling = ChainedResidualPooling([identity1x1(1, 0.5)], activation=relu6)
    assert pooling(row(-1, 4, 9)).values.flatten().tolist() == [3, 7, 9]


def test_lone_input_passes_fusion_unchanged():
    fusion = MultiResolutionFusion([], None, "align_corners")
    assert jax.tree.leaves(nnx.state(fusion)) == []
    x = features(5, 8, 3)
    assert fusion([x], None) is x


def test_fusion_adds_at_the_finest_resolution():
    fusion = MultiResolutionFusion(
        [identity1x1(1)], identity1x1(1, 10.0), "align_corners"
    )
    result = fusion([row(1, 2, 3, 4)], row(0, 3))
    np.testing.assert_allclose(
        result.values.flatten(), [1, 12, 23, 34], rtol=0, atol=1e-5
    )


def test_fusion_without_convolutions_adds_taps_of_all_sizes_as_they_are():
    fusion = MultiResolutionFusion([], None, "align_corners")
    result = fusion([row(0, 3), row(1, 2, 3, 4)], None)
    np.testing.assert_allclose(result.values.flatten(), [1, 3, 5, 7], rtol=0, atol=1e-6)


@pytest.mark.parametrize("decoder", [FULL, LIGHT_WEIGHT, LIGHT_WEIGHT_MOBILE])
def test_block_has_the_size_of_its_finest_tap_and_its_fewest_channels(decoder):
    inputs = BlockInputs(tap_channels=(5, 6), tap_widths=(4, 4), coarser_channels=7)
    block = nnx.eval_shape(
        lambda: RefineNetBlock(
            inputs,
            decoder,
            adaptation_units=2,
            output_units=3,
            pooling_stages=4,
            convolves_first=False,
            fusion_resize="align_corners",
            **OPTIONS,
            rngs=nnx.Rngs(0),
        )
    )
    graph, state = nnx.split(block)
    result = jax.eval_shape(
        lambda state, *inputs: nnx.merge(graph, state)(*inputs),
        state,
        [features(9, 14, 5), features(5, 7, 6)],
        features(3, 4, 7),
    )
    assert result.values.shape == (1, 9, 14, 4)


@pytest.mark.parametrize("expands", [False, True])
def test_residual_block_starts_as_its_shortcut(expands):
    channels = 8
    width = channels // 4 if expands else channels
    block = BlockForm(expands, **OPTIONS).block(channels, width, 1, rngs=nnx.Rngs(0))
    assert block.shortcut is None
    x = features(5, 8, channels)
    result = nnx.view(block, use_running_average=True)(x)
    np.testing.assert_array_equal(result.values, jnp.maximum(x.values, 0))


def decoder_of(kind, tap_strides=(4, 8, 16, 32), **changes) -> Decoder:
    """Of taps with 3 channels, for 2 classes."""
    return Decoder(
        tap_strides,
        [3] * len(tap_strides),
        kind,
        architecture("resnet18", 2, **changes),
        **OPTIONS,
        rngs=nnx.Rngs(params=0),
    )


@pytest.mark.parametrize(
    ("cascade", "taps"),
    [
        ("single", ((0, 1, 2, 3, 4, 5, 6, 7),)),
        ("2_cascaded", ((2, 3, 6, 7), (0, 1, 4, 5))),
        ("4_cascaded", ((3, 7), (2, 6), (1, 5), (0, 4))),
    ],
)
def test_taps_of_two_scales_enter_the_block_of_their_stride(cascade, taps):
    strides = (4, 8, 16, 32, 4, 8, 16, 32)
    assert decoder_of(LIGHT_WEIGHT, strides, cascade=cascade).taps_of_blocks == taps


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    # Light-weight blocks for speed; the places of the dropout are the decoder's.
    return decoder_of(dataclasses.replace(LIGHT_WEIGHT, classifier_dropout=0.5))


@pytest.fixture(scope="module")
def taps() -> list[FeatureMap]:
    sizes = [(9, 14), (5, 7), (3, 4), (2, 2)]
    return [features(*size, 3, seed=i) for i, size in enumerate(sizes)]


class TestDropout:
    """Dropout on taps at strides 16 and 32, and before the full network's classifier."""

    @pytest.mark.parametrize(
        ("kind", "tap_rate", "classifier_rate"),
        [(FULL, 0.5, 0.5), (LIGHT_WEIGHT, 0.5, 0.0), (LIGHT_WEIGHT_MOBILE, 0.0, 0.0)],
    )
    def test_rates(self, kind, tap_rate, classifier_rate):
        assert kind.tap_dropout == tap_rate
        assert kind.classifier_dropout == classifier_rate

    def test_drops_the_coarse_taps(self):
        strides = (4, 8, 16, 16, 32, 32)
        found = decoder_of(LIGHT_WEIGHT_MOBILE, strides).drops_tap
        assert found == (False, False, True, True, True, True)

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
