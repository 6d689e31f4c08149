"""Backbones of inverted residuals, without their classifiers.

MobileNet-v2 (Sandler et al. 2018) in the form of Light-Weight RefineNet (Nekrasov et
al. 2018): the first block expands its 32 channels to 32 where torchvision's does not
expand at all.

EfficientNet-Lite0, EfficientNet-B0 (Tan and Le 2019) for small devices: without
squeeze-and-excitation and with ReLU6, after tensorflow/tpu
models/official/efficientnet/lite. Borders and epsilon are TensorFlow's; the momentum
is not: with its 0.99 the statistics of a new network are useless for hundreds of steps.
"""

import dataclasses
from collections.abc import Sequence

import jax
from flax import nnx
from jax.typing import DTypeLike

from refinenet_jax.models.chain import Chain, Recomputing, recomputed
from refinenet_jax.models.layers import (
    BatchNorm,
    Conv,
    ConvNorm,
    DepthwiseConv,
    FeatureMap,
    Padding,
    plain_keys,
    relu6,
)

# torchvision starts its MobileNet-v2 this way.
_kernel_init = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


@dataclasses.dataclass(frozen=True)
class Stage:
    """Blocks of one width.

    Attributes:
        channels: of the output.
        repeats: how many blocks.
        stride: of the first of them.
        expansion: channels inside a block per channel of its input; None: the blocks
            have no expanding convolution.
        kernel_size: of the depthwise convolution.
    """

    channels: int
    repeats: int
    stride: int
    expansion: int | None
    kernel_size: int = 3


@dataclasses.dataclass(frozen=True)
class LayerForm:
    """What all layers of a network have in common: borders, BatchNorm, arithmetic."""

    padding: Padding
    epsilon: float
    dtype: DTypeLike

    def conv(
        self,
        in_channels: int,
        channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        *,
        rngs: nnx.Rngs,
    ) -> ConvNorm:
        """[B,H,W,in_channels] → [B,H/stride,W/stride,channels]."""
        conv = Conv(
            in_channels,
            channels,
            kernel_size,
            stride=stride,
            padding=self.padding,
            kernel_init=_kernel_init,
            dtype=self.dtype,
            rngs=rngs,
        )
        return ConvNorm(conv, self._norm(channels, rngs))

    def depthwise(
        self, channels: int, kernel_size: int, stride: int, *, rngs: nnx.Rngs
    ) -> ConvNorm:
        """[B,H,W,channels] → [B,H/stride,W/stride,channels]."""
        conv = DepthwiseConv(
            channels,
            kernel_size,
            stride=stride,
            padding=self.padding,
            # Each channel reaches its own output only: fan-out is the window.
            kernel_init=nnx.initializers.variance_scaling(
                2.0 * channels, "fan_out", "normal"
            ),
            dtype=self.dtype,
            rngs=rngs,
        )
        return ConvNorm(conv, self._norm(channels, rngs))

    def _norm(self, channels: int, rngs: nnx.Rngs) -> BatchNorm:
        return BatchNorm(channels, epsilon=self.epsilon, rngs=rngs)


class InvertedResidual(nnx.Module):
    """Expands, convolves each channel alone, projects; adds its input where it fits.

    x: [B,H,W,in_channels] → [B,ceil(H/stride),ceil(W/stride),channels]. The projection
    is linear.
    """

    def __init__(
        self,
        in_channels: int,
        stage: Stage,
        stride: int,
        *,
        form: LayerForm,
        rngs: nnx.Rngs,
    ):
        width = in_channels * (stage.expansion or 1)
        layers = []
        if stage.expansion is not None:
            layers.append(form.conv(in_channels, width, rngs=rngs))
        layers.append(form.depthwise(width, stage.kernel_size, stride, rngs=rngs))
        layers.append(form.conv(width, stage.channels, rngs=rngs))
        self.layers = nnx.List(layers)
        self.adds_input = stride == 1 and in_channels == stage.channels

    def __call__(self, x: FeatureMap) -> FeatureMap:
        residual = x
        for layer in self.layers[:-1]:
            residual = relu6(layer(residual))
        residual = self.layers[-1](residual)
        return x + residual if self.adds_input else residual


class InvertedResidualNetwork(Recomputing):
    """A stem at stride 2 and stages of inverted residuals, all but the first tapped.

    x: float [B,H,W,in_channels] normalised → a FeatureMap for each stage but the first, at
    `tap_strides` of the height and width (rounded up) with `tap_channels` channels.
    """

    def __init__(
        self,
        in_channels: int,
        stages: Sequence[Stage],
        *,
        form: LayerForm,
        rngs: nnx.Rngs,
    ):
        keys = plain_keys(rngs)
        channels, stride, strides = 32, 2, []
        self.stem = form.conv(in_channels, channels, 3, stride, rngs=keys)
        self.stages: nnx.List = nnx.List()
        for stage in stages:
            blocks = []
            for position in range(stage.repeats):
                block_stride = stage.stride if position == 0 else 1
                blocks.append(
                    InvertedResidual(
                        channels, stage, block_stride, form=form, rngs=keys
                    )
                )
                channels = stage.channels
            self.stages.append(Chain(blocks))
            stride *= stage.stride
            strides.append(stride)
        self.tap_channels = tuple(stage.channels for stage in stages[1:])
        self.tap_strides = tuple(strides[1:])

    def __call__(self, x: FeatureMap) -> list[FeatureMap]:
        with jax.named_scope("stem"):
            x = relu6(self.stem(x))
        outputs = []
        for stage, blocks in enumerate(self.stages):
            with jax.named_scope(f"stages.{stage}"):
                x = recomputed(Chain.__call__, blocks, x, when=self.remat == "all")
            outputs.append(x)
        return outputs[1:]


def mobilenet_v2(
    in_channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs
) -> InvertedResidualNetwork:
    """MobileNet-v2; taps of 24, 32, 64, 96, 160 and 320 channels, the last at 1/32."""
    stages = (
        Stage(channels=16, repeats=1, stride=1, expansion=1),
        Stage(channels=24, repeats=2, stride=2, expansion=6),
        Stage(channels=32, repeats=3, stride=2, expansion=6),
        Stage(channels=64, repeats=4, stride=2, expansion=6),
        Stage(channels=96, repeats=3, stride=1, expansion=6),
        Stage(channels=160, repeats=3, stride=2, expansion=6),
        Stage(channels=320, repeats=1, stride=1, expansion=6),
    )
    form = LayerForm(padding="symmetric", epsilon=1e-5, dtype=dtype)
    return InvertedResidualNetwork(in_channels, stages, form=form, rngs=rngs)


def efficientnet_lite0(
    in_channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs
) -> InvertedResidualNetwork:
    """Taps of 24, 40, 80, 112, 192 and 320 channels, the last at 1/32."""
    stages = (
        Stage(channels=16, repeats=1, stride=1, expansion=None, kernel_size=3),
        Stage(channels=24, repeats=2, stride=2, expansion=6, kernel_size=3),
        Stage(channels=40, repeats=2, stride=2, expansion=6, kernel_size=5),
        Stage(channels=80, repeats=3, stride=2, expansion=6, kernel_size=3),
        Stage(channels=112, repeats=3, stride=1, expansion=6, kernel_size=5),
        Stage(channels=192, repeats=4, stride=2, expansion=6, kernel_size=5),
        Stage(channels=320, repeats=1, stride=1, expansion=6, kernel_size=3),
    )
    form = LayerForm(padding="same", epsilon=1e-3, dtype=dtype)
    return InvertedResidualNetwork(in_channels, stages, form=form, rngs=rngs)
