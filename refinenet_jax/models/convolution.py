"""Convolutions of plain arrays: XLA's, and one for where that is slow or wrong."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Sharding

from refinenet_jax.models import winograd

Pair = tuple[int, int]
_BLOCK = 64  # channels
_ROWS = 1024  # and more, in a part of a product


def convolution(
    x: jax.Array, kernel: jax.Array, stride: int, zeros: tuple[Pair, Pair]
) -> jax.Array:
    """[B,H,W,in] and [k,k,in,out] → [B,H',W',out], all of one dtype.

    Example:
        y = convolution(jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 5)), 2, ((1, 1), (1, 1)))
        assert y.shape == (1, 4, 4, 5)

    Args:
        x: pictures.
        kernel: of an edge k.
        stride: of both axes.
        zeros: to put (above, below) and (left, right) of the pictures.
    """
    if (stride, *zeros) == (1, (1, 1), (1, 1)) and _is_quick_to_train(x, kernel):
        return _conv3x3(x, kernel)
    plain = partial(_laid_out, stride=stride, zeros=zeros)
    for suits, form in ((_has_few_outputs, _by_outputs), (_is_coarse, _by_patches)):
        if suits(x, kernel, stride):
            on_cpu = partial(form, stride=stride, zeros=zeros)
            return lax.platform_dependent(x, kernel, cpu=on_cpu, default=plain)
    return plain(x, kernel)


def _is_quick_to_train(x: jax.Array, kernel: jax.Array) -> bool:
    batch = x.shape[0]
    if not isinstance(batch, int) or x.dtype != jnp.float32:  # free in an export
        return False
    return winograd.suits_training(x, kernel)


@jax.custom_vjp
def _conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`convolution` of stride 1; where it is differentiated on a CPU, by `winograd`."""
    return _laid_out(x, kernel, zeros=((1, 1), (1, 1)))


def _conv3x3_and_kept(
    x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: winograd.conv3x3(x, winograd.traced_tiles(kernel)),
        default=_conv3x3,
    )
    return y, (x, kernel)


