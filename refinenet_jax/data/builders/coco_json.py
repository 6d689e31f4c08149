"""Labels in COCO's JSON: instances as polygons and RLE, and panoptic segments."""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet_jax import files
from refinenet_jax.data import images
from refinenet_jax.data.builders.drawn import (
    Names,
    corners,
    empty_label,
    not_of_kind,
    read_json,
)
from refinenet_jax.data.builders.examples import Pair
from refinenet_jax.data.builders.folder_layouts import (
    Splits,
    chosen,
    divide,
    lists_in,
)
from refinenet_jax.data.images import DataError
from refinenet_jax.data.request import FolderLabels
from refinenet_jax.errors import UserError

_KIND = "COCO"
_PREFIXES = ("instances_", "panoptic_")


class Annotations:
    """A JSON of COCO's, by image.

    Attributes:
      path: the file.
      images: its images by number.
      categories: name by number.
    """

    def __init__(self, path: pathlib.Path) -> None:
        """Reads a file.

        Raises:
          DataError: it is something else.
        """
        found = read_json(path, _KIND)
        self.path = path
        self._of_image: dict[Any, list[dict[str, Any]]] = {}
        try:
            self.images = {each["id"]: each for each in found["images"]}
            self.categories = {c["id"]: c["name"] for c in found["categories"]}
            for each in found["annotations"]:
                self._of_image.setdefault(each["image_id"], []).append(each)
        except (KeyError, TypeError) as error:
            raise not_of_kind(path, _KIND, f"it lacks {error}") from error

    def category(self, number: object, names: Names) -> int:
        """The class id of a category.

        Raises:
          DataError: the file or the list of classes does not have it.
        """
        if number not in self.categories:
            raise DataError(
                "unknown_category",
                f"{self.path} has an annotation of category {number!r}, which is none "
                "of its categories",
            )
        return names.id_of(self.categories[number], str(self.path))

    def instances(self, image: int, names: Names) -> npt.NDArray[np.uint8]:
        """Draws the objects of an image, small ones over large ones.

        Returns:
          uint8 [H,W] class ids, 255 = ignore; see `Names.unlabelled`.
        """
        about = self.images[image]
        where = f"{self.path}, image {about.get('file_name')!r}"
        label = empty_label(
            about.get("height"), about.get("width"), names.unlabelled, where
        )
        areas = [
            (
                self.category(each.get("category_id"), names),
                _area(each.get("segmentation"), label.shape, where),
            )
            for each in self._of_image.get(image, [])
        ]
        for class_id, area in sorted(areas, key=lambda found: -int(found[1].sum())):
            label[area] = class_id
        return label

    def segments_file(self, image: int) -> str:
        """The name of the PNG with the segments of an image."""
        name = self._panoptic(image).get("file_name")
        if not isinstance(name, str):
            raise not_of_kind(self.path, "COCO panoptic", "an annotation has no PNG")
        return name

    def panoptic(
        self, image: int, file: pathlib.Path, names: Names
    ) -> npt.NDArray[np.uint8]:
        """The classes of the segments that a PNG numbers by its colours.

        Returns:
          uint8 [H,W] class ids, 255 = ignore; see `Names.unlabelled`.
        """
        try:
            about = self._panoptic(image)["segments_info"]
            segments = {s["id"]: s["category_id"] for s in about}
        except (KeyError, TypeError) as error:
            raise not_of_kind(
                self.path, "COCO panoptic", f"it lacks {error}"
            ) from error
        colours = images.decode_colours(images.read_bytes(file), str(file))
        numbers = colours.astype(np.uint32) @ np.array([1, 1 << 8, 1 << 16], np.uint32)
        found, inverse = np.unique(numbers, return_inverse=True)
        ids = [
            names.unlabelled if n == 0 else self._segment(int(n), segments, file, names)
            for n in found
        ]
        return np.array(ids, np.uint8)[inverse].reshape(numbers.shape)

    def _panoptic(self, image: int) -> dict[str, Any]:
        found = self._of_image.get(image, [])
        if len(found) != 1:
            raise not_of_kind(
                self.path,
                "COCO panoptic",
                f"image {image} has {len(found)} annotations",
            )
        return found[0]

    def _segment(
        self,
        number: int,
        segments: Mapping[int, int],
        file: pathlib.Path,
        names: Names,
    ) -> int:
        if number not in segments:
            raise DataError(
                "unknown_category", f"{file} has segment {number}, not in {self.path}"
            )
        return self.category(segments[number], names)


@functools.lru_cache(maxsize=8)
def _read_once(path: pathlib.Path, state: files.State) -> Annotations:
    del state  # with another one it is read anew
    return Annotations(path)


