"""Layers that know which part of a padded picture is real.

Pictures of many sizes share one compiled program: each is padded to a common shape and
brings its true size along. A layer that looks beyond its own pixel then sees what it
would see at the border of the picture alone: zeros in a convolution, -inf in a
max-pool, nothing in a resize. In training every pixel is real and no size is given.

Feature maps are laid out [B,H,W,C]; strides, paddings and rounding follow PyTorch.
"""

import dataclasses
from typing import Literal, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

Initializer = jax.nn.initializers.Initializer
ResizeMethod = Literal["align_corners", "bilinear", "bicubic"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FeatureMap:
    """Features of a batch of pictures.

    Attributes:
        values: float [B,H,W,C].
        size: int32 [B,2], the rows and columns of each picture that are real; None
            where all of them are.
    """

    values: jax.Array
    size: jax.Array | None = None

    def __add__(self, other: "FeatureMap") -> "FeatureMap":
        return self.with_values(self.values + other.values)

    def with_values(self, values: jax.Array) -> Self:
        """The same extent with other values, float [B,H,W,C]."""
        return dataclasses.replace(self, values=values)

    def filled(self, fill: float) -> jax.Array:
        """The values, float [B,H,W,C], with `fill` wherever the picture is padding."""
        if self.size is None:
            return self.values
        rows, columns = (
            jnp.arange(length)[None, :] < self.size[:, axis, None]
            for axis, length in enumerate(self.values.shape[1:3])
        )
        real = rows[:, :, None, None] & columns[:, None, :, None]
        return jnp.where(real, self.values, jnp.asarray(fill, self.values.dtype))


def relu(x: FeatureMap) -> FeatureMap:
    """max(x, 0), pixel by pixel."""
    return x.with_values(jax.nn.relu(x.values))


class Conv(nnx.Module):
    """Convolution with an odd square kernel, padded by kernel_size // 2 on every side.

    x: FeatureMap [B,H,W,in] → [B,ceil(H/stride),ceil(W/stride),out], as torch's
    Conv2d(in, out, kernel_size, stride, padding=kernel_size // 2). Parameters are
    float32, kernel [k,k,in,out]; the arithmetic is done in `dtype`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        use_bias: bool = False,
        kernel_init: Initializer,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        shape = (kernel_size, kernel_size, in_channels, out_channels)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_channels)) if use_bias else None
        self.kernel_size = kernel_size
        self.stride = stride
        self.dtype = dtype

    def __call__(self, x: FeatureMap) -> FeatureMap:
        kernel = self.kernel[...].astype(self.dtype)
        if self.kernel_size == 1:
            # A matrix product: two to three times faster than the same convolution
            # on CPU, the same elsewhere.
            pixels = x.values[:, :: self.stride, :: self.stride]
            values = jnp.dot(pixels.astype(self.dtype), kernel[0, 0])
        else:
            values = lax.conv_general_dilated(
                x.filled(0).astype(self.dtype),
                kernel,
                window_strides=(self.stride, self.stride),
                padding=[(self.kernel_size // 2, self.kernel_size // 2)] * 2,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        if self.bias is not None:
            values += self.bias[...].astype(self.dtype)[None, None, None]
        return FeatureMap(values, _strided(x.size, self.stride))


class BatchNorm(nnx.BatchNorm):
    """Batch normalisation, as torch's BatchNorm2d(channels): epsilon 1e-5, momentum 0.1.

    Flax counts momentum the other way round, 0.9, and keeps the variance of the batch
    as it is where torch keeps n / (n - 1) times it. The arithmetic is float32 whatever
    the features are, so that bfloat16 does not round the statistics. Under `jax.jit`
    with a sharded batch the statistics are those of the whole global batch.
    """

    def __init__(
        self,
        channels: int,
        *,
        scale_init: Initializer = nnx.initializers.ones,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            channels,
            momentum=0.9,
            epsilon=1e-5,
            scale_init=scale_init,
            dtype=jnp.float32,
            rngs=rngs,
        )

    def __call__(self, x: FeatureMap) -> FeatureMap:  # type: ignore[override]
        return x.with_values(super().__call__(x.values).astype(x.values.dtype))


class Dropout(nnx.Module):
    """Zeroes each value with probability `rate` and scales the others to keep the mean."""

    def __init__(self, rate: float):
        self.dropout = nnx.Dropout(rate)

    def __call__(self, x: FeatureMap, *, rngs: nnx.Rngs | None) -> FeatureMap:
        return x.with_values(self.dropout(x.values, rngs=rngs))


def max_pool(x: FeatureMap, window: int, stride: int = 1) -> FeatureMap:
    """Largest value in a square window, as torch's max_pool2d(padding=window // 2).

    x: [B,H,W,C] → [B,ceil(H/stride),ceil(W/stride),C]. The maximum is separable, so a
    5×5 window is two passes of five shifted slices; XLA fuses them, which on CPU takes
    a third of the time of `reduce_window`, forward and backward. Equal largest values
    share the gradient, which torch gives to one of them.
    """
    values = x.filled(-jnp.inf)
    for axis in (1, 2):
        length = values.shape[axis]
        padding = [(0, 0)] * 4
        padding[axis] = (window // 2, window // 2)
        padded = jnp.pad(values, padding, constant_values=-jnp.inf)
        shifted = [
            lax.slice_in_dim(padded, start, start + length, stride, axis)
            for start in range(window)
        ]
        values = shifted[0]
        for other in shifted[1:]:
            values = jnp.maximum(values, other)
    pooled = FeatureMap(values, _strided(x.size, stride))
    # In the padding -inf may be left, and would become NaN in what follows.
    return pooled.with_values(pooled.filled(0))


def resize_like(x: FeatureMap, target: FeatureMap, method: ResizeMethod) -> FeatureMap:
    """`x` [B,h,w,C] at the height and width of `target` [B,H,W,any] → [B,H,W,C]."""
    height, width = target.values.shape[1:3]
    return resize(x, (height, width), target.size, method)


def resize(
    x: FeatureMap,
    shape: tuple[int, int],
    size: jax.Array | None,
    method: ResizeMethod,
) -> FeatureMap:
    """Resizes every picture to a size of its own, as two matrix products.

    Args:
        x: [B,h,w,C].
        shape: H and W of the result.
        size: int32 [B,2], true sizes of the resized pictures; may be traced. None
            where x.size is None: the result fills `shape`.
        method: "align_corners" puts the corner pixels' centres on each other, as
            torch's interpolate(mode="bilinear", align_corners=True); "bilinear" keeps
            half-pixel centres, as align_corners=False; "bicubic" is the Keys kernel
            with a = -0.5 on half-pixel centres, smoothed when it shrinks, as MATLAB's
            imresize away from the border.

    Returns:
        [B,H,W,C] of x's dtype.
    """
    values = x.filled(0)
    for axis, out_length in enumerate(shape):
        in_length = values.shape[1 + axis]
        if x.size is None or size is None:
            in_size, out_size = jnp.asarray(in_length), jnp.asarray(out_length)
        else:
            in_size, out_size = x.size[:, axis], size[:, axis]
        weights = _resize_weights(in_length, out_length, in_size, out_size, method)
        batch = "b" if weights.ndim == 3 else ""
        equation = (f"{batch}oi,biwc->bowc", f"{batch}oi,bhic->bhoc")[axis]
        values = jnp.einsum(
            equation,
            weights.astype(values.dtype),
            values,
            precision=lax.Precision.HIGHEST,
        )
    return FeatureMap(values, size)


def _strided(size: jax.Array | None, stride: int) -> jax.Array | None:
    return None if size is None else (size - 1) // stride + 1


def _resize_weights(
    in_length: int,
    out_length: int,
    in_size: jax.Array,
    out_size: jax.Array,
    method: ResizeMethod,
) -> jax.Array:
    """Share of each input pixel in each output pixel.

    in_size, out_size: int [] or [B] → float32 [out_length,in_length], with a leading B
    where the sizes have it.
    """
    in_size, out_size = (
        s[..., None, None].astype(jnp.float32) for s in (in_size, out_size)
    )
    rank = in_size.ndim
    outputs = jnp.arange(out_length, dtype=jnp.float32).reshape(
        (1,) * (rank - 2) + (-1, 1)
    )
    inputs = jnp.arange(in_length, dtype=jnp.float32).reshape((1,) * (rank - 1) + (-1,))
    if method == "align_corners":
        position = outputs * ((in_size - 1) / jnp.maximum(out_size - 1, 1))
        kernel, reach = _triangle, jnp.ones_like(in_size)
    elif method == "bilinear":
        position = (outputs + 0.5) * (in_size / out_size) - 0.5
        kernel, reach = _triangle, jnp.ones_like(in_size)
    else:
        position = (outputs + 0.5) * (in_size / out_size) - 0.5
        kernel, reach = _keys_cubic, jnp.maximum(in_size / out_size, 1)
    position = jnp.clip(position, 0, in_size - 1)
    weights = kernel((position - inputs) / reach) * (inputs < in_size)
    return weights / weights.sum(axis=-1, keepdims=True)


def _triangle(distance: jax.Array) -> jax.Array:
    return jnp.maximum(1 - jnp.abs(distance), 0)


def _keys_cubic(distance: jax.Array) -> jax.Array:
    """Keys 1981, a = -0.5."""
    x = jnp.abs(distance)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return jnp.where(x < 1, near, jnp.where(x < 2, far, 0))
