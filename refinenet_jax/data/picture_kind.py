"""What kind of pictures a data set has, and a network sees."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

MOST_CHANNELS = 16
DTYPES = ("uint8", "uint16", "float32")


@dataclasses.dataclass(frozen=True)
class PictureKind:
    """How many channels pictures have, and of which numbers.

    Attributes:
      channels: 1 to `MOST_CHANNELS`.
      dtype: one of `DTYPES`: 0..255, 0..65535 or any number.
    """

    channels: int
    dtype: str = "uint8"

    @classmethod
    def of(cls, pixels: npt.NDArray[Any]) -> "PictureKind":
        """Of an array [H,W,C]."""
        return cls(pixels.shape[2], pixels.dtype.name)

    def __str__(self) -> str:
        if self == RGB:
            return "RGB of 8 bits"
        numbers = {"uint8": "8 bits", "uint16": "16 bits"}.get(self.dtype, self.dtype)
        return f"{self.channels} channel{'s' * (self.channels > 1)} of {numbers}"

    @property
    def bytes_per_pixel(self) -> int:
        """Of the picture in memory."""
        return self.channels * np.dtype(self.dtype).itemsize

    def together(self, other: "PictureKind") -> "PictureKind | None":
        """The kind that both can be shown as; None where there is none.

        Grey pictures among those of three channels are repeated, as viewers do.
        """
        if self == other:
            return self
        if self.dtype == other.dtype and {self.channels, other.channels} == {1, 3}:
            return PictureKind(3, self.dtype)
        return None


# What cameras write, and all that a data set has where nothing else is said.
RGB = PictureKind(3)
