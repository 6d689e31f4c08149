"""ResNet backbones, He et al. 2016, "Deep Residual Learning for Image Recognition".

The classifier is left out; the outputs of the four stages are the taps of RefineNet.
There are two forms of the bottleneck: torchvision has the stride in the 3×3
convolution, Caffe, and with it the paper's code, in the first 1×1.

ResNeXt (Xie et al. 2017) convolves groups of channels. ResNet-D (He et al. 2019, "Bag of
Tricks", figure 2) has three 3×3 convolutions for the 7×7, and shortcuts that take means
of pixels where others drop three of four.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from refinenet_jax.models.activations import relu
from refinenet_jax.models.chain import Chain, Recomputing, recomputed
from refinenet_jax.models.layers import (
    BatchNorm,
    Conv,
    ConvNorm,
    FeatureMap,
    Initializer,
    max_pool,
    plain_keys,
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

    pools: the shortcut takes means of 2×2 pixels.
    """

    def __init__(
        self,
        layers: Sequence[ConvNorm],
        shortcut: ConvNorm | None,
        *,
        pools: bool,
    ):
        self.layers = nnx.List(layers)
        self.shortcut = shortcut
        self.pools = pools

    def __call__(self, x: FeatureMap) -> FeatureMap:
        residual = x
        for layer in self.layers[:-1]:
            residual = relu(layer(residual))
        residual = self.layers[-1](residual)
        if self.pools:
            x = mean_pool(x)
        return relu(residual + (x if self.shortcut is None else self.shortcut(x)))


@dataclasses.dataclass(frozen=True)
class BlockForm:
    """What all blocks of a ResNet have in common.

    Attributes:
        expands: three convolutions, 1×1, 3×3 and 1×1, the last to four times the width;
            else two 3×3.
        strides_first: the first of three has the stride, not the second.
        groups: of the 3×3 of three.
        group_width: channels of a group where the width is 64.
        pools: see `ResidualBlock`.
        dtype: of the arithmetic.
    """

    expands: bool
    strides_first: bool = False
    groups: int = 1
    group_width: int = 64
    pools: bool = False
    _: dataclasses.KW_ONLY
    dtype: DTypeLike

    def block(
        self, in_channels: int, width: int, stride: int, *, rngs: nnx.Rngs
    ) -> ResidualBlock:
        """[B,H,W,in] → [B,ceil(H/stride),ceil(W/stride),width or four times that]."""
        layer = partial(_layer, dtype=self.dtype, rngs=rngs)
        zeros = nnx.initializers.zeros
        if self.expands:
            channels = 4 * width
            inner = width * self.group_width // 64 * self.groups
            first, second = (stride, 1) if self.strides_first else (1, stride)
            layers = [
                layer(in_channels, inner, 1, first),
                layer(inner, inner, 3, second, groups=self.groups),
                layer(inner, channels, 1, scale_init=zeros),
            ]
        else:
            channels = width
            layers = [
                layer(in_channels, width, 3, stride),
                layer(width, width, 3, scale_init=zeros),
            ]
        shortcut, pools = None, self.pools and stride > 1
        if stride > 1 or in_channels != channels:
            shortcut = layer(in_channels, channels, 1, 1 if pools else stride)
        return ResidualBlock(layers, shortcut, pools=pools)


def _layer(
    in_channels: int,
    channels: int,
    kernel_size: int,
    stride: int = 1,
    *,
    groups: int = 1,
    scale_init: Initializer = nnx.initializers.ones,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> ConvNorm:
    conv = Conv(
        in_channels,
        channels,
        kernel_size,
        stride=stride,
        groups=groups,
        kernel_init=_kernel_init,
        dtype=dtype,
        rngs=rngs,
    )
    return ConvNorm(conv, BatchNorm(channels, scale_init=scale_init, rngs=rngs))


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

    deep_stem: it is a ResNet-D. groups, group_width: see `BlockForm`.

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
        groups: int = 1,
        group_width: int = 64,
        deep_stem: bool = False,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        keys = plain_keys(rngs)
        repeats, expands = DEPTHS[depth]
        blocks_form = BlockForm(
            expands=expands,
            strides_first=form == "caffe",
            groups=groups,
            group_width=group_width,
            pools=deep_stem,
            dtype=dtype,
        )
        expansion = 4 if expands else 1
        widths = (64, 128, 256, 512)
        self.tap_channels = tuple(expansion * width for width in widths)
        layer = partial(_layer, dtype=dtype, rngs=keys)
        self.stem: nnx.Module
        if deep_stem:
            self.stem = nnx.List(
                [layer(in_channels, 32, 3, 2), layer(32, 32, 3), layer(32, 64, 3)]
            )
        else:
            self.stem = layer(in_channels, 64, 7, 2)
        self.stages: nnx.List = nnx.List()
        channels = 64
        for index, (width, repeat) in enumerate(zip(widths, repeats, strict=True)):
            blocks = []
            for position in range(repeat):
                stride = 2 if index > 0 and position == 0 else 1
                blocks.append(blocks_form.block(channels, width, stride, rngs=keys))
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


def _stem(stem: ConvNorm | nnx.List, x: FeatureMap) -> FeatureMap:
    for layer in [stem] if isinstance(stem, ConvNorm) else stem:
        x = relu(layer(x))
    return max_pool(x, window=3, stride=2)


def mean_pool(x: FeatureMap) -> FeatureMap:
    """Means of 2×2 pixels, of those that are there at the lower and the right border.

    x: [B,H,W,C] → [B,ceil(H/2),ceil(W/2),C], as torch's
    avg_pool2d(2, 2, ceil_mode=True, count_include_pad=False).
    """
    _, height, width, _ = x.values.shape
    borders = [(0, 0), (0, height % 2), (0, width % 2), (0, 0)]
    padded = jnp.pad(x.filled(0), borders)
    rows = padded[:, ::2] + padded[:, 1::2]
    total = rows[:, :, ::2] + rows[:, :, 1::2]
    size = jnp.array([[height, width]]) if x.size is None else x.size
    counts = [
        jnp.clip(
            size[:, axis, None] - 2 * jnp.arange(total.shape[1 + axis])[None], 1, 2
        )
        for axis in (0, 1)
    ]
    count = counts[0][:, :, None, None] * counts[1][:, None, :, None]
    values = total / count.astype(total.dtype)
    return FeatureMap(values, None if x.size is None else (x.size + 1) // 2)
