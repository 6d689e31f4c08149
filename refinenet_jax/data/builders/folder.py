"""A person's own folder of images and labels."""

import functools
import hashlib
import pathlib
import re

import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds

from refinenet_jax.data import images
from refinenet_jax.data.builders import (
    coco_json,
    folder_layouts,
    label_studio,
    labelme,
)
from refinenet_jax.data.builders.archives import Files
from refinenet_jax.data.builders.class_list import (
    IGNORE,
    Colour,
    distinct_colour,
    read_classes,
)
from refinenet_jax.data.builders.drawn import Names
from refinenet_jax.data.builders.examples import FilesBuilder, Pair, manual_folder
from refinenet_jax.data.class_table import ClassTable, RawLabel, of_ids
from refinenet_jax.data.images import DataError
from refinenet_jax.data.request import Request
from refinenet_jax.errors import UserError, listed
from refinenet_jax.labels import IGNORE_LABEL


class Folder(FilesBuilder):
    """Writes the splits that the folder has; see docs/data.md for the layouts.

    Raises:
      UserError: the request names no folder, or one without a list of classes.
    """

    name = "folder"
    pictures = None

    def __init__(self, request: Request) -> None:
        if not request.manual_dir:
            raise UserError(
                "config.data.manual_dir is empty: name the folder with your images/ "
                "and labels/"
            )
        folder = manual_folder(request.manual_dir)
        self._classes = read_classes(_class_file(folder, request.folder.classes))
        # Another folder, or another way to read it, is another data set.
        identity = f"{folder} {request.folder} {self._classes}"
        key = hashlib.sha256(identity.encode()).hexdigest()[:12]
        name = re.sub(r"[^a-zA-Z0-9_]", "_", folder.name)
        config = tfds.core.BuilderConfig(name=f"{name}_{key}")
        super().__init__(request, config=config)

    @property
    def class_table(self) -> ClassTable:
        """Names and colours from the folder's list, values as the request says."""
        names = tuple(name for name in self._classes if name != IGNORE)
        palette = tuple(
            self._classes[name] or distinct_colour(index)
            for index, name in enumerate(names)
        )
        labels = self.request.folder
        if labels.encoding != "ids":
            raw_to_class = {index: index for index in range(len(names))}
            raw_to_class[IGNORE_LABEL] = IGNORE_LABEL
        else:
            raw_to_class = of_ids(len(names), labels.offset, labels.ignore)
        return ClassTable(
            class_names=names,
            palette=palette,
            raw_to_class=raw_to_class,
            split_sizes={},
            archives=(),
            source=self.request.folder.classes,
        )

    def find_pairs(self, files: Files) -> dict[str, list[Pair]]:
        """Finds the splits in any of the layouts; see `FilesBuilder`."""
        folder = manual_folder(self.request.manual_dir)
        labels = self.request.folder
        if labels.encoding in ("coco", "panoptic"):
            return coco_json.find_splits(folder, labels)
        if labels.encoding == "label_studio":
            return label_studio.find_splits(folder, labels)
        return folder_layouts.find_splits(folder, labels)

    @property
    def remark(self) -> str:
        """Whether the splits were drawn by seed."""
        return folder_layouts.drawn_by_seed(manual_folder(self.request.manual_dir))

    def read_label(self, pair: Pair) -> RawLabel:
        """Reads ids, or what else says the class as the numbers of the classes."""
        encoding = self.request.folder.encoding
        if encoding == "labelme":
            return labelme.read_label(pair.label, self._names)
        if encoding == "label_studio":
            return label_studio.read_label(pair, self._names)
        if encoding == "coco":
            found = coco_json.open_annotations(pair.label)
            return found.instances(pair.index, self._names)
        if encoding == "panoptic":
            found = coco_json.open_annotations(pair.label)
            return found.panoptic(pair.index, pair.others[0], self._names)
        data = images.read_bytes(pair.label)
        if encoding == "colours":
            colours = images.decode_colours(data, str(pair.label))
            return self._numbers(colours, str(pair.label))
        return images.decode_label(data, str(pair.label))

    @functools.cached_property
    def _names(self) -> Names:
        names = [name for name in self._classes if name != IGNORE]
        ids = {name: number for number, name in enumerate(names)}
        return Names(ids, self.request.folder.classes)

    def _numbers(
        self, colours: npt.NDArray[np.uint8], where: str
    ) -> npt.NDArray[np.uint8]:
        """uint8 [H,W,3] RGB -> uint8 [H,W]: place in the list, 255 = ignore."""
        packed = colours.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        found, inverse = np.unique(packed, return_inverse=True)
        unknown = [int(c) for c in found if int(c) not in self._number_of]
        if unknown:
            shown = listed([str(_unpacked(c)) for c in unknown], 5)
            raise DataError(
                "unknown_colours",
                f"label {where} has colours that {self.request.folder.classes} does "
                f"not list: {shown}; list them, or those that do not count "
                f"under the name {IGNORE!r}",
            )
        numbers = np.array([self._number_of[int(c)] for c in found], np.uint8)
        return numbers[inverse].reshape(packed.shape)

    @functools.cached_property
    def _number_of(self) -> dict[int, int]:
        numbers, next_number = {}, 0
        for name, colour in self._classes.items():
            if colour is None:
                raise UserError(
                    f"{self.request.folder.classes}: {name!r} has no colour, which "
                    "config.data.folder.encoding='colours' needs: write it as "
                    f"{name} 128 64 128"
                )
            number = IGNORE_LABEL if name == IGNORE else next_number
            numbers[_packed(colour)] = number
            next_number += name != IGNORE
        return numbers


def _class_file(folder: pathlib.Path, classes: str) -> pathlib.Path:
    """The list of classes, or CVAT's in the place of it."""
    file, cvats = folder / classes, folder / "labelmap.txt"
    return cvats if not file.exists() and cvats.exists() else file


def _packed(colour: Colour) -> int:
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def _unpacked(packed: int) -> Colour:
    return packed >> 16, packed >> 8 & 255, packed & 255
