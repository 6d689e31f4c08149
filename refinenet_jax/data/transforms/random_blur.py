"""Pictures out of focus."""

import dataclasses

import cv2
import numpy as np

from refinenet_jax.data.transforms.channels import by_channels
from refinenet_jax.data.transforms.example import Example


@dataclasses.dataclass(frozen=True)
class RandomBlur:
    """Blurs the image with a Gaussian kernel; the label stays as it is.

    Attributes:
      largest_sigma: the standard deviation is drawn uniformly from [0, largest_sigma]
        pixels.
    """

    largest_sigma: float

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Draws the standard deviation."""
        sigma = rng.uniform(0.0, self.largest_sigma)
        if sigma == 0.0:
            return example  # for OpenCV, 0 means "choose one"
        # A kernel size of 0 lets OpenCV choose: three standard deviations each way.
        blurred = by_channels(
            lambda some: cv2.GaussianBlur(some, (0, 0), sigma), example["image"]
        )
        return {**example, "image": blurred}
