"""COCO-Stuff, 171 classes: the 10k set (version 1.1) and the whole of COCO 2017."""

import pathlib

from refinenet_jax.data.builders.archives import Files
from refinenet_jax.data.builders.examples import FilesBuilder, Pair, read_names
from refinenet_jax.data.builders.matlab import read_variable, to_raw_label
from refinenet_jax.data.builders.pairing import (
    files_by_name,
    named_pairs,
    pairs_by_name,
)
from refinenet_jax.data.class_table import RawLabel

# It holds train2017/ and val2017/ as the archives of the images do, so that its table
# names no folder and it is asked for by its own name.
_LABELS = "stuffthingmaps_trainval2017.zip"
# Where people unpack it; "" is where the images are.
_LABEL_FOLDERS = (
    "annotations/",
    "stuffthingmaps/",
    "stuffthingmaps_trainval2017/",
    "",
)


class CocoStuff10k(FilesBuilder):
    """Writes the splits train and test."""

    name = "coco_stuff_10k"

    def find_pairs(self, files: Files) -> dict[str, list[Pair]]:
        """Pairs images/ with annotations/ by imageLists/; see `FilesBuilder`."""
        images = files.need("images")
        labels = files.need("annotations")
        return {
            split: named_pairs(
                read_names(files.need(f"imageLists/{split}.txt")),
                images,
                labels,
                ".mat",
            )
            for split in ("train", "test")
        }

    def read_label(self, pair: Pair) -> RawLabel:
        """Reads S of a .mat: uint16 [H,W], 0 for unlabelled and 1..182."""
        return to_raw_label(read_variable(pair.label, "S"), str(pair.label))


class CocoStuff164k(FilesBuilder):
    """Writes the splits train and val: COCO's train2017 and val2017."""

    name = "coco_stuff_164k"

    def find_pairs(self, files: Files) -> dict[str, list[Pair]]:
        """Pairs the images with the label maps; see `FilesBuilder`."""
        return {split: _pairs(files, f"{split}2017") for split in ("train", "val")}


def _pairs(files: Files, folder: str) -> list[Pair]:
    images = files.find(f"images/{folder}") or files.need(folder)
    # Other programs leave files such as 000000000009_labelTrainIds.png beside them.
    return pairs_by_name(
        files_by_name(images, "*.jpg", ".jpg"),
        files_by_name(_label_folder(files, folder), "*[0-9].png", ".png"),
    )


def _label_folder(files: Files, folder: str) -> pathlib.Path:
    for place in _LABEL_FOLDERS:
        found = files.find(f"{place}{folder}")
        if found is not None and any(found.glob("*.png")):
            return found
    return files.need(folder, within=_LABELS)
