"""Layers that know which part of a padded picture is real.

Pictures of many sizes share one compiled program: each is padded to a common shape and
brings its true size along. A layer that looks beyond its own pixel then sees what it
would see at the border of the picture alone: zeros in a convolution, -inf in a
max-pool, nothing in a resize. In training every pixel is real and no size is given.

Feature maps are laid out [B,H,W,C]; strides, paddings and rounding follow PyTorch.
"""

import dataclasses
from functools import partial
from typing import Literal, Self, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Sharding
from jax.typing import DTypeLike

from refinenet_jax.models import kernels, winograd
from refinenet_jax.models.convolution import (
    Pair,
    convolution,
    convolution_with_care,
    grouped,
    product,
)

Initializer = jax.nn.initializers.Initializer
Padding = Literal["symmetric", "same", "after"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FeatureMap:
    """Features of a batch of pictures.

    Example:
        padded = FeatureMap(jnp.ones((2, 8, 8, 3)), size=jnp.array([[8, 5], [6, 8]]))
        assert padded.filled(0).sum() == 3 * (8 * 5 + 6 * 8)

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


class _PlainKeys:
    """Keys for parameters, one after the other; stands in for nnx.Rngs."""

    def __init__(self, key: jax.Array):
        self._key = key
        self._count = 0

    def params(self) -> jax.Array:
        self._count += 1
        return jax.random.fold_in(self._key, self._count)


def plain_keys(rngs: nnx.Rngs) -> nnx.Rngs:
    """Something to take the keys of parameters from, drawn from `rngs`.

    The bookkeeping of nnx.Rngs, a variable for each stream and a fold for each
    parameter, takes nine tenths of the time in which a network is traced.
    """
    return cast(nnx.Rngs, _PlainKeys(rngs.params()))


class Conv(nnx.Module):
    """Convolution with a square kernel and zeros around the picture.

    x: FeatureMap [B,H,W,in] → [B,ceil(H/stride),ceil(W/stride),out]. Parameters are
    float32, kernel [k,k,in,out]; the arithmetic is done in `dtype`.

    padding: "symmetric" has kernel_size // 2 zeros on every side, as torch's
    Conv2d(in, out, kernel_size, stride, padding=kernel_size // 2), for odd kernels. "same"
    is TensorFlow's: at stride 2 an even length has one zero less before it. "after" is for
    patches, whose stride is the kernel's size: zeros complete the last of them.

    groups: as torch's; the kernel is [k,k,in/groups,out], k above 1.

    Attributes:
        tiles: the kernel, transformed for `winograd` by `folding`; None where it does
            not suit.
        in_loop: it is traced into the body of a loop, see `convolution_with_care`.
        kernel_sharding: of its kernel, whole on each device, where the rows of a
            picture are divided over devices; None: they are not.
    """

    in_loop: bool = False
    kernel_sharding: Sharding | None = None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        use_bias: bool = False,
        padding: Padding = "symmetric",
        groups: int = 1,
        kernel_init: Initializer,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        shape = (kernel_size, kernel_size, in_channels // groups, out_channels)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_channels)) if use_bias else None
        self.tiles: nnx.Param | None = None
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.groups = groups
        self.dtype = dtype

    def set_view(
        self, in_loop: bool | None = None, kernel_sharding: Sharding | None = None
    ) -> None:
        """Called by nnx.view."""
        if in_loop is not None:
            self.in_loop = in_loop
        if kernel_sharding is not None:
            self.kernel_sharding = kernel_sharding

    def __call__(self, x: FeatureMap) -> FeatureMap:
        kernel = self.kernel[...].astype(self.dtype)
        if self.kernel_size == 1:
            # A matrix product: one to two and a half times as fast as the same
            # convolution on CPU (benchmarks/layers.py). Flattened, since a product that
            # contracts three axes makes the gradient of the kernel six times as slow.
            pixels = x.values[:, :: self.stride, :: self.stride].astype(self.dtype)
            if self.stride > 1:
                # XLA's compiler for GPUs aborts where it follows a product through this
                # slice into what made x (jax 0.10.2).
                pixels = jax.lax.optimization_barrier(pixels)
            if self.kernel_sharding is None:
                products = product(pixels.reshape(-1, pixels.shape[-1]), kernel[0, 0])
                values = products.reshape(*pixels.shape[:-1], -1)
            else:  # flattened, rows would be brought together
                values = jnp.dot(pixels, kernel[0, 0])
        elif (
            self.tiles is not None
            and self.kernel_sharding is None
            and winograd.pays(*x.values.shape[1:3])
        ):
            values = winograd.conv3x3(x.filled(0), self.tiles[...])
        else:
            pixels, zeros = _bordered(x, self.kernel_size, self.stride, self.padding)
            if self.in_loop or self.kernel_sharding is not None:
                convolve = partial(
                    convolution_with_care,
                    stride=self.stride,
                    zeros=zeros,
                    kernel_sharding=self.kernel_sharding,
                )
            else:
                convolve = partial(convolution, stride=self.stride, zeros=zeros)
            values = grouped(convolve, pixels.astype(self.dtype), kernel, self.groups)
        if self.bias is not None:
            values += self.bias[...].astype(self.dtype)[None, None, None]
        return FeatureMap(values, _strided(x.size, self.stride))


class DepthwiseConv(nnx.Module):
    """Each channel convolved with an odd square kernel of its own.

    x: FeatureMap [B,H,W,C] → [B,ceil(H/stride),ceil(W/stride),C], as torch's
    Conv2d(C, C, kernel_size, stride, groups=C, bias=use_bias); kernel float32 [k,k,1,C].

    On CPU XLA's grouped convolution takes more than twenty times as long, with its
    gradient more than ten times (benchmarks/layers.py).
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        use_bias: bool = False,
        padding: Padding = "symmetric",
        kernel_init: Initializer,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        shape = (kernel_size, kernel_size, 1, channels)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels)) if use_bias else None
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.dtype = dtype

    def __call__(self, x: FeatureMap) -> FeatureMap:
        pixels, zeros = _bordered(x, self.kernel_size, self.stride, self.padding)
        pixels = jnp.pad(pixels.astype(self.dtype), [(0, 0), *zeros, (0, 0)])
        kernel = self.kernel[...].astype(self.dtype)
        values = kernels.depthwise_conv(pixels, kernel, self.stride)
        if self.bias is not None:
            values += self.bias[...].astype(self.dtype)[None, None, None]
        return FeatureMap(values, _strided(x.size, self.stride))


