"""Examples like those of data sets, made up."""

import cv2
import numpy as np


def record(seed: int, height: int, width: int, num_classes: int) -> dict[str, bytes]:
    """An example as it is stored: smooth with a little noise, as photographs are."""
    random = np.random.default_rng(seed)
    size = (width, height)
    coarse = random.integers(0, 256, (12, 16, 3), np.uint8)
    image = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    noisy = np.clip(image + random.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    regions = random.integers(0, num_classes, (5, 6), np.uint8)
    label = cv2.resize(regions, size, interpolation=cv2.INTER_NEAREST_EXACT)
    return {
        "image": cv2.imencode(".jpg", noisy)[1].tobytes(),
        "label": cv2.imencode(".png", label)[1].tobytes(),
        "name": str(seed).encode(),
    }