def open_annotations(path: pathlib.Path) -> Annotations:
    """The content of a file, which is read once while it does not change.

    Raises:
      DataError: it is missing, or something else.
    """
    try:
        return _read_once(path, files.states([path])[path])
    except OSError as error:
        raise DataError(
            "missing", f"{path} cannot be read: {files.reason(error)}"
        ) from error


def find_splits(folder: pathlib.Path, labels: FolderLabels) -> Splits:
    """A split for each JSON, or those that lists make, or by seed, of a single one.

    The JSONs are in the folder or in annotations/; a split is called as its file
    without instances_ and panoptic_. Images are in images/, images/SPLIT/ or SPLIT/.

    Raises:
      UserError: there is no JSON.
      DataError: an image is missing.
    """
    found = sorted(folder.glob("annotations/*.json")) or sorted(folder.glob("*.json"))
    if labels.encoding == "panoptic":
        found = [p for p in found if not p.name.startswith("instances_")]
    else:
        found = [p for p in found if not p.name.startswith("panoptic_")]
    if not found:
        raise UserError(
            f"config.data.manual_dir={str(folder)!r} has no JSON of COCO, in it or in "
            "annotations/"
        )
    segments = labels.encoding == "panoptic"
    splits = {_split(path): _pairs(folder, path, segments) for path in found}
    if len(splits) > 1:
        return {split: list(pairs.values()) for split, pairs in splits.items()}
    [members] = splits.values()
    lists = lists_in(folder, labels.classes)
    if lists:
        return {
            path.stem: list(chosen(path, members, found[0]).values()) for path in lists
        }
    return divide(folder, members, labels)


def _segments_folder(path: pathlib.Path) -> pathlib.Path:
    """Where the PNGs of a panoptic JSON are: under its name, or in panoptic/."""
    named = path.with_suffix("")
    places = [named, path.parent / "panoptic", path.parents[1] / "panoptic"]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise DataError("missing", f"{path} has no folder of PNGs; expected {named}/")
    return found


def _split(path: pathlib.Path) -> str:
    name = path.stem
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _pairs(folder: pathlib.Path, path: pathlib.Path, segments: bool) -> dict[str, Pair]:
    split = _split(path)
    places = [folder / "images", folder / "images" / split, folder / split, folder]
    pairs: dict[str, Pair] = {}
    for number, about in open_annotations(path).images.items():
        file = about.get("file_name") if isinstance(about, dict) else None
        if not isinstance(file, str) or not isinstance(number, int):
            raise not_of_kind(path, _KIND, "an image lacks file_name or a number")
        image = next((p / file for p in places if (p / file).is_file()), None)
        if image is None:
            raise DataError(
                "missing", f"{path} lists {file}, which {places[0]} does not hold"
            )
        name = pathlib.PurePosixPath(file).with_suffix("").as_posix()
        others: tuple[pathlib.Path, ...] = ()
        if segments:
            file = open_annotations(path).segments_file(number)
            others = (_segments_folder(path) / file,)
        pairs[name] = Pair(name, image, path, number, others)
    return pairs


def _area(given: object, size: Sequence[int], where: str) -> npt.NDArray[np.bool_]:
    """Of polygons or an RLE: bool [H,W]."""
    if isinstance(given, dict):
        return _unrolled(given, size, where)
    if not isinstance(given, list) or not given:
        raise DataError("no_area", f"{where} has an object without a segmentation")
    try:
        from pycocotools import mask
    except ImportError as error:
        raise UserError(
            "polygons of COCO need pycocotools: pip install 'refinenet_jax[coco]'"
        ) from error
    rings = [np.ravel(corners(ring, size, where)).tolist() for ring in given]
    if any(len(ring) < 6 for ring in rings):
        raise DataError("no_area", f"{where} has a polygon of fewer than three points")
    encoded = mask.frPyObjects(rings, size[0], size[1])
    return mask.decode(mask.merge(encoded)).astype(np.bool_)


def _unrolled(
    given: dict[str, Any], size: Sequence[int], where: str
) -> npt.NDArray[np.bool_]:
    """Runs of 0 and 1 in turn, down the columns."""
    counts = given.get("counts")
    runs = _decompressed(counts) if isinstance(counts, str) else counts
    wrong = DataError("other_json", f"{where} has an RLE that is not of its size")
    try:
        lengths = np.asarray(runs, np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise wrong from error
    if lengths.ndim != 1 or np.any(lengths < 0) or lengths.sum() != size[0] * size[1]:
        raise wrong
    values = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return values.reshape(size[1], size[0]).T


def _decompressed(text: str) -> list[int]:
    """COCO's own form of run lengths: five bits a character, as differences."""
    runs: list[int] = []
    value = shift = 0
    for character in text.encode():
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs
