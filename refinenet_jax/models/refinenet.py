"""RefineNet as in section 3 of Lin et al. 2017.

Biases, widths and the places of the ReLUs follow the authors' code.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx
from jax.typing import DTypeLike

from refinenet_jax.models.architecture import CASCADES, Architecture, PoolingOrder
from refinenet_jax.models.layers import Conv, Dropout, FeatureMap, max_pool, relu
from refinenet_jax.models.resize import ResizeMethod, resize_like

Activation = Callable[[FeatureMap], FeatureMap]

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


class ResidualConvUnits(nnx.Module):
    """A few residual units in a row, [B,H,W,C] → [B,H,W,C]."""

    def __init__(self, count: int, channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.units = nnx.List(
            ResidualConvUnit(channels, dtype=dtype, rngs=rngs) for _ in range(count)
        )

    def __call__(self, x: FeatureMap) -> FeatureMap:
        for unit in self.units:
            x = unit(x)
        return x


class MultiResolutionFusion(nnx.Module):
    """Brings all inputs of a block to the finest resolution and adds them.

    Section 3.3. taps: [B,h,w,C] each; coarser: the block before, [B,h,w,any], or None →
    [B,H,W,C].

    Args:
        tap_convs: one for each tap; without them the taps stay as they are.
        coarser_conv: for the block before, to C channels.
        resize_method: how a coarser input is enlarged.
    """

    def __init__(
        self,
        tap_convs: Sequence[Conv],
        coarser_conv: Conv | None,
        resize_method: ResizeMethod,
    ):
        self.tap_convs = nnx.List(tap_convs)
        self.coarser_conv = coarser_conv
        self.resize_method = resize_method

    def __call__(
        self, taps: Sequence[FeatureMap], coarser: FeatureMap | None
    ) -> FeatureMap:
        inputs = list(taps)
        if self.tap_convs:
            inputs = [conv(x) for conv, x in zip(self.tap_convs, taps, strict=True)]
        if coarser is not None:
            assert self.coarser_conv is not None
            inputs.append(self.coarser_conv(coarser))
        finest = max(inputs, key=lambda x: x.values.shape[1:3])
        fused = resize_like(inputs[0], finest, self.resize_method)
        for x in inputs[1:]:
            fused = fused + resize_like(x, finest, self.resize_method)
        return fused


class ChainedResidualPooling(nnx.Module):
    """Gathers context from ever larger regions and adds it back (section 3.4).

    x: [B,H,W,C] → [B,H,W,C].
    """

    def __init__(
        self,
        convs: Sequence[Conv],
        order: PoolingOrder,
        activation: Activation = relu,
    ):
        self.convs = nnx.List(convs)
        self.order = order
        self.activation = activation

    def __call__(self, x: FeatureMap) -> FeatureMap:
        x = self.activation(x)
        path = x
        for conv in self.convs:
            if self.order == "original":
                path = conv(max_pool(path, 5))
            else:
                path = max_pool(conv(path), 5)
            x = x + path
        return x


@dataclasses.dataclass(frozen=True)
class BlockInputs:
    """What enters a block.

    Attributes:
        tap_channels: of each tap of the backbones.
        tap_widths: what each tap is reduced to.
        coarser_channels: of the block before; None in the first.
    """

    tap_channels: tuple[int, ...]
    tap_widths: tuple[int, ...]
    coarser_channels: int | None

    @property
    def count(self) -> int:
        """How many inputs there are."""
        return len(self.tap_channels) + (self.coarser_channels is not None)

    @property
    def channels(self) -> int:
        """Of the block's output: the fewest of any input."""
        widths = self.tap_widths
        return min(
            widths
            if self.coarser_channels is None
            else (*widths, self.coarser_channels)
        )


