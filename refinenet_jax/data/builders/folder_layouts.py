"""Which images and labels of a person's own folder belong together, and to which split."""

import hashlib
import pathlib
from collections import Counter
from collections.abc import Collection, Mapping
from typing import TypeVar

from refinenet_jax import files
from refinenet_jax.data import images
from refinenet_jax.data.builders.examples import Pair
from refinenet_jax.data.images import DataError
from refinenet_jax.data.request import FolderLabels
from refinenet_jax.errors import UserError, listed
from refinenet_jax.files import files_below

LAYOUTS = (
    "images/ and labels/, with train.txt and val.txt that list names or without; or "
    "images/train/, labels/train/, images/val/, labels/val/; or train/images/, "
    "train/labels/, val/images/, val/labels/"
)
DRAWN = "# Drawn by seed"  # begins a list that no person wrote
# A JPEG is no label either, but is told so when it is read.
_MASKS = (".png", ".bmp", ".gif", ".jpeg", ".jpg", ".tif", ".tiff")
_ENDINGS = {"labelme": (".json",)}
_LISTS = (".", "ImageSets/Segmentation")  # the second is CVAT's
_UNDIVIDED = "default"  # CVAT's name of all there is

_Member = TypeVar("_Member")

Splits = dict[str, list[Pair]]


def find_splits(folder: pathlib.Path, labels: FolderLabels) -> Splits:
    """The pairs of each split of a folder whose labels are a file for each image.

    Raises:
      UserError: there is neither list nor folder of a split, and no image.
      DataError: an image or a label is missing.
    """
    all_images, all_labels = _folders(folder, labels)
    lists = lists_in(folder, labels.classes)
    if lists:
        pictures = by_stem(all_images, images.SUFFIXES)
        splits = {
            path.stem: _pairs(chosen(path, pictures, all_images), all_labels, labels)
            for path in lists
        }
        if list(splits) == [_UNDIVIDED]:
            members = {pair.name: pair for pair in splits[_UNDIVIDED]}
            return divide(folder, members, labels)
        return splits
    found = {
        path.name: (path, all_labels / path.name) for path in _folders_in(all_images)
    } or {
        path.name: (path / "images", path / "labels")
        for path in _folders_in(folder)
        if (path / "images").is_dir()
    }
    if found:
        return {
            split: _pairs(by_stem(here, images.SUFFIXES), label_dir, labels)
            for split, (here, label_dir) in found.items()
        }
    pictures = by_stem(all_images, images.SUFFIXES)
    if not pictures:
        raise UserError(
            f"config.data.manual_dir={str(folder)!r} has no split; expected {LAYOUTS}"
            f"{_other_pictures(folder)}"
        )
    pairs = _pairs(pictures, all_labels, labels)
    return divide(folder, {pair.name: pair for pair in pairs}, labels)


def lists_in(folder: pathlib.Path, classes: str) -> list[pathlib.Path]:
    """The lists of names, one for each split."""
    for place in _LISTS:
        found = sorted((folder / place).glob("*.txt"))
        found = [
            path
            for path in found
            if path != folder / classes and path.name != "labelmap.txt"
        ]
        if found:
            return found
    return []


def chosen(
    split_list: pathlib.Path, members: Mapping[str, _Member], where: pathlib.Path
) -> dict[str, _Member]:
    """What a list names, with or without the ending of the image."""
    wanted: dict[str, _Member] = {}
    for line in images.read_lines(split_list):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        path = pathlib.PurePosixPath(name)
        stem = str(path.with_suffix("") if path.name else path)  # of "." it is empty
        key = name if name in members else stem
        if key not in members:
            raise DataError(
                "missing",
                f"{split_list} lists {name}, which {where} does not hold"
                f"{_other_pictures(where, key)}",
            )
        wanted[key] = members[key]
    return wanted


def divide(
    folder: pathlib.Path, members: Mapping[str, Pair], labels: FolderLabels
) -> Splits:
    """Splits train and val by seed, written down so that they stay.

    Raises:
      UserError: there are fewer than two, or the lists cannot be written.
    """
    if len(members) < 2:
        raise UserError(
            f"{folder} has {len(members)} labelled images: two are needed, one to train "
            "and one to evaluate on"
        )

    def drawn(name: str) -> bytes:
        return hashlib.sha256(f"{labels.split_seed} {name}".encode()).digest()

    order = sorted(members, key=drawn)
    held_out = min(max(round(labels.val_share * len(order)), 1), len(order) - 1)
    names = {"train": sorted(order[held_out:]), "val": sorted(order[:held_out])}
    for split, chosen_names in names.items():
        head = (
            f"{DRAWN} {labels.split_seed}, as there was no list: {len(chosen_names)} of "
            f"{len(order)}."
        )
        text = "\n".join([head, *chosen_names]) + "\n"
        files.write_bytes(folder / f"{split}.txt", text.encode())
    return {split: [members[name] for name in each] for split, each in names.items()}


