"""ResNet backbones, He et al. 2016, "Deep Residual Learning for Image Recognition".

The classifier is left out; the outputs of the four stages are the taps of RefineNet.
There are two forms of the bottleneck: torchvision has the stride in the 3×3
convolution, Caffe, and with it the paper's code, in the first 1×1.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import jax
from flax import nnx
from jax.typing import DTypeLike

from refinenet_jax.models.chain import Chain, Recomputing, recomputed
from refinenet_jax.models.layers import (
    BatchNorm,
    Conv,
    ConvNorm,
    FeatureMap,
    Initializer,
    max_pool,
    plain_keys,
    relu,
)

Form = Literal["torchvision", "caffe"]

# torchvision starts its ResNets this way.
_kernel_init = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


class ResidualBlock(nnx.Module):
    """Adds what a few convolutions find to their own input.

    x: [B,H,W,in] → [B,ceil(H/stride),ceil(W/stride),out]. The shortcut is projected
    where the shapes differ. The last scale starts at zero (Goyal et al. 2017, section
    5.1), so that a block begins as its shortcut and a deep network can start from
    random weights even where its statistics are frozen.
    """

    def __init__(
        self,
        layers: Sequence[ConvNorm],
        shortcut: ConvNorm | None,
    ):
        self.layers = nnx.List(layers)
        self.shortcut = shortcut

    def __call__(self, x: FeatureMap) -> FeatureMap:
        residual = x
        for layer in self.layers[:-1]:
            residual = relu(layer(residual))
        residual = self.layers[-1](residual)
        return relu(residual + (x if self.shortcut is None else self.shortcut(x)))


def basic_block(
    in_channels: int,
    width: int,
    stride: int,
    *,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> ResidualBlock:
    """Two 3×3 convolutions, [B,H,W,in] → [B,H/stride,W/stride,width]."""
    zeros = nnx.initializers.zeros
    layers = [
        _layer(in_channels, width, 3, stride, dtype=dtype, rngs=rngs),
        _layer(width, width, 3, scale_init=zeros, dtype=dtype, rngs=rngs),
    ]
    shortcut = _shortcut(in_channels, width, stride, dtype=dtype, rngs=rngs)
    return ResidualBlock(layers, shortcut)


def bottleneck_block(
    in_channels: int,
    width: int,
    stride: int,
    *,
    form: Form,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> ResidualBlock:
    """1×1, 3×3 and 1×1 convolutions, [B,H,W,in] → [B,H/stride,W/stride,4 width]."""
    zeros = nnx.initializers.zeros
    first, second = (stride, 1) if form == "caffe" else (1, stride)
    layers = [
        _layer(in_channels, width, 1, first, dtype=dtype, rngs=rngs),
        _layer(width, width, 3, second, dtype=dtype, rngs=rngs),
        _layer(width, 4 * width, 1, scale_init=zeros, dtype=dtype, rngs=rngs),
    ]
    shortcut = _shortcut(in_channels, 4 * width, stride, dtype=dtype, rngs=rngs)
    return ResidualBlock(layers, shortcut)


def _layer(
    in_channels: int,
    channels: int,
    kernel_size: int,
    stride: int = 1,
    *,
    scale_init: Initializer = nnx.initializers.ones,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> ConvNorm:
    conv = Conv(
        in_channels,
        channels,
        kernel_size,
        stride=stride,
        kernel_init=_kernel_init,
        dtype=dtype,
        rngs=rngs,
    )
    return ConvNorm(conv, BatchNorm(channels, scale_init=scale_init, rngs=rngs))


def _shortcut(
    in_channels: int, channels: int, stride: int, *, dtype: DTypeLike, rngs: nnx.Rngs
) -> ConvNorm | None:
    if stride == 1 and in_channels == channels:
        return None
    return _layer(in_channels, channels, 1, stride, dtype=dtype, rngs=rngs)


# depth: blocks in each stage, whether of three convolutions. He et al. 2016, table 1.
DEPTHS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}


class ResNet(Recomputing):
    """The four stages of a ResNet of depth 18, 34, 50, 101 or 152.

    x: float [B,H,W,in_channels] normalised → four FeatureMaps at 1/4, 1/8, 1/16 and
    1/32 of the height and width (rounded up), with `tap_channels` channels.
    """

    tap_strides = (4, 8, 16, 32)

    def __init__(
        self,
        depth: int,
        in_channels: int,
        *,
        form: Form = "torchvision",
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        keys = plain_keys(rngs)
        repeats, has_bottlenecks = DEPTHS[depth]
        build_block: Any = basic_block
        if has_bottlenecks:
            build_block = partial(bottleneck_block, form=form)
        expansion = 4 if has_bottlenecks else 1
        widths = (64, 128, 256, 512)
        self.tap_channels = tuple(expansion * width for width in widths)
        self.stem = _layer(in_channels, 64, 7, 2, dtype=dtype, rngs=keys)
        self.stages: nnx.List = nnx.List()
        channels = 64
        for index, (width, repeat) in enumerate(zip(widths, repeats, strict=True)):
            blocks = []
            for position in range(repeat):
                stride = 2 if index > 0 and position == 0 else 1
                blocks.append(
                    build_block(channels, width, stride, dtype=dtype, rngs=keys)
                )
                channels = expansion * width
            self.stages.append(Chain(blocks))

    def __call__(self, x: FeatureMap) -> list[FeatureMap]:
        with jax.named_scope("stem"):
            x = recomputed(_stem, self.stem, x, when=self.remat != "none")
        taps = []
        for stage, blocks in enumerate(self.stages):
            with jax.named_scope(f"stages.{stage}"):
                x = recomputed(Chain.__call__, blocks, x, when=self.remat == "all")
            taps.append(x)
        return taps


def _stem(stem: ConvNorm, x: FeatureMap) -> FeatureMap:
    return max_pool(relu(stem(x)), window=3, stride=2)
