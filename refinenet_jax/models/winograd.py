"""3×3 convolutions with a quarter of the multiplications.

F(4×4, 3×3) of Lavin and Gray 2016, arXiv:1509.09308: the picture is cut into tiles of 6×6
that overlap by two, a tile is transformed, multiplied with a transformed kernel, and
transformed back into 4×4 pixels: 36 multiplications where 144 would be. The points are 0,
1, −1, 1/2 and −2, which round less than theirs.

For float32 on CPUs, where large 3×3 convolutions run near the machine's peak and only fewer
operations help; for gradients as well, since the transforms are linear.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_OUTPUT = 4  # edge of what a tile gives
_TILE = 6

_OF_PICTURE = np.array(
    [
        [1, -1.5, -2, 1.5, 1, 0],
        [0, -1, 0.5, 2.5, 1, 0],
        [0, 1, -2.5, 0.5, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 0.5, -1, -0.5, 1, 0],
        [0, 1, -1.5, -2, 1.5, 1],
    ]
)
_OF_KERNEL = (
    np.array(
        [
            [15, 0, 0],
            [5, 5, 5],
            [-5, 5, -5],
            [-16, -8, -4],
            [1, -2, 4],
            [0, 0, 15],
        ]
    )
    / 15
)
_OF_RESULT = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 0.5, -2, 0],
        [0, 1, 1, 0.25, 4, 0],
        [0, 1, -1, 0.125, -8, 1],
    ]
)

# Narrower ones are limited by their transforms, and the coarse maps that wider ones are
# used on by reading their kernels, four times the size of what they are made of.
_CHANNELS = range(128, 257)
_LEAST_PIXELS = 32 * 32
_TRAINED_CHANNELS = range(64, 513)
_LEAST_TRAINED_PIXELS = 2 * 16 * 16  # of the batch


def suits(kernel_size: int, stride: int, in_channels: int, out_channels: int) -> bool:
    """Whether such a convolution gains where its pictures are large."""
    return (
        (kernel_size, stride) == (3, 1)
        and in_channels in _CHANNELS
        and out_channels in _CHANNELS
    )


def pays(height: int, width: int) -> bool:
    """Whether pictures are large enough."""
    return height * width >= _LEAST_PIXELS


def suits_training(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether a step of training gains, where kernels are transformed each time.

    More than in inference: XLA's own gradient of the kernel takes up to five times as
    long as the convolution.
    """
    return (
        kernel.shape[:2] == (3, 3)
        and all(channels in _TRAINED_CHANNELS for channels in kernel.shape[2:])
        and math.prod(x.shape[:3]) >= _LEAST_TRAINED_PIXELS
    )


def transformed(kernel: np.ndarray) -> np.ndarray:
    """Float [3,3,in,out] → float32 [36,in,out], in double precision."""
    both = np.kron(_OF_KERNEL, _OF_KERNEL)
    tiles = both @ np.asarray(kernel, np.float64).reshape(9, -1)
    return tiles.reshape(36, *kernel.shape[2:]).astype(np.float32)


def traced_tiles(kernel: jax.Array) -> jax.Array:
    """As `transformed`, within a program: float32 [3,3,in,out] → [36,in,out]."""
    both = jnp.asarray(np.kron(_OF_KERNEL, _OF_KERNEL), jnp.float32)
    tiles = jnp.dot(both, kernel.reshape(9, -1), precision=lax.Precision.HIGHEST)
    return tiles.reshape(36, *kernel.shape[2:])


def conv3x3(x: jax.Array, tiles: jax.Array) -> jax.Array:
    """Convolution with zeros around the picture.

    x: float32 [B,H,W,in]; tiles: of `transformed` → float32 [B,H,W,out].
    """
    batch, height, width, channels = x.shape
    rows, columns = -(-height // _OUTPUT), -(-width // _OUTPUT)
    products = lax.dot_general(
        _picture_tiles(x).reshape(_TILE**2, -1, channels),
        tiles,
        (((2,), (1,)), ((0,), (0,))),
        precision=lax.Precision.HIGHEST,
    ).reshape(_TILE, _TILE, batch, rows, columns, -1)
    of_rows = _combined(_OF_RESULT, list(products), 3)  # [6,B,rows,4,columns,out]
    whole = _combined(_OF_RESULT, list(of_rows), 4)  # [B,rows,4,columns,4,out]
    whole = whole.reshape(batch, rows * _OUTPUT, columns * _OUTPUT, -1)
    return whole[:, :height, :width]


def kernel_gradient(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """Of a loss by the kernel of `conv3x3`, of its gradient by what that gave.

    x: float32 [B,H,W,in]; gradient: float32 [B,H,W,out] → float32 [3,3,in,out].
    """
    batch, height, width, channels = gradient.shape
    rows, columns = -(-height // _OUTPUT), -(-width // _OUTPUT)
    beyond = [(0, rows * _OUTPUT - height), (0, columns * _OUTPUT - width)]
    tiles = jnp.pad(gradient, [(0, 0), *beyond, (0, 0)])
    tiles = tiles.reshape(batch, rows, _OUTPUT, columns, _OUTPUT, channels)
    by_row = _combined(_OF_RESULT.T, [tiles[:, :, i] for i in range(_OUTPUT)])
    parts = _combined(_OF_RESULT.T, [by_row[..., i, :] for i in range(_OUTPUT)], 1)
    products = lax.dot_general(
        _picture_tiles(x).reshape(_TILE**2, -1, x.shape[-1]),
        parts.reshape(_TILE**2, -1, channels),
        (((1,), (1,)), ((0,), (0,))),
        precision=lax.Precision.HIGHEST,
    )
    both = jnp.asarray(np.kron(_OF_KERNEL, _OF_KERNEL).T, jnp.float32)
    found = jnp.dot(
        both, products.reshape(_TILE**2, -1), precision=lax.Precision.HIGHEST
    )
    return found.reshape(3, 3, x.shape[-1], channels)


def _picture_tiles(x: jax.Array) -> jax.Array:
    """[B,H,W,C] → its transformed tiles [6,6,B,ceil(H/4),ceil(W/4),C]."""
    height, width = x.shape[1:3]
    rows, columns = -(-height // _OUTPUT), -(-width // _OUTPUT)
    beyond = [count * _OUTPUT - n for count, n in ((rows, height), (columns, width))]
    x = jnp.pad(x, [(0, 0), *((1, 1 + n) for n in beyond), (0, 0)])
    by_row = _combined(_OF_PICTURE, [_every(x, i, rows, 1) for i in range(_TILE)])
    return _combined(
        _OF_PICTURE, [_every(by_row, i, columns, 3) for i in range(_TILE)], 1
    )


def _every(x: jax.Array, first: int, count: int, axis: int) -> jax.Array:
    """`count` slices along the axis, from the first on and four apart."""
    end = first + (count - 1) * _OUTPUT + 1
    return lax.slice_in_dim(x, first, end, _OUTPUT, axis)


def _combined(matrix: np.ndarray, parts: list[jax.Array], axis: int = 0) -> jax.Array:
    """Matrix @ parts, without what is multiplied by 0, stacked along a new axis."""
    sums = []
    for weights in matrix:
        total = jnp.zeros((), parts[0].dtype)
        for weight, part in zip(weights.tolist(), parts, strict=True):
            if weight:
                total = total + (part if weight == 1 else part * weight)
        sums.append(total)
    return jnp.stack(sums, axis)
