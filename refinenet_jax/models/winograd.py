"""3×3 convolutions with a quarter of the multiplications.

F(4×4, 3×3) of Lavin and Gray 2016, arXiv:1509.09308: the picture is cut into tiles of 6×6
that overlap by two, a tile is transformed, multiplied with a transformed kernel, and
transformed back into 4×4 pixels: 36 multiplications where 144 would be. The points are 0,
1, −1, 1/2 and −2, which round less than theirs.

For float32 on CPUs, where large 3×3 convolutions run at the machine's peak and only fewer
operations help.
"""

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


def transformed(kernel: np.ndarray) -> np.ndarray:
    """Float [3,3,in,out] → float32 [36,in,out], in double precision."""
    both = np.kron(_OF_KERNEL, _OF_KERNEL)
    tiles = both @ np.asarray(kernel, np.float64).reshape(9, -1)
    return tiles.reshape(36, *kernel.shape[2:]).astype(np.float32)


def conv3x3(x: jax.Array, tiles: jax.Array) -> jax.Array:
    """Convolution with zeros around the picture.

    x: float32 [B,H,W,in]; tiles: of `transformed` → float32 [B,H,W,out].
    """
    batch, height, width, channels = x.shape
    rows, columns = -(-height // _OUTPUT), -(-width // _OUTPUT)
    beyond = [count * _OUTPUT - n for count, n in ((rows, height), (columns, width))]
    x = jnp.pad(x, [(0, 0), *((1, 1 + n) for n in beyond), (0, 0)])
    tiles_by_row = _combined(_OF_PICTURE, [_every(x, i, rows, 1) for i in range(_TILE)])
    parts = _combined(
        _OF_PICTURE, [_every(tiles_by_row, i, columns, 3) for i in range(_TILE)], 1
    )
    products = lax.dot_general(
        parts.reshape(_TILE**2, -1, channels),
        tiles,
        (((2,), (1,)), ((0,), (0,))),
        precision=lax.Precision.HIGHEST,
    ).reshape(_TILE, _TILE, batch, rows, columns, -1)
    of_rows = _combined(_OF_RESULT, list(products), 3)  # [6,B,rows,4,columns,out]
    whole = _combined(_OF_RESULT, list(of_rows), 4)  # [B,rows,4,columns,4,out]
    whole = whole.reshape(batch, rows * _OUTPUT, columns * _OUTPUT, -1)
    return whole[:, :height, :width]


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
