"""Other light and other colours."""

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt

from refinenet_jax.data.picture_kind import RGB, PictureKind
from refinenet_jax.data.transforms.example import Example
from refinenet_jax.errors import UserError

Colours = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class ColourJitter:
    """Changes brightness, contrast, saturation and hue of the image, in this order.

    The four changes are torchvision's (`ColorJitter`), but rounded once, at the end;
    each result is clipped to [0, 255]. The label stays as it is.

    Attributes:
      brightness: b >= 0; the image is multiplied by a factor drawn uniformly from
        [max(0, 1 - b), 1 + b]. 0.0 switches this change off, as in the others.
      contrast: as `brightness`, for the distance from the image's mean grey.
      saturation: as `brightness`, for the distance from the pixel's grey.
      hue: 0 <= h <= 0.5; the hue is shifted by turns drawn uniformly from [-h, h].
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Draws three factors and a shift, also for a change that is switched off.

        Raises:
          UserError: the image is not RGB of 8 bits, which alone has such colours.
        """
        kind = PictureKind.of(example["image"])
        if kind != RGB:
            raise UserError(
                f"a picture has {kind}, which has no colours to change: set "
                "config.data.colour_jitter=(0,0,0,0)"
            )
        brightness = _factor(self.brightness, rng)
        contrast = _factor(self.contrast, rng)
        saturation = _factor(self.saturation, rng)
        turns = rng.uniform(-self.hue, self.hue)
        image = example["image"].astype(np.float32)
        if self.brightness:
            image = _blend(image, np.float32(0), brightness)
        if self.contrast:
            image = _blend(image, _grey(image).mean(), contrast)
        if self.saturation:
            image = _blend(image, _grey(image)[..., np.newaxis], saturation)
        if self.hue:
            image = _shift_hue(image, turns)
        return {**example, "image": np.rint(image).astype(np.uint8)}


def _factor(strength: float, rng: np.random.Generator) -> float:
    return rng.uniform(max(0.0, 1.0 - strength), 1.0 + strength)


def _blend(image: Colours, anchor: Colours | np.float32, factor: float) -> Colours:
    """Moves the image to factor times its distance from the anchor."""
    share = np.float32(factor)
    moved = image * share
    moved += anchor * (1 - share)
    return np.clip(moved, 0, 255, out=moved)


def _grey(image: Colours) -> Colours:
    """float32 [H,W,3] -> [H,W]: 0.299 red + 0.587 green + 0.114 blue."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.float32)


def _shift_hue(image: Colours, turns: float) -> Colours:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + 360 * turns) % 360
    shifted = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32)
    return np.clip(shifted, 0, 255, out=shifted)
