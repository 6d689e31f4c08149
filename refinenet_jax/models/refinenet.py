"""RefineNet as in section 3 of Lin et al. 2017, four cascaded blocks.

Biases, widths and the places of the ReLUs follow the authors' code; resizing follows
the PyTorch ports (bilinear, corners aligned).
"""

from collections.abc import Callable, Sequence

from flax import nnx
from jax.typing import DTypeLike

from refinenet_jax.models.layers import (
    Conv,
    Dropout,
    FeatureMap,
    max_pool,
    relu,
    resize_like,
)

Block = Callable[..., nnx.Module]

# The authors' code starts every new convolution this way.
_kernel_init = nnx.initializers.normal(0.01)


def conv3x3(
    in_channels: int,
    channels: int,
    *,
    use_bias: bool = False,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> Conv:
    """The one convolution of the full RefineNet: 3×3, stride 1."""
    return Conv(
        in_channels,
        channels,
        3,
        use_bias=use_bias,
        kernel_init=_kernel_init,
        dtype=dtype,
        rngs=rngs,
    )


class ResidualConvUnit(nnx.Module):
    """Adapts features to the task (section 3.2): two convolutions beside an identity.

    x: [B,H,W,C] → [B,H,W,C]. Only the first convolution has a bias.
    """

    def __init__(self, channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.conv1 = conv3x3(channels, channels, use_bias=True, dtype=dtype, rngs=rngs)
        self.conv2 = conv3x3(channels, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x: FeatureMap) -> FeatureMap:
        return x + self.conv2(relu(self.conv1(relu(x))))


class MultiResolutionFusion(nnx.Module):
    """Brings all inputs to the finest resolution and the fewest channels and adds them.

    Section 3.3. inputs: [B,h,w,C] each, the finest first → [B,H,W,min C]. There is one
    convolution for each input; a lone input has none and passes unchanged.
    """

    def __init__(self, convs: Sequence[Conv]):
        self.convs = nnx.List(convs)

    def __call__(self, inputs: Sequence[FeatureMap]) -> FeatureMap:
        if not self.convs:
            return inputs[0]
        finest, *coarser = (conv(x) for conv, x in zip(self.convs, inputs, strict=True))
        fused = finest
        for x in coarser:
            fused = fused + resize_like(x, finest, "align_corners")
        return fused


class ChainedResidualPooling(nnx.Module):
    """Gathers context from ever larger regions and adds it back (section 3.4).

    x: [B,H,W,C] → [B,H,W,C].
    """

    def __init__(self, convs: Sequence[Conv]):
        self.convs = nnx.List(convs)

    def __call__(self, x: FeatureMap) -> FeatureMap:
        x = relu(x)
        path = x
        for conv in self.convs:
            path = conv(max_pool(path, 5))
            x = x + path
        return x


class RefineNetBlock(nnx.Module):
    """One RefineNet: adapts a tap of the backbone, fuses it with what is coarser, refines.

    tap: [B,H,W,tap_channels]; coarser: the block before, [B,h,w,coarser_channels], None
    in the first block → [B,H,W,channels]. Figure 3 of the paper.
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
        def units(count: int) -> nnx.List:
            return nnx.List(
                ResidualConvUnit(channels, dtype=dtype, rngs=rngs) for _ in range(count)
            )

        fused = [channels, coarser_channels] if coarser_channels else []
        self.reduction = conv3x3(tap_channels, channels, dtype=dtype, rngs=rngs)
        self.adaptation = units(2)
        self.fusion = MultiResolutionFusion(
            [conv3x3(width, channels, dtype=dtype, rngs=rngs) for width in fused]
        )
        self.pooling = ChainedResidualPooling(
            [conv3x3(channels, channels, dtype=dtype, rngs=rngs) for _ in range(4)]
        )
        # The authors' code has three after every block; the paper's text speaks of one.
        self.output = units(3)

    def __call__(self, tap: FeatureMap, coarser: FeatureMap | None) -> FeatureMap:
        x = self.reduction(tap)
        for unit in self.adaptation:
            x = unit(x)
        x = self.pooling(self.fusion([x] if coarser is None else [x, coarser]))
        for unit in self.output:
            x = unit(x)
        return x


class RefineNet(nnx.Module):
    """Four cascaded blocks and the classifier (figure 2c of the paper).

    taps: FeatureMaps at 1/4, 1/8, 1/16, 1/32 with `tap_channels` channels → logits
    [B,H/4,W/4,num_classes].
    """

    def __init__(
        self,
        tap_channels: Sequence[int],
        num_classes: int,
        *,
        block: Block,
        classifier_dropout: float,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        widths = (256, 256, 256, 512)
        coarser_widths = (*widths[1:], None)
        self.blocks = nnx.List(
            block(tap, coarser, width, dtype=dtype, rngs=rngs)
            for tap, coarser, width in zip(
                tap_channels, coarser_widths, widths, strict=True
            )
        )
        self.tap_dropout = Dropout(0.5)
        self.classifier_dropout = Dropout(classifier_dropout)
        self.classifier = conv3x3(
            widths[0], num_classes, use_bias=True, dtype=dtype, rngs=rngs
        )

    def __call__(
        self, taps: Sequence[FeatureMap], *, rngs: nnx.Rngs | None = None
    ) -> FeatureMap:
        tap1, tap2, tap3, tap4 = taps
        block1, block2, block3, block4 = self.blocks
        x = block4(self.tap_dropout(tap4, rngs=rngs), None)
        x = block3(self.tap_dropout(tap3, rngs=rngs), x)
        x = block2(tap2, x)
        x = block1(tap1, x)
        return self.classifier(self.classifier_dropout(x, rngs=rngs))
