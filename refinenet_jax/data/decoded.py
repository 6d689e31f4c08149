"""Examples that are decoded once and then kept in memory, for small data sets."""

import dataclasses
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from refinenet_jax.data.images import EncodedImage, decode_label
from refinenet_jax.data.source import Source

BYTES_PER_PIXEL = 4  # three of the image, one of the label


@dataclasses.dataclass(frozen=True)
class KeptImage:
    """An image whose pixels are at hand; `decode` gives what an `EncodedImage` gives.

    Attributes:
      pixels: uint8 [H,W,3] RGB, read-only.
      name: of the file.
      source: where it is read again for less than all of its detail.
      index: its number there.
    """

    pixels: npt.NDArray[np.uint8]
    name: str
    source: Source
    index: int

    def decode(self, unit: int = 1) -> tuple[npt.NDArray[np.uint8], int]:
        """See `EncodedImage.decode`."""
        if unit == 1:
            return self.pixels, 1
        image = EncodedImage(self.source[self.index]["image"], self.name)
        return image.decode(unit) if image.most > 1 else (self.pixels, 1)


class DecodedSource:
    """The examples of a source, each of them kept decoded from its first use on.

    Takes `BYTES_PER_PIXEL` for each pixel of each example. Can be pickled, and is empty
    then: each data worker keeps its own.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._kept: dict[int, dict[str, Any]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._source,)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """{"image": KeptImage, "label": uint8 [H,W], read-only, "name": str}.

        Raises:
          DataError: one of the two cannot be decoded.
        """
        number = index.__index__()
        kept = self._kept.get(number)
        if kept is None:
            # Two threads may decode the same at once; either result is the same.
            kept = self._kept[number] = self._decoded(number)
        return kept

    def _decoded(self, number: int) -> dict[str, Any]:
        record = self._source[number]
        name = record["name"]
        pixels, _ = EncodedImage(record["image"], name).decode()
        label = decode_label(record["label"], name)
        for array in (pixels, label):
            array.flags.writeable = False
        image = KeptImage(pixels, name, self._source, number)
        return {"image": image, "label": label, "name": name}
