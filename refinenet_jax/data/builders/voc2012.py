"""PASCAL VOC 2012 segmentation, and the further labels of SBD (train_aug)."""

import io
import pathlib

import numpy as np
import numpy.typing as npt
import scipy.io

from refinenet_jax.data import images
from refinenet_jax.data.builders.archives import Files
from refinenet_jax.data.builders.examples import FilesBuilder, Pair, read_names
from refinenet_jax.data.builders.pairing import named_pairs
from refinenet_jax.data.class_table import RawLabel
from refinenet_jax.data.images import DataError


class Voc2012(FilesBuilder):
    """Writes the splits train and val, and sbd where SBD lies beside the devkit.

    sbd holds the images of SBD's train.txt and val.txt that are neither in VOC's
    train nor in its val: with all of SBD 9,118, which makes 10,582 together with
    train.
    """

    name = "voc2012"

    def find_pairs(self, files: Files) -> dict[str, list[Pair]]:
        """Finds VOC2012 and SBD; see `FilesBuilder`."""
        voc = files.need("VOCdevkit/VOC2012/ImageSets/Segmentation").parents[1]
        splits = {split: _voc_pairs(voc, split) for split in ("train", "val")}
        sbd = files.find("benchmark_RELEASE/dataset")
        if sbd is not None:
            known = {pair.name for pairs in splits.values() for pair in pairs}
            splits["sbd"] = _sbd_pairs(sbd, known)
        return splits

    def read_label(self, pair: Pair) -> RawLabel:
        """Reads a palette PNG of VOC or a .mat of SBD: uint8 [H,W]."""
        if pair.label.suffix == ".mat":
            return _read_mat(pair.label)
        return super().read_label(pair)


def _voc_pairs(voc: pathlib.Path, split: str) -> list[Pair]:
    names = read_names(voc / "ImageSets" / "Segmentation" / f"{split}.txt")
    return named_pairs(names, voc / "JPEGImages", voc / "SegmentationClass", ".png")


def _sbd_pairs(sbd: pathlib.Path, known: set[str]) -> list[Pair]:
    names = read_names(sbd / "train.txt") + read_names(sbd / "val.txt")
    wanted = [name for name in names if name not in known]
    return named_pairs(wanted, sbd / "img", sbd / "cls", ".mat")


def _read_mat(path: pathlib.Path) -> npt.NDArray[np.uint8]:
    """GTcls.Segmentation of an SBD file (MATLAB v5): uint8 [H,W], no ignored pixel."""
    content = io.BytesIO(images.read_bytes(path))
    try:
        segmentation = scipy.io.loadmat(content)["GTcls"]["Segmentation"][0, 0]
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise DataError(
            "damaged",
            f"label {path} cannot be decoded: no MATLAB v5 file with "
            "GTcls.Segmentation",
        ) from error
    return np.ascontiguousarray(segmentation, dtype=np.uint8)
