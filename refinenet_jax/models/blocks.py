"""The parts of RefineNet as in section 3 of Lin et al. 2017, and its light-weight form.

Biases, widths and the places of the ReLUs follow the authors' code. Light-Weight
RefineNet (Nekrasov et al. 2018) has 1×1 convolutions and no residual units.
"""

import dataclasses
from collections.abc import Sequence

import jax
from flax import nnx
from jax.typing import DTypeLike

from refinenet_jax.models.activations import Activation, relu, relu6
from refinenet_jax.models.chain import Chain, Recomputing, recomputed
from refinenet_jax.models.layers import (
    Conv,
    FeatureMap,
    Initializer,
    max_pool,
)
from refinenet_jax.models.resize import ResizeMethod, resize_like

# The authors' code starts every new convolution this way.
_authors_init = nnx.initializers.normal(0.01)
# As torch's Conv2d starts. A larger scale lets the features grow from pool to pool, for
# there is no normalisation: with three times this variance the first loss is above 5.
_torch_init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


@dataclasses.dataclass(frozen=True)
class DecoderKind:
    """What tells the decoders of the papers apart.

    Example:
        narrow = dataclasses.replace(LIGHT_WEIGHT, width=64, coarsest_width=128)

    Attributes:
        kernel_size: of its convolutions.
        kernel_init: of these.
        has_units: there are residual units: on taps, after blocks, before the classifier.
        fuses_taps: each tap has a convolution in the fusion where a block has several
            inputs.
        activation: at the start of a chain of pools.
        coarsest_width: channels that taps at stride 32 are reduced to.
        width: channels that all other taps are reduced to.
        tap_dropout: rate on taps at strides 16 and 32.
        classifier_dropout: rate before the classifier.
    """

    kernel_size: int
    kernel_init: Initializer
    has_units: bool
    fuses_taps: bool
    activation: Activation
    coarsest_width: int
    width: int
    tap_dropout: float
    classifier_dropout: float


# Lin et al. 2017.
FULL = DecoderKind(
    kernel_size=3,
    kernel_init=_authors_init,
    has_units=True,
    fuses_taps=True,
    activation=relu,
    coarsest_width=512,
    width=256,
    tap_dropout=0.5,
    classifier_dropout=0.5,
)
# Nekrasov et al. 2018 over a ResNet.
LIGHT_WEIGHT = DecoderKind(
    kernel_size=1,
    kernel_init=_torch_init,
    has_units=False,
    fuses_taps=True,
    activation=relu,
    coarsest_width=512,
    width=256,
    tap_dropout=0.5,
    classifier_dropout=0.0,
)
# The same over MobileNet-v2: two taps at 1/32 and two at 1/16, added as they are; ReLU6.
LIGHT_WEIGHT_MOBILE = dataclasses.replace(
    LIGHT_WEIGHT,
    fuses_taps=False,
    activation=relu6,
    coarsest_width=256,
    tap_dropout=0.0,
)