def _conv3x3_gradient(
    kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def of_jax(
        x: jax.Array, kernel: jax.Array, gradient: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        plain = partial(_laid_out, zeros=((1, 1), (1, 1)))
        found: tuple[jax.Array, jax.Array] = jax.vjp(plain, x, kernel)[1](gradient)
        return found

    def quick(
        x: jax.Array, kernel: jax.Array, gradient: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        turned = winograd.traced_tiles(_turned(kernel))
        of_x = winograd.conv3x3(gradient, turned)
        return of_x, winograd.kernel_gradient(x, gradient)

    return lax.platform_dependent(*kept, gradient, cpu=quick, default=of_jax)


_conv3x3.defvjp(_conv3x3_and_kept, _conv3x3_gradient)


@jax.custom_vjp
def product(pixels: jax.Array, kernel: jax.Array) -> jax.Array:
    """[N,in] @ [in,out]: a convolution with a kernel of one pixel.

    The gradient of the kernel has a long sum for each of few values, for which XLA's
    library on CPUs takes up to three times as long unless an operand is transposed and
    the sum is made in parts that its caches hold.
    """
    return jnp.dot(pixels, kernel)


def _product_and_kept(
    pixels: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return jnp.dot(pixels, kernel), (pixels, kernel)


def _product_gradient(
    kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    pixels, kernel = kept

    def plain(pixels: jax.Array, gradient: jax.Array) -> jax.Array:
        return jnp.einsum("ni,no->io", pixels, gradient)

    def transposing(pixels: jax.Array, gradient: jax.Array) -> jax.Array:
        if pixels.shape[1] <= gradient.shape[1]:
            return _product_over_rows(pixels, gradient)
        return _product_over_rows(gradient, pixels).T

    of_kernel = lax.platform_dependent(pixels, gradient, cpu=transposing, default=plain)
    return jnp.dot(gradient, kernel.T), of_kernel


product.defvjp(_product_and_kept, _product_gradient)


def _product_over_rows(first: jax.Array, second: jax.Array) -> jax.Array:
    """[N,a] and [N,b] → [a,b], the transposed first @ second."""
    rows = len(first)
    parts = next((n for n in range(rows // _ROWS, 1, -1) if rows % n == 0), 1)
    if parts == 1:
        return jnp.dot(lax.optimization_barrier(first.T), second)

    wide = jnp.promote_types(first.dtype, jnp.float32)  # bfloat16 is rounded once

    def add(total: jax.Array, part: Sequence[jax.Array]) -> tuple[jax.Array, None]:
        first, second = part
        across = lax.optimization_barrier(first.T)
        return total + jnp.dot(across, second, preferred_element_type=wide), None

    # A loop also keeps XLA from computing the operands again, in the order of the other
    # axis, to transpose them.
    none = jnp.zeros((first.shape[1], second.shape[1]), wide)
    divided = [x.reshape(parts, -1, x.shape[1]) for x in (first, second)]
    total, _ = lax.scan(add, none, divided)
    return total.astype(first.dtype)


def _has_few_outputs(x: jax.Array, kernel: jax.Array, stride: int) -> bool:
    """Such as a classifier's: XLA's convolution for CPUs fills its registers with them."""
    edge, _, in_channels, out_channels = kernel.shape
    return edge > 1 and stride == 1 and out_channels <= min(64, in_channels // 4)


def _by_outputs(
    x: jax.Array, kernel: jax.Array, stride: int, zeros: tuple[Pair, Pair]
) -> jax.Array:
    """One product for all places in the kernel, and the sum of its shifted parts."""
    edge, _, in_channels, out_channels = kernel.shape
    of_pixel = kernel.transpose(2, 0, 1, 3).reshape(in_channels, -1)
    products = jnp.dot(x.reshape(-1, in_channels), of_pixel)
    products = products.reshape(*x.shape[:3], edge, edge, out_channels)
    total = jnp.zeros((), x.dtype)
    for row in range(edge):
        for column in range(edge):
            # What lies `row` below a pixel's window is moved up to it.
            moved = [
                (before - place, after - (edge - 1 - place), 0)
                for place, (before, after) in zip((row, column), zeros, strict=True)
            ]
            part = products[:, :, :, row, column]
            none = (0, 0, 0)
            zero = jnp.zeros((), x.dtype)
            total = total + lax.pad(part, zero, [none, *moved, none])
    return total


def _is_coarse(x: jax.Array, kernel: jax.Array, stride: int) -> bool:
    """Fewer pixels than channels: most of the time goes into the kernel's layout."""
    batch, height, width, channels = x.shape
    if len(kernel) == 1 or not isinstance(batch, int):  # free in an export
        return False
    return batch * (height // stride) * (width // stride) <= channels


def _by_patches(
    x: jax.Array, kernel: jax.Array, stride: int, zeros: tuple[Pair, Pair]
) -> jax.Array:
    """What the kernel sees from each place, side by side, in one product with it."""
    edge, _, in_channels, out_channels = kernel.shape
    x = jnp.pad(x, [(0, 0), *zeros, (0, 0)])
    rows, columns = ((length - edge) // stride + 1 for length in x.shape[1:3])

    def seen(row: int, column: int) -> jax.Array:
        below, beside = (
            place + (count - 1) * stride + 1
            for place, count in ((row, rows), (column, columns))
        )
        return x[:, row:below:stride, column:beside:stride]

    places = [(row, column) for row in range(edge) for column in range(edge)]
    patches = jnp.concatenate([seen(*place) for place in places], 3)
    patches = lax.optimization_barrier(patches)
    products = jnp.dot(
        patches.reshape(-1, edge * edge * in_channels),
        kernel.reshape(-1, out_channels),
    )
    return products.reshape(-1, rows, columns, out_channels)


def grouped(
    convolve: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    kernel: jax.Array,
    groups: int,
) -> jax.Array:
    """A convolution of groups of channels, each with a kernel of its own.

    Several groups make one convolution of `_BLOCK` channels, whose kernel is zero between
    them. On CPU that takes no more time than XLA's grouped convolution, and for the
    gradient of the kernel a hundredth (benchmarks/layers.py); on chips that multiply
    matrices, groups of 4 channels would leave them idle.

    Example:
        x, kernel = jnp.ones((1, 8, 8, 64)), jnp.ones((3, 3, 4, 64))
        convolve = partial(convolution, stride=1, zeros=((1, 1), (1, 1)))
        assert grouped(convolve, x, kernel, groups=16).shape == (1, 8, 8, 64)

    Args:
        convolve: such as `convolution`, of x and a kernel alone.
        x: [B,H,W,in].
        kernel: [k,k,in/groups,out].
        groups: how many.
    """
    if groups == 1:
        return convolve(x, kernel)
    edge, _, before, out = kernel.shape
    after = out // groups
    together = next(
        n
        for n in range(min(groups, max(1, _BLOCK // before)), 0, -1)
        if groups % n == 0
    )
    blocks = groups // together
    # One group's outputs see the channels of that group alone.
    own = jnp.eye(together, dtype=kernel.dtype)[:, None, :, None]
    parts = kernel.reshape(edge, edge, before, blocks, together, after)
    kernels = parts.transpose(3, 0, 1, 2, 4, 5)[:, :, :, None] * own[None, None, None]
    kernels = kernels.reshape(blocks, edge, edge, together * before, together * after)
    found = [
        convolve(part, dense)
        for part, dense in zip(jnp.split(x, blocks, axis=-1), kernels, strict=True)
    ]
    return jnp.concatenate(found, axis=-1)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def convolution_with_care(
    x: jax.Array,
    kernel: jax.Array,
    stride: int,
    zeros: tuple[Pair, Pair],
    kernel_sharding: Sharding | None = None,
) -> jax.Array:
    """As `convolution`, where XLA needs help: in a loop, and where rows are divided.

    XLA's CPU compiler knows a quick convolution for arrays that are laid out as these,
    and lays others out anew; but not within a loop, where it falls back on one that
    takes tens of times as long. The gradients of `convolution` are such, so on a CPU
    these lay their operands out first. The values are the same, bit for bit.

    Where the rows of x are divided over devices, XLA may decide to divide the rows of
    the kernel as well, and then computes wrong values in small feature maps
    (jax 0.10.2, devices in a grid): kernels are held to the sharding they are given.

    Example:
        x, kernel, zeros = jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 5)), ((1, 1), (1, 1))
        gradient = jax.grad(lambda x: convolution_with_care(x, kernel, 1, zeros).sum())
        assert gradient(x).shape == x.shape

    Args:
        x: see `convolution`, as all that follows.
        kernel: likewise.
        stride: likewise.
        zeros: likewise.
        kernel_sharding: whole on each device; None: rows are not divided.
    """
    return convolution(x, _held(kernel, kernel_sharding), stride, zeros)


def _forward(
    x: jax.Array,
    kernel: jax.Array,
    stride: int,
    zeros: tuple[Pair, Pair],
    kernel_sharding: Sharding | None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = convolution_with_care(x, kernel, stride, zeros, kernel_sharding)
    return y, (x, kernel)


def _backward(
    stride: int,
    zeros: tuple[Pair, Pair],
    kernel_sharding: Sharding | None,
    kept: tuple[jax.Array, jax.Array],
    gradient: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    turned = _held(_turned(kernel), kernel_sharding)

    def of_jax(gradient: jax.Array) -> jax.Array:
        plain = partial(convolution, x, stride=stride, zeros=zeros)
        [of_kernel] = jax.vjp(plain, kernel)[1](gradient)
        return cast(jax.Array, of_kernel)

    def laid_out(gradient: jax.Array) -> jax.Array:
        return _gradient_of_kernel(x, kernel, gradient, stride, zeros)

    of_kernel = lax.platform_dependent(gradient, cpu=laid_out, default=of_jax)
    return (
        _gradient_of_x(x, turned, gradient, stride, zeros),
        _held(of_kernel, kernel_sharding),
    )


convolution_with_care.defvjp(_forward, _backward)


def _turned(kernel: jax.Array) -> jax.Array:
    """By half a turn, inputs and outputs exchanged: it leads gradients back."""
    return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)


def _held(kernel: jax.Array, sharding: Sharding | None) -> jax.Array:
    if sharding is None:
        return kernel
    return cast(jax.Array, lax.with_sharding_constraint(kernel, sharding))


def _gradient_of_x(
    x: jax.Array,
    turned: jax.Array,
    gradient: jax.Array,
    stride: int,
    zeros: tuple[Pair, Pair],
) -> jax.Array:
    """The gradient, its values `stride` apart, convolved with the kernel turned round."""
    edge = len(turned)
    around = [
        (edge - 1 - before, length + before - _spread(gradient.shape[axis], stride))
        for axis, (length, (before, _)) in enumerate(
            zip(x.shape[1:3], zeros, strict=True), start=1
        )
    ]
    return _laid_out(gradient, turned, zeros=around, apart=stride)


def _gradient_of_kernel(
    x: jax.Array,
    kernel: jax.Array,
    gradient: jax.Array,
    stride: int,
    zeros: tuple[Pair, Pair],
) -> jax.Array:
    """The input convolved with the gradient, pictures and channels exchanged."""
    edge = len(kernel)
    around = [
        (before, edge - 1 + _spread(gradient.shape[axis], stride) - length - before)
        for axis, (length, (before, _)) in enumerate(
            zip(x.shape[1:3], zeros, strict=True), start=1
        )
    ]
    found = _laid_out(
        x.transpose(3, 1, 2, 0),
        gradient.transpose(1, 2, 0, 3),
        zeros=around,
        kernel_apart=stride,
    )
    return found.transpose(1, 2, 0, 3)


def _spread(length: int, stride: int) -> int:
    """So many values `stride` apart."""
    return (length - 1) * stride + 1


def _laid_out(
    x: jax.Array,
    kernel: jax.Array,
    *,
    zeros: Sequence[Pair],
    stride: int = 1,
    apart: int = 1,
    kernel_apart: int = 1,
) -> jax.Array:
    """XLA's convolution of [B,H,W,in] and [h,w,in,out]."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=zeros,
        lhs_dilation=(apart, apart),
        rhs_dilation=(kernel_apart, kernel_apart),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
