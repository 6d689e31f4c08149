"""Builds data sets from image files and label files."""

import abc
import contextlib
import dataclasses
import hashlib
import logging
import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import download_manager

from refinenet_jax import files
from refinenet_jax.data import images
from refinenet_jax.data.builders.archives import Files, refuse_other_content
from refinenet_jax.data.builders.records import (
    SegmentationBuilder,
    Stored,
    encoded_example,
)
from refinenet_jax.data.channel_moments import moments_of
from refinenet_jax.data.class_table import Archive, RawLabel
from refinenet_jax.data.images import DataError
from refinenet_jax.data.picture_files import encode_npy, is_heic
from refinenet_jax.data.picture_kind import RGB, PictureKind
from refinenet_jax.errors import UserError, first_line
from refinenet_jax.labels import IGNORE_LABEL
from refinenet_jax.pictures import encode_photo


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image file and its label file.

    Attributes:
      name: unique in its split.
      image: the file with the image.
      label: the file with the label.
      index: the place in files that hold many.
      others: further files that the label is made of.
    """

    name: str
    image: pathlib.Path
    label: pathlib.Path
    index: int = 0
    others: tuple[pathlib.Path, ...] = ()


@dataclasses.dataclass(frozen=True)
class RawExample:
    """An image and its label as they are distributed.

    Attributes:
      pair: the files.
      encoded: the image as a file that needs no turning any more.
      image: [H,W,C] of the builder's kind.
      raw: integer [H,W], the label values of the file.
      turned: whether the EXIF orientation was applied.
      label_turned: whether it was applied to the label, too.
      has_alpha: whether the file has transparency, which is dropped.
      not_finite: bool [H,W], where a channel is no finite number; None: nowhere.
    """

    pair: Pair
    encoded: bytes
    image: npt.NDArray[Any]
    raw: RawLabel
    turned: bool
    label_turned: bool = False
    has_alpha: bool = False
    not_finite: npt.NDArray[np.bool_] | None = None


class FilesBuilder(SegmentationBuilder):
    """Builds a data set from the image and label files of its authors.

    They lie in the request's manual_dir, or are downloaded where that is "".

    Attributes:
      pictures: of which kind all are taken for; None: the files decide.
    """

    pictures: PictureKind | None = RGB

    @abc.abstractmethod
    def find_pairs(self, files: Files) -> dict[str, list[Pair]]:
        """The pairs of each split.

        Raises:
          UserError: `files` does not hold the data set.
        """

    @property
    def remark(self) -> str:
        """What a person should know of the splits; "" for nothing."""
        return ""

    def read_image(self, pair: Pair) -> bytes:
        """Reads an encoded image."""
        return images.read_bytes(pair.image)

    def read_label(self, pair: Pair) -> RawLabel:
        """Reads a label: integer [H,W], values as distributed."""
        return images.decode_label(images.read_bytes(pair.label), str(pair.label))

    def read(self, pair: Pair) -> RawExample:
        """Reads both; they must be of one size, and the image of `pictures`.

        An EXIF orientation is applied, so that pictures are upright as in prediction:
        to the label, too, where its size says that it was drawn on the pixels as they
        are stored. Most tools draw on the upright picture, which a label of that size
        is taken for.

        Raises:
          DataError: a file is missing or damaged, the sizes differ, or the image holds
            what is no finite number and is not to.
        """
        encoded = self.read_image(pair)
        where = str(pair.image)
        image = images.decode_picture(encoded, where, self.pictures)
        header = images.read_header(encoded, where) if self.pictures is None else None
        raw = self.read_label(pair)
        turn = images.orientation(encoded)
        upright = images.turn_upright(image, turn)
        on_stored = raw.shape == image.shape[:2] != upright.shape[:2]
        turned = turn != 1 and (on_stored or upright.shape[:2] == raw.shape)
        if on_stored:
            raw = images.turn_upright(raw, turn)
        if turned:
            image, encoded = upright, _encoded(upright)
        elif is_heic(encoded):
            encoded = _encoded(image)  # which decodes in a fraction of the time
        if image.shape[:2] != raw.shape:
            raise DataError(
                "size_mismatch",
                f"{pair.image} is {_size(image)} but its label {pair.label} is "
                f"{_size(raw)} (width x height): they must be of one size",
            )
        return RawExample(
            pair,
            encoded,
            image,
            raw,
            turned,
            on_stored,
            header is not None and header.has_alpha,
            self._not_finite(image, where),
        )

    def _not_finite(
        self, image: npt.NDArray[Any], where: str
    ) -> npt.NDArray[np.bool_] | None:
        """See `RawExample`; raises DataError where the request refuses any."""
        if image.dtype.kind != "f":
            return None
        finite = np.isfinite(image).all(axis=2)
        if finite.all():
            return None
        if self.request.not_finite == "refuse":
            raise DataError(
                "not_finite",
                f"image {where} has {np.count_nonzero(~finite)} of {finite.size} pixels "
                "that are NaN or infinite",
            )
        return ~finite

    def locate(self) -> dict[str, list[Pair]]:
        """The pairs of each split in manual_dir, nothing downloaded.

        Raises:
          UserError: manual_dir does not hold the data set.
        """
        return self.find_pairs(
            Files(
                self.name,
                self.class_table.archives,
                folder=manual_folder(self.request.manual_dir),
                downloaded={},
                unpack_dir=self._unpack_dir,
            )
        )

    def find_examples(
        self, downloads: tfds.download.DownloadManager
    ) -> dict[str, list[Pair]]:
        """The pairs, in manual_dir or downloaded; see `SegmentationBuilder`."""
        if self.request.manual_dir:
            splits = self.locate()
            folder = str(manual_folder(self.request.manual_dir))
        else:
            splits = self.find_pairs(self._downloaded(downloads))
            folder = ""
        self.info.metadata.update(
            manual_dir=folder,
            fingerprint=fingerprint(splits),
            state=file_state(splits),
            left_out=[],
        )
        return splits

    def example(self, origin: Pair) -> dict[str, Any] | str:
        """One example; see `SegmentationBuilder`."""
        try:
            found = self.read(origin)
        except DataError as error:
            if error.kind == "not_finite":
                raise UserError(
                    f"{error}; mend it, or set config.data.not_finite='ignore' to have "
                    "such pixels not count"
                ) from error
            if error.kind != "damaged":
                raise
            if self.request.damaged == "stop":
                raise UserError(
                    f"{error}; mend it, or set config.data.damaged='skip' to leave "
                    "such files out"
                ) from error
            return str(error)
        label = self.class_table.to_class_ids(found.raw, str(origin.label))
        if found.not_finite is not None:
            label = np.where(found.not_finite, np.uint8(IGNORE_LABEL), label)
        num_classes = len(self.class_table.class_names)
        example = encoded_example(found.encoded, label, origin.name, num_classes)
        if self.pictures is None:
            example["stored"] = _stored(found)
        return example

    @property
    def _unpack_dir(self) -> pathlib.Path:
        """Where archives are unpacked: on disk, and never the person's folder."""
        root = files.path(self.data_dir_root)
        if files.in_bucket(root):
            root = files.path(self.request.cache_dir or tfds.core.constants.DATA_DIR)
        return root / "downloads" / "extracted"

    def _downloaded(self, downloads: tfds.download.DownloadManager) -> Files:
        archives = self.class_table.archives
        by_hand = [a for a in archives if a.login and not a.optional]
        if by_hand or not archives:
            wanted = " and ".join(f"{a.file} from {a.url}" for a in by_hand)
            raise UserError(
                f"config.data.manual_dir is empty, but {self.name} cannot be "
                f"downloaded without a person: fetch {wanted or 'its files'}, put them "
                "into a folder, packed or not, and name it there"
            )
        found = {}
        for archive in archives:
            try:
                found[archive.file] = self._download(downloads, archive)
            except UserError:
                if not archive.optional:
                    raise
        return Files(
            self.name,
            archives,
            folder=None,
            downloaded=found,
            unpack_dir=self._unpack_dir,
        )

    def _download(
        self, downloads: tfds.download.DownloadManager, archive: Archive
    ) -> pathlib.Path:
        try:
            with _without_warnings_of("urllib3"):  # of each of ten attempts
                file = pathlib.Path(downloads.download(archive.url))
        except (
            OSError,
            tfds.download.DownloadError,
            download_manager.NonMatchingChecksumError,
        ) as error:
            raise UserError(
                f"{self.name} could not be downloaded ({first_line(error)}): download "
                f"{archive.url} yourself and name its folder in config.data.manual_dir"
            ) from error
        refuse_other_content(file, archive)
        return file


