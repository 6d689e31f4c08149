"""Counts what the examples of a split hold: sizes, label values, classes, copies."""

import dataclasses
import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from refinenet_jax.data import channel_moments
from refinenet_jax.data.channel_moments import Moments
from refinenet_jax.data.class_table import ClassTable, RawLabel
from refinenet_jax.data.images import DataError
from refinenet_jax.data.picture_kind import RGB, PictureKind
from refinenet_jax.labels import IGNORE_LABEL
from refinenet_jax.pictures import STRETCHED, Shown

_PICTURE_SIZE = 320  # longest edge of the pictures that are kept


@dataclasses.dataclass(frozen=True)
class Labelled:
    """An example as it is read.

    Attributes:
      image: [H,W,C].
      raw: integer [H,W], the label values of the file.
      turned: whether an EXIF orientation was applied.
      label_turned: whether it was applied to the label, too.
      has_alpha: whether the file has transparency, which is dropped.
      not_finite: how many pixels have a channel that is no finite number.
    """

    image: npt.NDArray[Any]
    raw: RawLabel
    turned: bool
    label_turned: bool = False
    has_alpha: bool = False
    not_finite: int = 0


@dataclasses.dataclass(frozen=True)
class Split:
    """The examples of a split by number.

    Attributes:
      name: what the config calls it.
      files: what a person knows each example by.
      read: gives one; raises DataError.
      read_image: gives its image alone, where `read` failed; raises DataError.
      published: how many examples its authors speak of; None where they do not.
    """

    name: str
    files: Sequence[str]
    read: Callable[[int], Labelled]
    read_image: Callable[[int], npt.NDArray[Any]]
    published: int | None


@dataclasses.dataclass(frozen=True)
class Look:
    """What is remembered of an example.

    Attributes:
      file: see `Split.files`.
      size: width and height.
      pixels: label value -> how many pixels have it.
      inner: label value -> how many of its pixels have four neighbours of the same
        value. Those of a class lie in areas; those that resizing or compression made
        up do not, and few of those that were left void along outlines do.
      turned: whether an EXIF orientation was applied.
      label_turned: whether it was applied to the label, too.
      digest: differs where the images differ.
      kind: of the image as it is stored.
      has_alpha: see `Labelled`.
      not_finite: likewise.
      moments: of the channels; None for RGB.
    """

    file: str
    size: tuple[int, int]
    pixels: Mapping[int, int]
    inner: Mapping[int, int]
    turned: bool
    digest: bytes
    label_turned: bool = False
    kind: PictureKind = RGB
    has_alpha: bool = False
    not_finite: int = 0
    moments: Moments | None = None


@dataclasses.dataclass(frozen=True)
class Fault:
    """Why an example could not be read; kind as in `DataError`."""

    file: str
    kind: str
    message: str


@dataclasses.dataclass(frozen=True)
class Picture:
    """A small copy of an example.

    Attributes:
      file: see `Split.files`.
      image: uint8 [h,w,3] RGB; None where it could not be read.
      label: uint8 [h,w] class ids, 255 = ignore; None where it could not be read.
      unknown: bool [h,w], values that the data set does not define.
      fault: why the example could not be read, else "".
    """

    file: str
    image: npt.NDArray[np.uint8] | None
    label: npt.NDArray[np.uint8] | None
    unknown: npt.NDArray[np.bool_] | None
    fault: str


@dataclasses.dataclass(frozen=True)
class Survey:
    """What was found in a split.

    Attributes:
      split: its name.
      images: how many it has, looked at or not.
      published: see `Split`.
      table: what the label values mean.
      looks: the examples that could be read.
      faults: those that could not.
      pictures: of a few.
    """

    split: str
    images: int
    published: int | None
    table: ClassTable
    looks: Sequence[Look]
    faults: Sequence[Fault]
    pictures: Sequence[Picture]

    @property
    def scanned(self) -> int:
        """How many examples were looked at."""
        return len(self.looks) + len(self.faults)

    @property
    def whole(self) -> bool:
        """Whether that were all."""
        return self.scanned == self.images

    @functools.cached_property
    def kinds(self) -> dict[PictureKind, str]:
        """The kinds of pictures there are, and a file of each."""
        found: dict[PictureKind, str] = {}
        for look in self.looks:
            found.setdefault(look.kind, look.file)
        return found

    @property
    def mean_and_std(self) -> tuple[list[float], list[float]] | None:
        """Of each channel; None where there is RGB, or no one kind."""
        moments = [look.moments for look in self.looks if look.moments is not None]
        if len(self.kinds) != 1 or not moments:
            return None
        return channel_moments.combined(np.stack(moments))

    @functools.cached_property
    def value_pixels(self) -> dict[int, int]:
        """Label value -> pixels, ascending."""
        total: Counter[int] = Counter()
        for look in self.looks:
            total.update(look.pixels)
        return dict(sorted(total.items()))

    @functools.cached_property
    def unknown(self) -> dict[int, int]:
        """The same of the values that the data set does not define."""
        known = self.table.raw_to_class
        return {v: count for v, count in self.value_pixels.items() if v not in known}

    @functools.cached_property
    def class_pixels(self) -> list[int]:
        """Pixels of each class, in the order of the ids."""
        counts = [0] * len(self.table.class_names)
        for value, count in self.value_pixels.items():
            if (class_id := self.class_of(value)) is not None:
                counts[class_id] += count
        return counts

    @functools.cached_property
    def class_images(self) -> list[int]:
        """Images with each class, in the order of the ids."""
        counts = [0] * len(self.table.class_names)
        for look in self.looks:
            found = {self.class_of(value) for value in look.pixels}
            for class_id in range(len(counts)):
                counts[class_id] += class_id in found
        return counts

    @property
    def labelled(self) -> int:
        """Pixels that have a class."""
        return sum(self.class_pixels)

    @property
    def ignored_share(self) -> float:
        """Of all pixels, those that do not count; 0 where there is no pixel."""
        total = sum(self.value_pixels.values())
        hidden = total - self.labelled - sum(self.unknown.values())
        return hidden / total if total else 0.0

    def class_of(self, value: int) -> int | None:
        """The class of a label value; None where it is ignored or unknown."""
        class_id = self.table.raw_to_class.get(value, IGNORE_LABEL)
        return None if class_id == IGNORE_LABEL else class_id


