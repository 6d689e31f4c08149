"""Examples that are decoded once and then kept in memory, for small data sets."""

import dataclasses
from typing import Any, SupportsIndex

import numpy.typing as npt

from refinenet_jax.data.images import EncodedImage, decode_label
from refinenet_jax.data.picture_kind import PictureKind
from refinenet_jax.data.source import Source


def bytes_per_pixel(kind: PictureKind) -> int:
    """That an example takes: its image and its label."""
    return kind.bytes_per_pixel + 1


@dataclasses.dataclass(frozen=True)
class KeptImage:
    """An image whose pixels are at hand; `decode` gives what an `EncodedImage` gives.

    Attributes:
      pixels: [H,W,C], read-only.
      name: of the file.
      source: where it is read again for less than all of its detail.
      index: its number there.
    """

    pixels: npt.NDArray[Any]
    name: str
    source: Source
    index: int

    @property
    def kind(self) -> PictureKind:
        """See `EncodedImage.kind`."""
        return PictureKind.of(self.pixels)

    def decode(self, unit: int = 1) -> tuple[npt.NDArray[Any], int]:
        """See `EncodedImage.decode`."""
        if unit == 1:
            return self.pixels, 1
        image = EncodedImage(self.source[self.index]["image"], self.name, self.kind)
        return image.decode(unit) if image.most > 1 else (self.pixels, 1)


class DecodedSource:
    """The examples of a source, each of them kept decoded from its first use on.

    Takes `bytes_per_pixel` for each pixel of each example. Can be pickled, and is empty
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
        pixels, _ = EncodedImage(record["image"], name, self._source.kind).decode()
        label = decode_label(record["label"], name)
        for array in (pixels, label):
            array.flags.writeable = False
        image = KeptImage(pixels, name, self._source, number)
        return {"image": image, "label": label, "name": name}