def _encoded(pixels: npt.NDArray[Any]) -> bytes:
    """A file that holds these pixels."""
    return encode_photo(pixels) if PictureKind.of(pixels) == RGB else encode_npy(pixels)


def _stored(found: RawExample) -> Stored:
    kind, hidden = PictureKind.of(found.image), found.not_finite
    return Stored(
        file=str(found.pair.image),
        kind=kind,
        has_alpha=found.has_alpha,
        not_finite=0 if hidden is None else int(np.count_nonzero(hidden)),
        moments=None if kind == RGB else moments_of(found.image),
    )


@contextlib.contextmanager
def _without_warnings_of(package: str) -> Iterator[None]:
    """Keeps them from the terminal: what comes of them is said in one line."""
    logger = logging.getLogger(package)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def manual_folder(manual_dir: str) -> pathlib.Path:
    """The folder that config.data.manual_dir names, as an absolute path or gs://.

    Raises:
      UserError: there is no such folder.
    """
    folder = files.absolute(files.path(manual_dir))
    if not files.is_folder(folder):
        raise UserError(f"config.data.manual_dir={manual_dir!r} is not a folder")
    return folder


def read_names(path: pathlib.Path) -> list[str]:
    """The first word of each line that is not empty.

    Raises:
      UserError: the file cannot be read, lists nothing, or lists something twice.
    """
    names = [line.split()[0] for line in images.read_lines(path) if line.strip()]
    if not names:
        raise UserError(f"{path} lists no image")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"{path} lists {name} twice; remove one of the lines")
        seen.add(name)
    return names


