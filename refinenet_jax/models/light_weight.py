"""Light-Weight RefineNet, Nekrasov et al. 2018: 1×1 convolutions, no residual units."""

from flax import nnx
from jax.typing import DTypeLike

from refinenet_jax.models.layers import Conv, FeatureMap
from refinenet_jax.models.refinenet import (
    ChainedResidualPooling,
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
    """One light-weight RefineNet: reduces a tap, adds what is coarser, pools.

    tap: [B,H,W,tap_channels]; coarser: the block before, [B,h,w,coarser_channels], None
    in the first block → [B,H,W,channels].
    """

    def __init__(
        self,
        tap_channels: int,
        coarser_channels: int | None,
        channels: int,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.reduction = conv1x1(tap_channels, channels, dtype=dtype, rngs=rngs)
        fused = [channels, coarser_channels] if coarser_channels else []
        self.fusion = MultiResolutionFusion(
            [conv1x1(width, channels, dtype=dtype, rngs=rngs) for width in fused]
        )
        self.pooling = ChainedResidualPooling(
            [conv1x1(channels, channels, dtype=dtype, rngs=rngs) for _ in range(4)]
        )

    def __call__(self, tap: FeatureMap, coarser: FeatureMap | None) -> FeatureMap:
        x = self.reduction(tap)
        return self.pooling(self.fusion([x] if coarser is None else [x, coarser]))