def evenly_spread(total: int, wanted: int) -> list[int]:
    """`wanted` ascending numbers below `total`, or all of them where it is less."""
    count = min(total, wanted)
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def look_through(
    split: Split,
    table: ClassTable,
    *,
    num_images: int,
    num_pictures: int,
    num_threads: int,
    on_image: Callable[[], None],
    shown: Shown = STRETCHED,
) -> Survey:
    """Reads the examples of a split, or some of them evenly spread.

    Args:
      split: the examples.
      table: what their label values mean.
      num_images: how many to read.
      num_pictures: how many of those to keep small copies of.
      num_threads: that read.
      on_image: called after each.
      shown: how pictures that are not RGB are shown.
    """
    chosen = evenly_spread(len(split.files), num_images)
    kept = {chosen[i] for i in evenly_spread(len(chosen), num_pictures)}
    looks: list[Look] = []
    faults: list[Fault] = []
    pictures: list[Picture] = []
    with ThreadPoolExecutor(num_threads) as threads:
        # What comes back is small: at no time are more images held than threads.
        for found, picture in threads.map(
            lambda index: _inspect(
                split, index, table, shown if index in kept else None
            ),
            chosen,
        ):
            if isinstance(found, Look):
                looks.append(found)
            else:
                faults.append(found)
            if picture is not None:
                pictures.append(picture)
            on_image()
    return Survey(
        split.name, len(split.files), split.published, table, looks, faults, pictures
    )


def _inspect(
    split: Split, index: int, table: ClassTable, shown: Shown | None
) -> tuple[Look | Fault, Picture | None]:
    file = split.files[index]
    try:
        example = split.read(index)
    except DataError as error:
        picture = None
        if shown is not None:
            picture = _picture_without_label(split, index, str(error), shown)
        return Fault(file, error.kind, str(error)), picture
    height, width = example.raw.shape
    kind = PictureKind.of(example.image)
    counts = np.bincount(example.raw.ravel())
    values = np.flatnonzero(counts)
    look = Look(
        file=file,
        size=(width, height),
        pixels=dict(zip(values.tolist(), counts[values].tolist(), strict=True)),
        inner=_inner(example.raw),
        turned=example.turned,
        digest=_digest(example.image),
        label_turned=example.label_turned,
        kind=kind,
        has_alpha=example.has_alpha,
        not_finite=example.not_finite,
        moments=None if kind == RGB else channel_moments.moments_of(example.image),
    )
    return look, None if shown is None else _picture(file, example, table, shown)


def _inner(raw: RawLabel) -> dict[int, int]:
    """See `Look.inner`."""
    same = np.ones_like(raw[1:-1, 1:-1], np.bool_)
    for rows, columns in ((0, 1), (2, 1), (1, 0), (1, 2)):
        height, width = same.shape
        same &= raw[1:-1, 1:-1] == raw[rows : rows + height, columns : columns + width]
    counts = np.bincount(raw[1:-1, 1:-1][same])
    values = np.flatnonzero(counts)
    return dict(zip(values.tolist(), counts[values].tolist(), strict=True))


def _digest(image: npt.NDArray[Any]) -> bytes:
    width = str(image.shape[1]).encode()
    return hashlib.blake2b(image.tobytes(), digest_size=16, salt=width).digest()


def _picture(file: str, example: Labelled, table: ClassTable, shown: Shown) -> Picture:
    raw = _small(example.raw, cv2.INTER_NEAREST)
    class_ids = np.full(int(raw.max(initial=0)) + 1, IGNORE_LABEL, np.uint8)
    unknown = np.ones(len(class_ids), np.bool_)
    for value, class_id in table.raw_to_class.items():
        if value < len(class_ids):
            class_ids[value], unknown[value] = class_id, False
    image = _small(shown.rgb(example.image), cv2.INTER_AREA)
    return Picture(file, image, class_ids[raw], unknown[raw], "")


def _picture_without_label(
    split: Split, index: int, fault: str, shown: Shown
) -> Picture:
    try:
        image = _small(shown.rgb(split.read_image(index)), cv2.INTER_AREA)
    except DataError:
        image = None
    return Picture(split.files[index], image, None, None, fault)


def _small(pixels: npt.NDArray[Any], interpolation: int) -> npt.NDArray[Any]:
    height, width = pixels.shape[:2]
    scale = min(1.0, _PICTURE_SIZE / max(height, width))
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    return cv2.resize(pixels, size, interpolation=interpolation)