def fingerprint(splits: Mapping[str, Sequence[Pair]]) -> str:
    """A sha256 over the splits' members and the sizes of their files.

    It tells two folders with other content apart without reading every file.

    Raises:
      DataError: a file is missing.
    """
    return _digest(splits, lambda state: f"{state.size}")


def file_state(splits: Mapping[str, Sequence[Pair]]) -> str:
    """The same over the sizes and times of the files: any edit changes it."""
    return _digest(splits, lambda state: f"{state.size} {state.modified}")


def _digest(
    splits: Mapping[str, Sequence[Pair]], describe: Callable[[files.State], str]
) -> str:
    states = _states(
        {p for ps in splits.values() for x in ps for p in (x.image, x.label, *x.others)}
    )
    digest = hashlib.sha256()
    for split in sorted(splits):
        for pair in sorted(splits[split], key=lambda pair: pair.name):
            files_of = (pair.image, pair.label, *pair.others)
            told = " ".join(describe(states[path]) for path in files_of)
            digest.update(f"{split} {pair.name} {told}\n".encode())
    return digest.hexdigest()


def _states(paths: Collection[pathlib.Path]) -> dict[pathlib.Path, files.State]:
    try:
        return files.states(sorted(paths))
    except OSError as error:
        raise DataError(
            "missing",
            f"{error.filename} cannot be read ({files.reason(error)}); a split of the data set "
            "lists it",
        ) from error


def _size(pixels: np.ndarray) -> str:
    height, width = pixels.shape[:2]
    return f"{width}x{height}"
