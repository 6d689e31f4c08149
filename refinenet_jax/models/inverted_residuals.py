"""Networks of inverted residuals: what the mobile backbones have in common.

Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks"; with
squeeze-and-excitation, Hu et al. 2018, where a network has it.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from refinenet_jax.models.activations import Activation, relu6
from refinenet_jax.models.chain import Chain, Recomputing, recomputed
from refinenet_jax.models.layers import (
    BatchNorm,
    Conv,
    ConvNorm,
    DepthwiseConv,
    FeatureMap,
    Padding,
    plain_keys,
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
        expansion: channels inside a block per channel of its input, or those of each
            block; None: the blocks have no expanding convolution.
        kernel_size: of the depthwise convolution.
        squeezes: the blocks have a gate, that of the form.
        activation: inside the blocks; None: that of the form.
    """

    channels: int
    repeats: int
    stride: int
    expansion: int | tuple[int, ...] | None
    kernel_size: int = 3
    squeezes: bool = False
    activation: Activation | None = None

    def width(self, in_channels: int, position: int) -> int:
        """Channels inside the block at that position."""
        if isinstance(self.expansion, tuple):
            return self.expansion[position]
        return in_channels * (self.expansion or 1)


@dataclasses.dataclass(frozen=True)
class GateForm:
    """What tells the gates of the networks apart.

    Attributes:
        channels: between its convolutions, of those a block is given and those inside.
        activation: between them.
        gate: of the second.
    """

    channels: Callable[[int, int], int]
    activation: Activation
    gate: Activation


@dataclasses.dataclass(frozen=True)
class LayerForm:
    """What all layers of a network have in common: borders, BatchNorm, arithmetic."""

    padding: Padding
    epsilon: float
    dtype: DTypeLike
    activation: Activation = relu6
    gate: GateForm | None = None

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


class ChannelGate(nnx.Module):
    """Scales each channel by what the means of all channels say: squeeze-and-excitation.

    x: [B,H,W,channels] → the same. A mean is of the real pixels, taken in float32.
    """

    def __init__(
        self,
        channels: int,
        squeezed: int,
        form: GateForm,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.reduce, self.expand = (
            Conv(
                before,
                after,
                1,
                use_bias=True,
                kernel_init=_kernel_init,
                dtype=dtype,
                rngs=rngs,
            )
            for before, after in ((channels, squeezed), (squeezed, channels))
        )
        self.form = form

    def __call__(self, x: FeatureMap) -> FeatureMap:
        total = x.filled(0).astype(jnp.float32).sum((1, 2), keepdims=True)
        if x.size is None:
            pixels = jnp.float32(x.values.shape[1] * x.values.shape[2])
        else:
            pixels = x.size.prod(1).astype(jnp.float32)[:, None, None, None]
        means = FeatureMap((total / pixels).astype(x.values.dtype))
        squeezed = self.form.activation(self.reduce(means))
        gates = self.form.gate(self.expand(squeezed))
        return x.with_values(x.values * gates.values)


class InvertedResidual(nnx.Module):
    """Expands, convolves each channel alone, projects; adds its input where it fits.

    x: [B,H,W,in_channels] → [B,ceil(H/stride),ceil(W/stride),channels]. The projection
    is linear.

    position: in the stage; the first has its stride.
    """

    def __init__(
        self,
        in_channels: int,
        stage: Stage,
        position: int,
        *,
        form: LayerForm,
        rngs: nnx.Rngs,
    ):
        stride = stage.stride if position == 0 else 1
        width = stage.width(in_channels, position)
        layers = []
        if stage.expansion is not None:
            layers.append(form.conv(in_channels, width, rngs=rngs))
        layers.append(form.depthwise(width, stage.kernel_size, stride, rngs=rngs))
        layers.append(form.conv(width, stage.channels, rngs=rngs))
        self.layers = nnx.List(layers)
        gate = form.gate if stage.squeezes else None
        self.squeeze = None
        if gate is not None:
            squeezed = gate.channels(in_channels, width)
            self.squeeze = nnx.data(
                ChannelGate(width, squeezed, gate, dtype=form.dtype, rngs=rngs)
            )
        self.activation = stage.activation or form.activation
        self.adds_input = stride == 1 and in_channels == stage.channels

    def __call__(self, x: FeatureMap) -> FeatureMap:
        residual = x
        for layer in self.layers[:-1]:
            residual = self.activation(layer(residual))
        if self.squeeze is not None:
            residual = self.squeeze(residual)
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
        stem_channels: int = 32,
        form: LayerForm,
        rngs: nnx.Rngs,
    ):
        keys = plain_keys(rngs)
        channels, stride, strides = stem_channels, 2, []
        self.activation = form.activation
        self.stem = form.conv(in_channels, channels, 3, stride, rngs=keys)
        self.stages: nnx.List = nnx.List()
        for stage in stages:
            blocks = []
            for position in range(stage.repeats):
                blocks.append(
                    InvertedResidual(channels, stage, position, form=form, rngs=keys)
                )
                channels = stage.channels
            self.stages.append(Chain(blocks))
            stride *= stage.stride
            strides.append(stride)
        self.tap_channels = tuple(stage.channels for stage in stages[1:])
        self.tap_strides = tuple(strides[1:])

    def __call__(self, x: FeatureMap) -> list[FeatureMap]:
        with jax.named_scope("stem"):
            x = self.activation(self.stem(x))
        outputs = []
        for stage, blocks in enumerate(self.stages):
            with jax.named_scope(f"stages.{stage}"):
                x = recomputed(Chain.__call__, blocks, x, when=self.remat == "all")
            outputs.append(x)
        return outputs[1:]
