"""Weights and a picture that NumPy alone makes, the same on every machine."""

import zlib
from collections.abc import Mapping

import numpy as np

NUM_CLASSES = 5
SIZE = (97, 131)
# The networks whose weights the PyTorch ports name.
VARIANTS = (
    "resnet50",
    "resnet101",
    "light_resnet18",
    "light_resnet50",
    "light_resnet101",
    "light_mobilenet_v2",
    "light_efficientnet_lite0",
)


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Random values for each key of a PyTorch network, whatever their order.

    Step counters are left out.
    """
    return {
        key: _values(key, shape)
        for key, shape in shapes.items()
        if not key.endswith("num_batches_tracked")
    }


def _values(key: str, shape: tuple[int, ...]) -> np.ndarray:
    # Its numbers are the same in every release of NumPy.
    random = np.random.RandomState(zlib.crc32(key.encode()))
    if len(shape) == 4:
        fan_in = np.prod(shape[1:])
        # What a ReLU6 halves twice in a block, its depthwise convolution gives back.
        gain = 2.5 if shape[1] == 1 else 1.0
        # The deviation is sqrt(gain / fan_in).
        limit = np.sqrt(3 * gain / fan_in)
        return random.uniform(-limit, limit, shape).astype(np.float32)
    # Scales and variances lie about one, biases and means about zero.
    middle = 1.0 if key.endswith(("weight", "running_var")) else 0.0
    return random.uniform(middle - 0.2, middle + 0.2, shape).astype(np.float32)


def picture() -> np.ndarray:
    """Waves, float32 [1,97,131,3]."""
    random = np.random.RandomState(0)
    rows, columns = (np.arange(length) for length in SIZE)
    waves = np.zeros((*SIZE, 3))
    for _ in range(8):
        frequency, phase = random.uniform(-0.3, 0.3, (2, 3)), random.uniform(0, 6, 3)
        angle = (
            rows[:, None, None] * frequency[0]
            + columns[None, :, None] * frequency[1]
            + phase
        )
        waves += 0.5 * np.sin(angle)
    return waves[None].astype(np.float32)
