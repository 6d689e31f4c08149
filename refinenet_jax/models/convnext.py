"""ConvNeXt backbones, Liu et al. 2022, "A ConvNet for the 2020s".

The classifier and its norm are left out; the outputs of the four stages are the taps of
RefineNet. There is no BatchNorm: a layer is normalised over the channels of a pixel.
Pictures whose sides are no multiples of 32 are completed with zeros, patch by patch, where
the authors' code drops the rest. Stochastic depth is left out.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from refinenet_jax.models.activations import gelu
from refinenet_jax.models.chain import Chain, Recomputing, recomputed
from refinenet_jax.models.layers import Conv, DepthwiseConv, FeatureMap, plain_keys

_kernel_init = nnx.initializers.truncated_normal(0.02)

# Blocks of each stage, by size.
DEPTHS = {"tiny": (3, 3, 9, 3), "small": (3, 3, 27, 3)}
_WIDTHS = (96, 192, 384, 768)


class LayerNorm(nnx.Module):
    """Normalises the channels of each pixel, as torch's LayerNorm(channels, eps=1e-6).

    x: [B,H,W,channels] → the same; the arithmetic is float32.
    """

    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: FeatureMap) -> FeatureMap:
        values = x.values.astype(jnp.float32)
        centred = values - values.mean(-1, keepdims=True)
        variance = (centred**2).mean(-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(variance + 1e-6)
        scaled = normal * self.scale[...][None, None, None]
        shifted = scaled + self.bias[...][None, None, None]
        return x.with_values(shifted.astype(x.values.dtype))


class Patches(nnx.Module):
    """Squares of pixels that do not overlap, each made one pixel.

    x: [B,H,W,in] → [B,ceil(H/edge),ceil(W/edge),out], normalised before or after.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        edge: int,
        *,
        normalizes_first: bool,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.conv = Conv(
            in_channels,
            channels,
            edge,
            stride=edge,
            use_bias=True,
            padding="after",
            kernel_init=_kernel_init,
            dtype=dtype,
            rngs=rngs,
        )
        self.layer_norm = LayerNorm(in_channels if normalizes_first else channels)
        self.normalizes_first = normalizes_first

    def __call__(self, x: FeatureMap) -> FeatureMap:
        if self.normalizes_first:
            return self.conv(self.layer_norm(x))
        return self.layer_norm(self.conv(x))


class ConvNeXtBlock(nnx.Module):
    """Convolves each channel alone, then mixes them; [B,H,W,channels] → the same.

    gamma: scales what is added to the input, [channels]; starts at 1e-6.
    """

    def __init__(self, channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.depthwise = DepthwiseConv(
            channels,
            7,
            use_bias=True,
            kernel_init=_kernel_init,
            dtype=dtype,
            rngs=rngs,
        )
        self.layer_norm = LayerNorm(channels)
        self.expand, self.project = (
            Conv(
                before,
                after,
                1,
                use_bias=True,
                kernel_init=_kernel_init,
                dtype=dtype,
                rngs=rngs,
            )
            for before, after in ((channels, 4 * channels), (4 * channels, channels))
        )
        self.gamma = nnx.Param(jnp.full(channels, 1e-6))

    def __call__(self, x: FeatureMap) -> FeatureMap:
        residual = self.layer_norm(self.depthwise(x))
        residual = self.project(gelu(self.expand(residual)))
        gamma = self.gamma[...].astype(residual.values.dtype)
        return x + residual.with_values(residual.values * gamma[None, None, None])


class ConvNeXt(Recomputing):
    """The four stages of a ConvNeXt, "tiny" or "small".

    x: float [B,H,W,in_channels] normalised → four FeatureMaps at 1/4, 1/8, 1/16 and
    1/32 of the height and width (rounded up), with `tap_channels` channels.
    """

    tap_strides = (4, 8, 16, 32)
    tap_channels = _WIDTHS

    def __init__(
        self, size: str, in_channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        keys = plain_keys(rngs)
        before: Sequence[int] = (in_channels, *_WIDTHS)
        self.patches: nnx.List = nnx.List()
        self.stages: nnx.List = nnx.List()
        for stage, (channels, count) in enumerate(
            zip(_WIDTHS, DEPTHS[size], strict=True)
        ):
            self.patches.append(
                Patches(
                    before[stage],
                    channels,
                    4 if stage == 0 else 2,
                    normalizes_first=stage > 0,
                    dtype=dtype,
                    rngs=keys,
                )
            )
            self.stages.append(
                Chain(
                    ConvNeXtBlock(channels, dtype=dtype, rngs=keys)
                    for _ in range(count)
                )
            )

    def __call__(self, x: FeatureMap) -> list[FeatureMap]:
        taps = []
        for stage, (patches, blocks) in enumerate(
            zip(self.patches, self.stages, strict=True)
        ):
            with jax.named_scope(f"stages.{stage}"):
                x = patches(x)
                x = recomputed(Chain.__call__, blocks, x, when=self.remat == "all")
            taps.append(x)
        return taps
