"""MobileNets without their classifiers.

MobileNet-v2 (Sandler et al. 2018) has the form of Light-Weight RefineNet (Nekrasov et al.
2018): the first block expands its 32 channels to 32 where torchvision's does not expand at
all. MobileNet-v3 (Howard et al. 2019) ends before the convolution to 960 channels.
"""

from flax import nnx
from jax.typing import DTypeLike

from refinenet_jax.models.activations import hard_sigmoid, hard_swish, relu
from refinenet_jax.models.inverted_residuals import (
    GateForm,
    InvertedResidualNetwork,
    LayerForm,
    Stage,
)

_V2 = (
    Stage(channels=16, repeats=1, stride=1, expansion=1),
    Stage(channels=24, repeats=2, stride=2, expansion=6),
    Stage(channels=32, repeats=3, stride=2, expansion=6),
    Stage(channels=64, repeats=4, stride=2, expansion=6),
    Stage(channels=96, repeats=3, stride=1, expansion=6),
    Stage(channels=160, repeats=3, stride=2, expansion=6),
    Stage(channels=320, repeats=1, stride=1, expansion=6),
)
# Table 1 of Howard et al., in stages of one width.
_V3_LARGE = (
    Stage(16, 1, 1, None, activation=relu),
    Stage(24, 2, 2, (64, 72), activation=relu),
    Stage(40, 3, 2, (72, 120, 120), 5, squeezes=True, activation=relu),
    Stage(80, 4, 2, (240, 200, 184, 184)),
    Stage(112, 2, 1, (480, 672), squeezes=True),
    Stage(160, 3, 2, (672, 960, 960), 5, squeezes=True),
)


def _squeezed(_: int, width: int) -> int:
    """A quarter: the nearest multiple of eight that is not less than nine tenths of it."""
    nearest = max(8, (width // 4 + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * (width // 4) else nearest + 8


_V3_GATE = GateForm(_squeezed, relu, hard_sigmoid)


def mobilenet_v2(
    in_channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs
) -> InvertedResidualNetwork:
    """MobileNet-v2; taps of 24, 32, 64, 96, 160 and 320 channels, the last at 1/32."""
    form = LayerForm(padding="symmetric", epsilon=1e-5, dtype=dtype)
    return InvertedResidualNetwork(in_channels, _V2, form=form, rngs=rngs)


def mobilenet_v3_large(
    in_channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs
) -> InvertedResidualNetwork:
    """Taps of 24, 40, 80, 112 and 160 channels, the last at 1/32."""
    form = LayerForm(
        padding="symmetric",
        epsilon=1e-3,
        dtype=dtype,
        activation=hard_swish,
        gate=_V3_GATE,
    )
    return InvertedResidualNetwork(
        in_channels, _V3_LARGE, stem_channels=16, form=form, rngs=rngs
    )
