"""What the builders of all data sets share: files in, encoded examples out."""

import abc
import dataclasses
import functools
import hashlib
import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import download_manager

from refinenet_jax.data import images
from refinenet_jax.data.class_table import ClassTable, read_class_table
from refinenet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image file and its label file."""

    name: str
    image: pathlib.Path
    label: pathlib.Path


def encoded_example(image: bytes, label: bytes, name: str) -> dict[str, Any]:
    """An example whose images TFDS stores as they are.

    File objects, because TFDS encodes arrays with TensorFlow.
    """
    return {"image": io.BytesIO(image), "label": io.BytesIO(label), "name": name}


class SegmentationBuilder(tfds.core.GeneratorBasedBuilder):
    """What the TFDS builders of this package have in common.

    Examples have the features `image` (an encoded image), `label` (an 8-bit grey PNG
    of class ids, 255 = ignore) and `name`. The metadata records the folder that they
    came from ("" for none) and a fingerprint of its files.

    Args:
      data_dir: where TFDS keeps prepared data; None for TFDS's own place.
      manual_dir: a folder with the data set as distributed; "" for none.
    """

    VERSION = tfds.core.Version("1.0.0")

    # TFDS looks for checksums.tsv beside this file. Left to find the file itself,
    # TFDS 4.9.10 imports importlib_resources, which it does not install.
    code_path = pathlib.Path(__file__)

    def __init__(self, *, data_dir: str | None, manual_dir: str) -> None:
        self.manual_dir = manual_dir
        super().__init__(data_dir=data_dir)

    def __reduce__(self) -> tuple[Any, ...]:
        # TFDS's own pickling, which brings a builder to the data workers, knows
        # nothing of manual_dir.
        fields = {"data_dir": str(self.data_dir_root), "manual_dir": self.manual_dir}
        return functools.partial(type(self), **fields), ()

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.Image(shape=(None, None, 1)),
                    "name": tfds.features.Text(),
                }
            ),
            metadata=tfds.core.MetadataDict(),
        )


class FilesBuilder(SegmentationBuilder):
    """Builds a data set from the image and label files of its authors.

    They lie in manual_dir, or are downloaded where manual_dir is "".
    """

    @abc.abstractmethod
    def find_pairs(self, folder: pathlib.Path) -> dict[str, list[Pair]]:
        """The pairs of each split in a folder as distributed.

        Raises:
          UserError: the folder does not hold the data set.
        """

    @abc.abstractmethod
    def download(self, downloads: tfds.download.DownloadManager) -> pathlib.Path:
        """Downloads the data set and returns the folder for `find_pairs`."""

    def read_label(self, path: pathlib.Path) -> npt.NDArray[np.uint8]:
        """Reads a label file: uint8 [H,W], values as distributed."""
        return images.decode_label(images.read_bytes(path), str(path))

    @property
    def unpack_dir(self) -> pathlib.Path:
        """Where archives are unpacked: TFDS's place, never the person's folder."""
        return pathlib.Path(self.data_dir_root) / "downloads" / "extracted"

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        if self.manual_dir:
            folder = manual_folder(self.manual_dir)
        else:
            folder = self._download(dl_manager)
        splits = self.find_pairs(folder)
        self.info.metadata.update(
            manual_dir=str(folder) if self.manual_dir else "",
            fingerprint=fingerprint(splits),
        )
        return {
            split: self._generate_examples(pairs) for split, pairs in splits.items()
        }

    def _generate_examples(
        self, pairs: Sequence[Pair]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        table = read_class_table(self.name)
        for pair in pairs:
            yield pair.name, self._example(pair, table)

    def _example(self, pair: Pair, table: ClassTable) -> dict[str, Any]:
        encoded = images.read_bytes(pair.image)
        image = images.decode_image(encoded, str(pair.image))
        raw = self.read_label(pair.label)
        if image.shape[:2] != raw.shape:
            raise UserError(
                f"{pair.image} is {_size(image)} but its label {pair.label} is "
                f"{_size(raw)} (width x height): they must be of one size"
            )
        label = table.to_class_ids(raw, str(pair.label))
        return encoded_example(encoded, images.encode_png(label), pair.name)

    def _download(self, downloads: tfds.download.DownloadManager) -> pathlib.Path:
        try:
            return self.download(downloads)
        except (
            OSError,
            tfds.download.DownloadError,
            download_manager.NonMatchingChecksumError,
        ) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"{self.name} could not be downloaded ({reason}): download it "
                "yourself and name its folder in config.data.manual_dir"
            ) from error


def manual_folder(manual_dir: str) -> pathlib.Path:
    """The folder that config.data.manual_dir names, as an absolute path.

    Raises:
      UserError: there is no such folder.
    """
    folder = pathlib.Path(manual_dir).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"config.data.manual_dir={manual_dir!r} is not a folder")
    return folder


def read_names(path: pathlib.Path) -> list[str]:
    """The first word of each line that is not empty.

    Raises:
      UserError: the file cannot be read, lists nothing, or lists something twice.
    """
    lines = images.read_bytes(path).decode("utf-8").splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
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
      UserError: a file is missing.
    """
    digest = hashlib.sha256()
    for split in sorted(splits):
        for pair in sorted(splits[split], key=lambda pair: pair.name):
            sizes = f"{_file_size(pair.image)} {_file_size(pair.label)}"
            digest.update(f"{split} {pair.name} {sizes}\n".encode())
    return digest.hexdigest()


def _file_size(path: pathlib.Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); it is listed in a split file"
        ) from error


def _size(pixels: np.ndarray) -> str:
    height, width = pixels.shape[:2]
    return f"{width}x{height}"
