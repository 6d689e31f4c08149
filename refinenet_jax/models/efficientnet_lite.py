"""EfficientNet-Lite0: EfficientNet-B0 (Tan and Le 2019) for small devices.

Without squeeze-and-excitation and with ReLU6, after tensorflow/tpu
models/official/efficientnet/lite. Borders and epsilon are TensorFlow's; the momentum
is not: with its 0.99 the statistics of a new network are useless for hundreds of steps.
"""

from flax import nnx
from jax.typing import DTypeLike

from refinenet_jax.models.mobilenet_v2 import (
    InvertedResidualNetwork,
    LayerForm,
    Stage,
)


def efficientnet_lite0(*, dtype: DTypeLike, rngs: nnx.Rngs) -> InvertedResidualNetwork:
    """Taps of 24, 40, 80, 112, 192 and 320 channels, the last at 1/32."""
    stages = (
        Stage(channels=16, repeats=1, stride=1, expansion=None, kernel_size=3),
        Stage(channels=24, repeats=2, stride=2, expansion=6, kernel_size=3),
        Stage(channels=40, repeats=2, stride=2, expansion=6, kernel_size=5),
        Stage(channels=80, repeats=3, stride=2, expansion=6, kernel_size=3),
        Stage(channels=112, repeats=3, stride=1, expansion=6, kernel_size=5),
        Stage(channels=192, repeats=4, stride=2, expansion=6, kernel_size=5),
        Stage(channels=320, repeats=1, stride=1, expansion=6, kernel_size=3),
    )
    form = LayerForm(padding="same", epsilon=1e-3, dtype=dtype)
    return InvertedResidualNetwork(stages, form=form, rngs=rngs)
