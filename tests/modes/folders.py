"""Folders that people have: broken ones with what mends them, and good ones."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from tests import own_folder
from tests.own_folder import border, grey, palette, rgb

LISTED = own_folder.with_colours(own_folder.CLASSES, own_folder.COLOURS)
TWO = own_folder.with_colours(
    ("background", "object"), np.array([(0, 0, 0), (255, 255, 255)])
)


def jpeg(path, label):
    Image.fromarray(60 * label).save(path, "JPEG")


def shades_of_palette(path, label):
    picture = Image.fromarray(label)
    picture.putpalette(own_folder.vocs_palette().tobytes())
    picture.convert("RGB").convert("L").save(path)


def soft(path, label):
    """Shrunk and enlarged as photographs are."""
    small = cv2.resize(border(label), (28, 20), interpolation=cv2.INTER_AREA)
    grey(path, cv2.resize(small, (56, 40), interpolation=cv2.INTER_LINEAR))


def soft_colours(path, label):
    colours = cv2.GaussianBlur(own_folder.COLOURS[label], (3, 3), 0)
    Image.fromarray(colours).save(path)


def narrow(path, label):
    grey(path, label[:, :-1])


def first_is_void(label):
    """Ids from 1, with pixels of value 0 around."""
    label = label + 1
    label[:2] = 0
    return label


def mostly_ignored(label):
    """Two pixels are left, of two classes."""
    almost = np.full_like(label, 255)
    almost[0, 0], almost[-1, 0] = label[0, 0], label[-1, 0]
    return almost


def damage(folder: Path):
    label = folder / "labels/train/train1.png"
    label.write_bytes(label.read_bytes()[:40])


def copy_to_val(folder: Path):
    shutil.copy(folder / "images/train/train0.png", folder / "images/val/val0.png")


def take_away(folder: Path):
    (folder / "labels/val/val1.png").unlink()


@dataclass
class Case:
    """A broken folder: how it is written and read, and what mends it."""

    says: str  # part of the message: the remedy
    write: own_folder.Write = grey
    change: Callable[[np.ndarray], np.ndarray] = np.array
    classes: str = "\n".join(own_folder.CLASSES)
    spoil: Callable[[Path], None] | None = None
    fields: dict[str, object] | None = None
    remedy: dict[str, object] | None = None  # settings; None: other files


CASES = {
    "shifted_up": Case(
        "config.data.folder.offset=-1",
        change=lambda label: label + 1,
        remedy={"offset": -1},
    ),
    "zero_is_void": Case(
        "config.data.folder.offset=-1", change=first_is_void, remedy={"offset": -1}
    ),
    "zero_is_background": Case(
        "config.data.folder.offset=0", fields={"offset": -1}, remedy={"offset": 0}
    ),
    "ignore_not_declared": Case(
        "config.data.folder.ignore=(255,)",
        change=border,
        fields={"ignore": ()},
        remedy={"ignore": (255,)},
    ),
    "unknown_values": Case(
        "config.data.folder.ignore",
        change=lambda label: np.where(border(label) == 255, 9, label).astype(np.uint8),
        remedy={"ignore": (255, 9)},
    ),
    "colours_for_ids": Case(
        "config.data.folder.encoding='colours'",
        write=rgb,
        classes=LISTED,
        remedy={"encoding": "colours"},
    ),
    "binary_mask": Case(
        "config.data.folder.encoding='colours'",
        change=lambda label: np.where(label == 2, 255, 0).astype(np.uint8),
        classes=TWO,
        remedy={"encoding": "colours"},
    ),
    "damaged": Case(
        "config.data.damaged='skip'", spoil=damage, remedy={"damaged": "skip"}
    ),
    "palette_as_grey": Case("the original palette files", write=shades_of_palette),
    "interpolated": Case("nearest neighbour", write=soft),
    "jpeg_label": Case("save it as a PNG from the original", write=jpeg),
    "unknown_colours": Case(
        "does not list",
        write=soft_colours,
        classes=LISTED,
        fields={"encoding": "colours"},
    ),
    "size_mismatch": Case("nearest neighbour", write=narrow),
    "missing": Case("expected", spoil=take_away),
    "duplicate_across_splits": Case("in one of them only", spoil=copy_to_val),
    "one_class": Case("nothing to learn", change=np.zeros_like),
    "no_label_at_all": Case(
        "is config.data.folder right?", change=lambda x: np.full_like(x, 255)
    ),
    "near_empty": Case("label them or leave them out", change=mostly_ignored),
}


def turned_photos(folder: Path):
    """The images as a camera on its side stores them."""
    for path in folder.glob("images/*/*.png"):
        exif = Image.Exif()
        exif[0x0112] = 6
        picture = Image.open(path)
        picture.rotate(90, expand=True).save(path.with_suffix(".jpg"), exif=exif)
        path.unlink()


GOOD = {
    "ids": Case(""),
    "ids with a border": Case("", change=border),
    "palette": Case("", write=palette, change=border),
    "colours": Case("", write=rgb, classes=LISTED, fields={"encoding": "colours"}),
    "void is 0": Case("", change=first_is_void, fields={"offset": -1}),
    "masks": Case(
        "",
        change=lambda label: np.where(label == 2, 255, 0).astype(np.uint8),
        classes=TWO,
        fields={"encoding": "colours"},
    ),
    "photos on their side": Case("", spoil=turned_photos),
}
