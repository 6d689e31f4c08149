"""A network of one's own that compiles in a blink: no BatchNorm, no dropout."""

import dataclasses
from typing import Any

from flax import nnx
from jax.typing import DTypeLike

from refinenet_jax.models import LIGHT_WEIGHT, Backbone, FeatureMap
from refinenet_jax.models.activations import relu
from refinenet_jax.models.layers import Conv

WIDTHS = (8, 8, 12, 16, 16)


class TinyBackbone(nnx.Module):
    """Five convolutions of stride 2; the last four are taps."""

    tap_strides = (4, 8, 16, 32)
    tap_channels = WIDTHS[1:]

    def __init__(self, channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        options: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.convs = nnx.List(
            Conv(
                before,
                after,
                3,
                stride=2,
                use_bias=True,
                kernel_init=nnx.initializers.he_normal(),
                **options,
            )
            for before, after in zip((channels, *WIDTHS), WIDTHS, strict=False)
        )

    def __call__(self, x: FeatureMap) -> list[FeatureMap]:
        x, *convs = relu(self.convs[0](x)), *self.convs[1:]
        return [x := relu(conv(x)) for conv in convs]


TINY = Backbone(
    TinyBackbone,
    dataclasses.replace(LIGHT_WEIGHT, width=16, coarsest_width=16, tap_dropout=0.0),
    mean=(127.5,) * 3,
    std=(127.5,) * 3,
)
