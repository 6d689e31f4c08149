"""What a transform takes and gives; see the package's docstring."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from refinenet_jax.data.picture_kind import PictureKind

Example = dict[str, Any]
Pixels = npt.NDArray[Any]


class Decodable(Protocol):
    """An image that is not decoded yet; see `images.EncodedImage`."""

    @property
    def name(self) -> str:
        """Of its file."""

    @property
    def kind(self) -> PictureKind:
        """Of its pixels."""

    def decode(self, unit: int = 1) -> tuple[Pixels, int]:
        """Its pixels, averaged over n x n with n <= unit, and n."""


class Transform(Protocol):
    """Anything that turns an example into another one."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Returns the transformed example and leaves the given one as it is."""
