"""ResNet backbones in torchvision's form: the stride sits in the 3×3 convolution.

He et al. 2016, "Deep Residual Learning for Image Recognition"; the classifier is left
out and the outputs of the four stages are the taps of RefineNet.
"""

from collections.abc import Sequence

from flax import nnx
from jax.typing import DTypeLike

from refinenet_jax.models.layers import BatchNorm, Conv, FeatureMap, max_pool, relu

# torchvision starts its ResNets this way.
_kernel_init = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


class ConvNorm(nnx.Module):
    """Convolution without bias, then batch normalisation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        scale_init: nnx.initializers.Initializer = nnx.initializers.ones,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.conv = Conv(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            kernel_init=_kernel_init,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = BatchNorm(out_channels, scale_init=scale_init, rngs=rngs)

    def __call__(self, x: FeatureMap) -> FeatureMap:
        return self.norm(self.conv(x))


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
    in_channels: int, width: int, stride: int, *, dtype: DTypeLike, rngs: nnx.Rngs
) -> ResidualBlock:
    """Two 3×3 convolutions, [B,H,W,in] → [B,H/stride,W/stride,width]."""
    zeros = nnx.initializers.zeros
    layers = [
        ConvNorm(in_channels, width, 3, stride=stride, dtype=dtype, rngs=rngs),
        ConvNorm(width, width, 3, scale_init=zeros, dtype=dtype, rngs=rngs),
    ]
    shortcut = _shortcut(in_channels, width, stride, dtype=dtype, rngs=rngs)
    return ResidualBlock(layers, shortcut)


def bottleneck_block(
    in_channels: int, width: int, stride: int, *, dtype: DTypeLike, rngs: nnx.Rngs
) -> ResidualBlock:
    """1×1, 3×3 and 1×1 convolutions, [B,H,W,in] → [B,H/stride,W/stride,4 width]."""
    zeros = nnx.initializers.zeros
    layers = [
        ConvNorm(in_channels, width, 1, dtype=dtype, rngs=rngs),
        ConvNorm(width, width, 3, stride=stride, dtype=dtype, rngs=rngs),
        ConvNorm(width, 4 * width, 1, scale_init=zeros, dtype=dtype, rngs=rngs),
    ]
    shortcut = _shortcut(in_channels, 4 * width, stride, dtype=dtype, rngs=rngs)
    return ResidualBlock(layers, shortcut)


def _shortcut(
    in_channels: int, channels: int, stride: int, *, dtype: DTypeLike, rngs: nnx.Rngs
) -> ConvNorm | None:
    if stride == 1 and in_channels == channels:
        return None
    return ConvNorm(in_channels, channels, 1, stride=stride, dtype=dtype, rngs=rngs)


# name: (block, channels out per channel of width, blocks in each stage). He et al. 2016,
# table 1.
DEPTHS = {
    "resnet18": (basic_block, 1, (2, 2, 2, 2)),
    "resnet50": (bottleneck_block, 4, (3, 4, 6, 3)),
    "resnet101": (bottleneck_block, 4, (3, 4, 23, 3)),
    "resnet152": (bottleneck_block, 4, (3, 8, 36, 3)),
}


class ResNet(nnx.Module):
    """The four stages of a ResNet.

    x: float [B,H,W,3] normalised → four FeatureMaps at 1/4, 1/8, 1/16 and 1/32 of the
    height and width (rounded up), with `tap_channels` channels.
    """

    def __init__(self, name: str, *, dtype: DTypeLike, rngs: nnx.Rngs):
        if name not in DEPTHS:
            raise ValueError(
                f"backbone {name!r} is unknown; known: {', '.join(DEPTHS)}"
            )
        block, expansion, repeats = DEPTHS[name]
        widths = (64, 128, 256, 512)
        self.tap_channels = tuple(expansion * width for width in widths)
        self.stem = ConvNorm(3, 64, 7, stride=2, dtype=dtype, rngs=rngs)
        self.stages: nnx.List = nnx.List()
        channels = 64
        for index, (width, repeat) in enumerate(zip(widths, repeats, strict=True)):
            blocks: nnx.List = nnx.List()
            for position in range(repeat):
                stride = 2 if index > 0 and position == 0 else 1
                blocks.append(block(channels, width, stride, dtype=dtype, rngs=rngs))
                channels = expansion * width
            self.stages.append(blocks)

    def __call__(self, x: FeatureMap) -> list[FeatureMap]:
        x = max_pool(relu(self.stem(x)), window=3, stride=2)
        taps = []
        for blocks in self.stages:
            for block in blocks:
                x = block(x)
            taps.append(x)
        return taps