class RefineNetBlock(nnx.Module):
    """One RefineNet: adapts taps of the backbone, fuses them with what is coarser, refines.

    taps: [B,H,W,tap_channels] each; coarser: the block before,
    [B,h,w,coarser_channels], None in the first block → [B,H,W,channels] at the finest
    resolution. Figure 3 of the paper.
    """

    def __init__(
        self,
        inputs: BlockInputs,
        architecture: Architecture,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        def conv(in_channels: int, channels: int) -> Conv:
            return conv3x3(in_channels, channels, dtype=dtype, rngs=rngs)

        def units(count: int, channels: int) -> ResidualConvUnits:
            return ResidualConvUnits(count, channels, dtype=dtype, rngs=rngs)

        channels, coarser = inputs.channels, inputs.coarser_channels
        self.reductions = nnx.List(
            map(conv, inputs.tap_channels, inputs.tap_widths),
        )
        self.adaptations = nnx.List(
            units(architecture.adaptation_units, width) for width in inputs.tap_widths
        )
        # A lone input is not fused: it passes without a convolution.
        fused = inputs.tap_widths if inputs.count > 1 else ()
        self.fusion = MultiResolutionFusion(
            [conv(width, channels) for width in fused],
            None if coarser is None else conv(coarser, channels),
            architecture.fusion_resize,
        )
        self.pooling = ChainedResidualPooling(
            [conv(channels, channels) for _ in range(architecture.pooling_stages)],
            architecture.pooling,
        )
        self.output = units(architecture.output_units, channels)

    def __call__(
        self, taps: Sequence[FeatureMap], coarser: FeatureMap | None
    ) -> FeatureMap:
        adapted = [
            adaptation(reduction(tap))
            for adaptation, reduction, tap in zip(
                self.adaptations, self.reductions, taps, strict=True
            )
        ]
        return self.output(self.pooling(self.fusion(adapted, coarser)))


@dataclasses.dataclass(frozen=True)
class Decoder:
    """A kind of decoder.

    Attributes:
        block: RefineNetBlock or another that is called like it.
        coarsest_width: channels that taps at stride 32 are reduced to.
        width: channels that all other taps are reduced to.
        tap_dropout: rate on taps at strides 16 and 32.
        classifier_dropout: rate before the classifier.
        has_units: there may be residual units before the classifier.
    """

    block: Callable[..., nnx.Module]
    coarsest_width: int
    width: int
    tap_dropout: float
    classifier_dropout: float
    has_units: bool


FULL = Decoder(
    RefineNetBlock,
    coarsest_width=512,
    width=256,
    tap_dropout=0.5,
    classifier_dropout=0.5,
    has_units=True,
)


class RefineNet(nnx.Module):
    """Cascaded blocks and the classifier (figure 2 of the paper).

    taps: FeatureMaps at `tap_strides` with `tap_channels` channels → scores
    [B,H/4,W/4,num_outputs].
    """

    def __init__(
        self,
        tap_strides: Sequence[int],
        tap_channels: Sequence[int],
        decoder: Decoder,
        architecture: Architecture,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.taps_of_blocks = tuple(
            tuple(i for i, stride in enumerate(tap_strides) if stride in strides)
            for strides in CASCADES[architecture.cascade]
        )
        self.drops_tap = tuple(stride >= 16 for stride in tap_strides)
        widths = [
            decoder.coarsest_width if stride == 32 else decoder.width
            for stride in tap_strides
        ]
        inputs: list[BlockInputs] = []
        for taps in self.taps_of_blocks:
            of_block = BlockInputs(
                tuple(tap_channels[i] for i in taps),
                tuple(widths[i] for i in taps),
                inputs[-1].channels if inputs else None,
            )
            inputs.append(of_block)
        channels = inputs[-1].channels
        self.blocks = nnx.List(
            decoder.block(of_block, architecture, dtype=dtype, rngs=rngs)
            for of_block in inputs
        )
        self.tap_dropout = Dropout(decoder.tap_dropout)
        self.classifier_dropout = Dropout(decoder.classifier_dropout)
        units = architecture.classifier_units if decoder.has_units else 0
        self.classifier_units = ResidualConvUnits(
            units, channels, dtype=dtype, rngs=rngs
        )
        self.classifier = conv3x3(
            channels, architecture.num_outputs, use_bias=True, dtype=dtype, rngs=rngs
        )

    def __call__(
        self, taps: Sequence[FeatureMap], *, rngs: nnx.Rngs | None = None
    ) -> FeatureMap:
        taps = [
            self.tap_dropout(tap, rngs=rngs) if drops else tap
            for tap, drops in zip(taps, self.drops_tap, strict=True)
        ]
        x: Any = None
        for block, indices in zip(self.blocks, self.taps_of_blocks, strict=True):
            x = block([taps[i] for i in indices], x)
        x = self.classifier_units(x)
        return self.classifier(self.classifier_dropout(x, rngs=rngs))
