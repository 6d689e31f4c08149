"""Image and label in another size; shared by the transforms that resize."""

import cv2

from refinenet_jax.data.transforms.example import Example


def resize(example: Example, *, height: float, width: float) -> Example:
    """Resizes image and label to the same size with the same pixel centres.

    Target pixel i lies at (i + 0.5) * source / target - 0.5 in all three modes.
    OpenCV's plain INTER_NEAREST does not follow this: it drops the halves, which
    shifts labels by up to half a pixel.

    Args:
      example: what to resize; comes back itself where its size does not change.
      height: rows wanted; rounded, and at least 1.
      width: columns wanted; rounded, and at least 1.
    """
    image, label = example["image"], example["label"]
    target = (_whole(height), _whole(width))
    if label.shape == target:
        return example
    shrinking = target[0] < label.shape[0]
    size = target[::-1]
    return {
        **example,
        "image": cv2.resize(
            image, size, interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
        ),
        "label": cv2.resize(label, size, interpolation=cv2.INTER_NEAREST_EXACT),
    }


def _whole(length: float) -> int:
    return max(1, round(length))