class BatchNorm(nnx.BatchNorm):
    """Batch normalisation, as torch's BatchNorm2d(channels, eps=epsilon).

    Flax counts momentum the other way round, 0.9 for torch's 0.1, and keeps the
    variance of the batch as it is where torch keeps n / (n - 1) times it. The
    arithmetic is float32 whatever the features are, so that bfloat16 does not round
    the statistics. Under `jax.jit` with a sharded batch the statistics are those of
    the whole global batch.
    """

    def __init__(
        self,
        channels: int,
        *,
        epsilon: float = 1e-5,
        scale_init: Initializer = nnx.initializers.ones,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            channels,
            momentum=0.9,
            epsilon=epsilon,
            scale_init=scale_init,
            dtype=jnp.float32,
            rngs=rngs,
        )

    def __call__(self, x: FeatureMap) -> FeatureMap:  # type: ignore[override]
        if self.use_running_average:
            return x.with_values(super().__call__(x.values).astype(x.values.dtype))
        assert self.scale is not None
        assert self.bias is not None
        values, *found = kernels.batch_norm(
            x.values, self.scale[...], self.bias[...], self.epsilon
        )
        for kept, of_batch in zip((self.mean, self.var), found, strict=True):
            kept[...] = self.momentum * kept[...] + (1 - self.momentum) * of_batch
        return x.with_values(values)


class ConvNorm(nnx.Module):
    """Convolution without bias, then batch normalisation: a layer of every backbone.

    norm: None where it has become part of the convolution, see `folding`.
    """

    def __init__(self, conv: Conv | DepthwiseConv, norm: BatchNorm):
        self.conv = conv
        self.norm: BatchNorm | None = norm

    def __call__(self, x: FeatureMap) -> FeatureMap:
        x = self.conv(x)
        return x if self.norm is None else self.norm(x)


class Dropout(nnx.Module):
    """Zeroes each value with probability `rate` and scales the others to keep the mean.

    rngs: has the stream "dropout" where the layer is to have a stream of its own;
    without one, the call must bring it.
    """

    def __init__(self, rate: float, *, rngs: nnx.Rngs):
        own = rate > 0 and ("dropout" in rngs or "default" in rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs if own else None)

    def __call__(self, x: FeatureMap, *, rngs: nnx.Rngs | None = None) -> FeatureMap:
        return x.with_values(self.dropout(x.values, rngs=rngs))


def max_pool(x: FeatureMap, window: int, stride: int = 1) -> FeatureMap:
    """Largest value in a square window, as torch's max_pool2d(padding=window // 2).

    x: [B,H,W,C] → [B,ceil(H/stride),ceil(W/stride),C]; see `kernels.max_pool`.
    """
    values = kernels.max_pool(x.filled(-jnp.inf), window, stride)
    pooled = FeatureMap(values, _strided(x.size, stride))
    # In the padding -inf may be left, and would become NaN in what follows.
    return pooled.with_values(pooled.filled(0))


def _strided(size: jax.Array | None, stride: int) -> jax.Array | None:
    if size is None or stride == 1:
        return size
    return (size - 1) // stride + 1


def _bordered(
    x: FeatureMap, kernel_size: int, stride: int, padding: Padding
) -> tuple[jax.Array, tuple[Pair, Pair]]:
    """Values with zeros where the picture is padding, and the zeros to put around them.

    [B,H,W,C] → [B,H',W',C] and ((above, below), (left, right)), for windows that start
    at the first zero.
    """
    values = x.filled(0)
    if padding == "after":
        height, width = ((0, -length % stride) for length in values.shape[1:3])
        return values, (height, width)
    reach = kernel_size // 2
    if padding == "symmetric" or stride == 1:
        return values, ((reach, reach),) * 2
    if x.size is None:
        above, left = (reach - (length % 2 == 0) for length in values.shape[1:3])
        return values, ((above, reach), (left, reach))
    # One zero less before each picture; those of odd length are moved by one pixel.
    values = jnp.pad(values, [(0, 0), (0, 1), (0, 1), (0, 0)])
    for axis in (1, 2):
        odd = (x.size[:, axis - 1] % 2 == 1)[:, None, None, None]
        values = jnp.where(odd, jnp.roll(values, 1, axis), values)
    return values, ((reach - 1, reach),) * 2
