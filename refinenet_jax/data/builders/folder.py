"""A person's own folder of images and labels."""

import functools
import hashlib
import pathlib
import re

import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds

from refinenet_jax.data import images
from refinenet_jax.data.builders.archives import Files
from refinenet_jax.data.builders.examples import FilesBuilder, Pair, manual_folder
from refinenet_jax.data.class_table import ClassTable, RawLabel, of_ids
from refinenet_jax.data.images import DataError
from refinenet_jax.data.request import Request
from refinenet_jax.errors import UserError, listed
from refinenet_jax.files import files_below
from refinenet_jax.labels import IGNORE_LABEL

# A JPEG is no label either, but is told so when it is read.
_LABELS = (".png", ".bmp", ".gif", ".jpeg", ".jpg", ".tif", ".tiff")
_LAYOUTS = (
    "images/ and labels/ with train.txt and val.txt, which list names; or "
    "images/train/, labels/train/, images/val/, labels/val/; or train/images/, "
    "train/labels/, val/images/, val/labels/"
)
_LONGEST_LINE = 500  # characters of a line of classes.txt
_IGNORE = "ignore"  # names the colour of pixels that do not count


class Folder(FilesBuilder):
    """Writes the splits that the folder has; see the README for the layouts.

    Raises:
      UserError: the request names no folder, or one without a list of classes.
    """

    name = "folder"

    def __init__(self, request: Request) -> None:
        if not request.manual_dir:
            raise UserError(
                "config.data.manual_dir is empty: name the folder with your images/ "
                "and labels/"
            )
        folder = manual_folder(request.manual_dir)
        self._classes = _read_classes(folder / request.folder.classes)
        # Another folder, or another way to read it, is another data set.
        identity = f"{folder} {request.folder} {self._classes}"
        key = hashlib.sha256(identity.encode()).hexdigest()[:12]
        name = re.sub(r"[^a-zA-Z0-9_]", "_", folder.name)
        config = tfds.core.BuilderConfig(name=f"{name}_{key}")
        super().__init__(request, config=config)

    @property
    def class_table(self) -> ClassTable:
        """Names and colours from the folder's list, values as the request says."""
        names = tuple(name for name in self._classes if name != _IGNORE)
        palette = tuple(
            self._classes[name] or _distinct_colour(index)
            for index, name in enumerate(names)
        )
        labels = self.request.folder
        if labels.encoding == "colours":
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
        """Finds the splits in any of the three layouts; see `FilesBuilder`."""
        folder = manual_folder(self.request.manual_dir)
        suffix = self.request.folder.suffix
        all_images, all_labels = folder / "images", folder / "labels"
        classes = folder / self.request.folder.classes
        lists = [p for p in sorted(folder.glob("*.txt")) if p != classes]
        if all_images.is_dir() and lists:
            return {
                path.stem: _listed_pairs(path, all_images, all_labels, suffix)
                for path in lists
            }
        found = {
            path.name: (path, all_labels / path.name)
            for path in _folders_in(all_images)
        } or {
            path.name: (path / "images", path / "labels")
            for path in _folders_in(folder)
            if (path / "images").is_dir()
        }
        if not found:
            raise UserError(
                f"config.data.manual_dir={str(folder)!r} has no split; expected "
                f"{_LAYOUTS}"
            )
        return {
            split: _pairs(_by_stem(image_dir, images.SUFFIXES), label_dir, suffix)
            for split, (image_dir, label_dir) in found.items()
        }

    def read_label(self, pair: Pair) -> RawLabel:
        """Reads ids, or colours as the numbers of their classes."""
        data = images.read_bytes(pair.label)
        if self.request.folder.encoding == "colours":
            colours = images.decode_colours(data, str(pair.label))
            return self._numbers(colours, str(pair.label))
        return images.decode_label(data, str(pair.label))

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
                f"under the name {_IGNORE!r}",
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
            number = IGNORE_LABEL if name == _IGNORE else next_number
            numbers[_packed(colour)] = number
            next_number += name != _IGNORE
        return numbers


_Colour = tuple[int, int, int]


