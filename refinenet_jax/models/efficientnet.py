"""EfficientNets (Tan and Le 2019) without their classifiers.

EfficientNet-Lite is the form for small devices: without gates and with ReLU6, after
tensorflow/tpu models/official/efficientnet/lite. Its borders and epsilon are
TensorFlow's; the momentum is not: with its 0.99 the statistics of a new network are
useless for hundreds of steps. B0 is as torchvision and timm have it.
"""

from flax import nnx
from jax.typing import DTypeLike

from refinenet_jax.models.activations import sigmoid, silu
from refinenet_jax.models.inverted_residuals import (
    GateForm,
    InvertedResidualNetwork,
    LayerForm,
    Stage,
)

_WIDTHS = (16, 24, 40, 80, 112, 192, 320)
_REPEATS = (1, 2, 2, 3, 3, 4, 1)
_STRIDES = (1, 2, 2, 2, 1, 2, 1)
_KERNELS = (3, 3, 5, 3, 5, 5, 3)
# Lite: channels and blocks of the stages. Lite1 is 1.1 times as deep, Lite2 1.2 times and
# 1.1 times as wide, but for stem, first and last stage.
_LITE = {
    0: (_WIDTHS, _REPEATS),
    1: (_WIDTHS, (1, 3, 3, 4, 4, 5, 1)),
    2: ((16, 24, 48, 88, 120, 208, 352), (1, 3, 3, 4, 4, 5, 1)),
}


def _squeezed(in_channels: int, _: int) -> int:
    return in_channels // 4


_GATE = GateForm(_squeezed, silu, sigmoid)


def efficientnet_lite(
    number: int, in_channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs
) -> InvertedResidualNetwork:
    """EfficientNet-Lite0, 1 or 2; six taps, the last at 1/32."""
    form = LayerForm(padding="same", epsilon=1e-3, dtype=dtype)
    stages = _stages(*_LITE[number], squeezes=False)
    return InvertedResidualNetwork(in_channels, stages, form=form, rngs=rngs)


def efficientnet_b0(
    in_channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs
) -> InvertedResidualNetwork:
    """Taps of 24, 40, 80, 112, 192 and 320 channels, the last at 1/32."""
    form = LayerForm(
        padding="symmetric",
        epsilon=1e-5,
        dtype=dtype,
        activation=silu,
        gate=_GATE,
    )
    stages = _stages(_WIDTHS, _REPEATS, squeezes=True)
    return InvertedResidualNetwork(in_channels, stages, form=form, rngs=rngs)


def _stages(
    widths: tuple[int, ...], repeats: tuple[int, ...], *, squeezes: bool
) -> list[Stage]:
    return [
        Stage(
            channels,
            count,
            stride,
            expansion=6 if number > 0 else None,
            kernel_size=kernel_size,
            squeezes=squeezes,
        )
        for number, (channels, count, stride, kernel_size) in enumerate(
            zip(widths, repeats, _STRIDES, _KERNELS, strict=True)
        )
    ]
