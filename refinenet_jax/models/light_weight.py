"""Light-Weight RefineNet, Nekrasov et al. 2018: 1×1 convolutions, no residual units."""

from collections.abc import Sequence
from functools import partial

from flax import nnx
from jax.typing import DTypeLike

from refinenet_jax.models.architecture import Architecture
from refinenet_jax.models.layers import Conv, FeatureMap, relu, relu6
from refinenet_jax.models.refinenet import (
    Activation,
    BlockInputs,
    ChainedResidualPooling,
    Decoder,
    MultiResolutionFusion,
)

# As torch's Conv2d starts. A larger scale lets the features grow from pool to pool, for
# there is no normalisation: with three times this variance the first loss is above 5.
_kernel_init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def conv1x1(
    in_channels: int, channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs
) -> Conv:
    """The one convolution of the light-weight decoder: 1×1, no bias."""
    return Conv(
        in_channels, channels, 1, kernel_init=_kernel_init, dtype=dtype, rngs=rngs
    )


class LightWeightBlock(nnx.Module):
    """One light-weight RefineNet: reduces taps, adds what is coarser, pools.

    taps: [B,H,W,tap_channels] each; coarser: the block before,
    [B,h,w,coarser_channels], None in the first block → [B,H,W,channels] at the finest
    resolution.

    fuses_taps: each tap has a second convolution where there are several inputs.
    """

    def __init__(
        self,
        inputs: BlockInputs,
        architecture: Architecture,
        *,
        fuses_taps: bool,
        activation: Activation,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        def conv(in_channels: int, channels: int) -> Conv:
            return conv1x1(in_channels, channels, dtype=dtype, rngs=rngs)

        channels, coarser = inputs.channels, inputs.coarser_channels
        self.reductions = nnx.List(
            map(conv, inputs.tap_channels, inputs.tap_widths),
        )
        fused = inputs.tap_widths if fuses_taps and inputs.count > 1 else ()
        self.fusion = MultiResolutionFusion(
            [conv(width, channels) for width in fused],
            None if coarser is None else conv(coarser, channels),
            architecture.fusion_resize,
        )
        self.pooling = ChainedResidualPooling(
            [conv(channels, channels) for _ in range(architecture.pooling_stages)],
            architecture.pooling,
            activation,
        )

    def __call__(
        self, taps: Sequence[FeatureMap], coarser: FeatureMap | None
    ) -> FeatureMap:
        reduced = [
            reduction(tap) for reduction, tap in zip(self.reductions, taps, strict=True)
        ]
        return self.pooling(self.fusion(reduced, coarser))


# Over a ResNet.
LIGHT_WEIGHT = Decoder(
    partial(LightWeightBlock, fuses_taps=True, activation=relu),
    coarsest_width=512,
    width=256,
    tap_dropout=0.5,
    classifier_dropout=0.0,
    has_units=False,
)
# Over MobileNet-v2: two taps at 1/32 and two at 1/16, added as they are; ReLU6.
LIGHT_WEIGHT_MOBILE = Decoder(
    partial(LightWeightBlock, fuses_taps=False, activation=relu6),
    coarsest_width=256,
    width=256,
    tap_dropout=0.0,
    classifier_dropout=0.0,
    has_units=False,
)