def _read_classes(path: pathlib.Path) -> dict[str, _Colour | None]:
    """Names in order, each with its colour where it has one.

    A line is `name`, or `name red green blue` with spaces, commas, colons or tabs
    between.

    Raises:
      UserError: the file is missing, lists too few or too many, or has a line that is
        neither.
    """
    if not path.exists():
        raise UserError(
            f"{path} is missing: write the name of one class on each line, in the "
            "order of their ids"
        )
    classes: dict[str, _Colour | None] = {}
    for line in images.read_lines(path):
        if not line.strip() or line.startswith("#"):
            continue
        if len(line) > _LONGEST_LINE:
            raise UserError(
                f"{path}: line {line[:20]!r}... has {len(line)} characters; a class is "
                f"told in at most {_LONGEST_LINE}"
            )
        match = re.fullmatch(
            r"(.*?)[\s,:]+(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})[\s,:]*", line.strip()
        )
        name = match[1] if match else line.strip()
        colour = (int(match[2]), int(match[3]), int(match[4])) if match else None
        if not name or name in classes or (colour and max(colour) > 255):
            raise UserError(
                f"{path}: line {line!r} is no new class; expected a name, or a name "
                "and three numbers 0..255"
            )
        classes[name] = colour
    number = len(classes.keys() - {_IGNORE})
    if number < 2:
        raise UserError(f"{path} lists fewer than two classes")
    if number > IGNORE_LABEL:
        raise UserError(
            f"{path} lists {number} classes; there can be {IGNORE_LABEL}, as class ids "
            f"have 8 bits and {IGNORE_LABEL} are pixels that do not count: merge some"
        )
    return classes


def _folders_in(path: pathlib.Path) -> list[pathlib.Path]:
    if not path.is_dir():
        return []
    return sorted(p for p in path.iterdir() if p.is_dir())


def _listed_pairs(
    split_list: pathlib.Path,
    image_dir: pathlib.Path,
    label_dir: pathlib.Path,
    suffix: str,
) -> list[Pair]:
    """The pairs of the names in a list, with or without the ending of the image."""
    by_stem = _by_stem(image_dir, images.SUFFIXES)
    wanted: dict[str, pathlib.Path] = {}
    for line in images.read_lines(split_list):
        name = line.strip()
        if not name:
            continue
        path = pathlib.PurePosixPath(name)
        stem = str(path.with_suffix("") if path.name else path)  # of "." it is empty
        key = name if name in by_stem else stem
        if key not in by_stem:
            raise DataError(
                "missing", f"{split_list} lists {name}, which {image_dir} does not hold"
            )
        wanted[key] = by_stem[key]
    return _pairs(wanted, label_dir, suffix)


def _pairs(
    image_by_stem: dict[str, pathlib.Path], label_dir: pathlib.Path, suffix: str
) -> list[Pair]:
    if not image_by_stem:
        raise UserError(
            f"there are no images for {label_dir}; known endings: "
            f"{', '.join(images.SUFFIXES)}"
        )
    labels = _by_stem(label_dir, _LABELS)
    pairs = []
    for stem, image in image_by_stem.items():
        if stem + suffix not in labels:
            raise DataError(
                "missing",
                f"{image} has no label: expected {label_dir / (stem + suffix)}.png",
            )
        pairs.append(Pair(name=stem, image=image, label=labels[stem + suffix]))
    return pairs


def _by_stem(
    folder: pathlib.Path, suffixes: tuple[str, ...]
) -> dict[str, pathlib.Path]:
    """Files in a folder and the folders in it, by their path without the ending."""
    found: dict[str, pathlib.Path] = {}
    for path in files_below(folder):
        if path.suffix.lower() in suffixes:
            stem = path.relative_to(folder).with_suffix("").as_posix()
            if stem in found:
                raise UserError(f"{found[stem]} and {path} differ in their ending only")
            found[stem] = path
    return found


def _packed(colour: _Colour) -> int:
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def _unpacked(packed: int) -> _Colour:
    return packed >> 16, packed >> 8 & 255, packed & 255


def _distinct_colour(index: int) -> _Colour:
    """The VOC devkit's colour map: bits of the index spread over the three channels."""
    red = green = blue = 0
    for shift in range(7, -1, -1):
        red |= (index & 1) << shift
        green |= (index >> 1 & 1) << shift
        blue |= (index >> 2 & 1) << shift
        index >>= 3
    return red, green, blue