def drawn_by_seed(folder: pathlib.Path) -> str:
    """What there is to say where `divide` made the lists, else ""."""
    path = folder / "train.txt"
    if not path.is_file():
        return ""
    head, *_ = [*images.read_lines(path), ""]
    if not head.startswith(DRAWN):
        return ""
    seed = head.removeprefix(DRAWN).split(",")[0].strip()
    return (
        f"nothing says which images are to train and which to evaluate on: they were "
        f"drawn by seed {seed} and written into {path} and val.txt"
    )


def _folders(
    folder: pathlib.Path, labels: FolderLabels
) -> tuple[pathlib.Path, pathlib.Path]:
    """Where all images are, and all labels."""
    if (
        labels.encoding == "labelme"
    ):  # which puts both into one folder, whatever its name
        here = folder / "images" if (folder / "images").is_dir() else folder
        return here, folder / "labels" if (folder / "labels").is_dir() else here
    if (folder / "SegmentationClass").is_dir():  # CVAT's, after VOC's
        return folder / "JPEGImages", folder / "SegmentationClass"
    return folder / "images", folder / "labels"


def _folders_in(path: pathlib.Path) -> list[pathlib.Path]:
    if not path.is_dir():
        return []
    return sorted(p for p in path.iterdir() if p.is_dir())


def _pairs(
    imageby_stem: Mapping[str, pathlib.Path],
    label_dir: pathlib.Path,
    labels: FolderLabels,
) -> list[Pair]:
    if not imageby_stem:
        raise UserError(
            f"there are no images for {label_dir}; known endings: "
            f"{', '.join(images.SUFFIXES)}"
        )
    endings = _ENDINGS.get(labels.encoding, _MASKS)
    found = by_stem(label_dir, endings)
    if not found and labels.encoding in _ENDINGS:  # beside the images
        beside = next(iter(imageby_stem.values())).parent
        found = by_stem(beside, endings)
    pairs = []
    for stem, image in imageby_stem.items():
        if stem + labels.suffix not in found:
            raise DataError(
                "missing",
                f"{image} has no label: expected "
                f"{label_dir / (stem + labels.suffix)}{endings[0]}"
                f"{_hint(imageby_stem, label_dir, labels)}",
            )
        pairs.append(Pair(name=stem, image=image, label=found[stem + labels.suffix]))
    return pairs


def _hint(stems: Collection[str], label_dir: pathlib.Path, labels: FolderLabels) -> str:
    """A setting with which every image has a label, if there is one."""
    if labels.encoding not in _ENDINGS:
        drawn = by_stem(label_dir, (".json",))
        if drawn and all(stem in drawn for stem in stems):
            return "; there is a JSON for each: set config.data.folder.encoding=labelme"
    found = by_stem(label_dir, _ENDINGS.get(labels.encoding, _MASKS))
    first = next(iter(stems))
    suffixes = [name[len(first) :] for name in found if name.startswith(first)]
    for suffix in sorted(suffixes, key=len):
        if suffix != labels.suffix and all(stem + suffix in found for stem in stems):
            return f"; set config.data.folder.suffix={suffix!r}, which all labels have"
    return ""


def _other_pictures(where: pathlib.Path, stem: str = "") -> str:
    """What else there is in a folder, or of a name, that may be the pictures."""
    known = (*images.SUFFIXES, ".txt", ".json", ".xml", "")
    others = Counter(
        path.suffix.lower()
        for path in files_below(where)
        if path.suffix.lower() not in known and stem in ("", path.stem)
    )
    if not others:
        return ""
    shown = listed([f"{n} {ending}" for ending, n in others.most_common()], 3)
    return f"; there are {shown}: save them as JPEG or PNG"


def by_stem(folder: pathlib.Path, suffixes: Collection[str]) -> dict[str, pathlib.Path]:
    """Files in a folder and the folders in it, by their path without the ending.

    Raises:
      UserError: two differ in the ending only.
    """
    found: dict[str, pathlib.Path] = {}
    for path in files_below(folder):
        if path.suffix.lower() in suffixes:
            stem = path.relative_to(folder).with_suffix("").as_posix()
            if stem in found:
                raise UserError(f"{found[stem]} and {path} differ in their ending only")
            found[stem] = path
    return found