def conv3x3(
    in_channels: int,
    channels: int,
    *,
    use_bias: bool = False,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> Conv:
    """The convolution of residual units and classifiers: 3×3, stride 1."""
    return Conv(
        in_channels,
        channels,
        3,
        use_bias=use_bias,
        kernel_init=_authors_init,
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
    """A few residual units in a row, or none, [B,H,W,C] → [B,H,W,C]."""

    def __init__(self, count: int, channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.units = Chain(
            ResidualConvUnit(channels, dtype=dtype, rngs=rngs) for _ in range(count)
        )

    def __call__(self, x: FeatureMap) -> FeatureMap:
        with jax.named_scope("units"):
            return self.units(x)


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


class ChainedResidualPooling(Recomputing):
    """Gathers context from ever larger regions and adds it back (section 3.4).

    x: [B,H,W,C] → [B,H,W,C].

    Args:
        convs: one for each stage.
        convolves_first: the "improved" order of the authors' code, convolve → pool,
            rather than the paper's pool → convolve.
        activation: at the start.
    """

    def __init__(
        self,
        convs: Sequence[Conv],
        *,
        convolves_first: bool = False,
        activation: Activation = relu,
    ):
        self.convs = nnx.List(convs)
        self.convolves_first = convolves_first
        self.activation = activation

    def __call__(self, x: FeatureMap) -> FeatureMap:
        x = self.activation(x)
        path = x
        for conv in self.convs:
            path = recomputed(self._stage, conv, path, when=self.remat != "none")
            x = x + path
        return x

    def _stage(self, conv: Conv, path: FeatureMap) -> FeatureMap:
        if self.convolves_first:
            return max_pool(conv(path), 5)
        return conv(max_pool(path, 5))


@dataclasses.dataclass(frozen=True)
class BlockInputs:
    """What enters a block.

    Attributes:
        tap_channels: of each tap.
        tap_widths: channels that each is reduced to.
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
        if self.coarser_channels is None:
            return min(self.tap_widths)
        return min(*self.tap_widths, self.coarser_channels)


class RefineNetBlock(nnx.Module):
    """One RefineNet: adapts taps of the backbone, fuses them with what is coarser, refines.

    taps: [B,H,W,tap_channels] each; coarser: the block before,
    [B,h,w,coarser_channels], None in the first block → [B,H,W,channels] at the finest
    resolution. Figure 3 of the paper.

    Args:
        inputs: how many channels enter.
        kind: of the decoder.
        adaptation_units: residual units on each tap.
        output_units: residual units at the end.
        pooling_stages: of the chain.
        convolves_first: see `ChainedResidualPooling`.
        fusion_resize: see `MultiResolutionFusion`.
        dtype: of the arithmetic.
        rngs: the stream "params".
    """

    def __init__(
        self,
        inputs: BlockInputs,
        kind: DecoderKind,
        *,
        adaptation_units: int,
        output_units: int,
        pooling_stages: int,
        convolves_first: bool,
        fusion_resize: ResizeMethod,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        def conv(in_channels: int, channels: int) -> Conv:
            return Conv(
                in_channels,
                channels,
                kind.kernel_size,
                kernel_init=kind.kernel_init,
                dtype=dtype,
                rngs=rngs,
            )

        def units(count: int, channels: int) -> ResidualConvUnits:
            present = count if kind.has_units else 0
            return ResidualConvUnits(present, channels, dtype=dtype, rngs=rngs)

        channels, coarser = inputs.channels, inputs.coarser_channels
        self.reductions = nnx.List(map(conv, inputs.tap_channels, inputs.tap_widths))
        self.adaptations = nnx.List(
            units(adaptation_units, width) for width in inputs.tap_widths
        )
        # A lone input is not fused: it passes without a convolution.
        fused = inputs.tap_widths if kind.fuses_taps and inputs.count > 1 else ()
        self.fusion = MultiResolutionFusion(
            [conv(width, channels) for width in fused],
            None if coarser is None else conv(coarser, channels),
            fusion_resize,
        )
        self.pooling = ChainedResidualPooling(
            [conv(channels, channels) for _ in range(pooling_stages)],
            convolves_first=convolves_first,
            activation=kind.activation,
        )
        self.output = units(output_units, channels)

    def __call__(
        self, taps: Sequence[FeatureMap], coarser: FeatureMap | None
    ) -> FeatureMap:
        with jax.named_scope("adaptations"):
            adapted = [
                adaptation(reduction(tap))
                for adaptation, reduction, tap in zip(
                    self.adaptations, self.reductions, taps, strict=True
                )
            ]
        with jax.named_scope("fusion"):
            x = self.fusion(adapted, coarser)
        with jax.named_scope("pooling"):
            x = self.pooling(x)
        with jax.named_scope("output"):
            return self.output(x)
