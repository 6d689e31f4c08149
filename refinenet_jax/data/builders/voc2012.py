"""PASCAL VOC 2012 segmentation, and the further labels of SBD (train_aug)."""

import pathlib

import numpy as np
import numpy.typing as npt
import scipy.io
import tensorflow_datasets as tfds

from refinenet_jax.data.builders import archives
from refinenet_jax.data.builders.examples import FilesBuilder, Pair, read_names
from refinenet_jax.errors import UserError

ARCHIVE = "VOCtrainval_11-May-2012.tar"
ARCHIVE_URL = f"http://host.robots.ox.ac.uk/pascal/VOC/voc2012/{ARCHIVE}"
SBD_ARCHIVE = "benchmark.tgz"


class Voc2012(FilesBuilder):
    """Writes the splits train and val, and sbd where SBD lies beside the devkit.

    sbd holds the images of SBD's train.txt and val.txt that are neither in VOC's
    train nor in its val: with all of SBD 9,118, which makes 10,582 together with
    train.
    """

    name = "voc2012"

    def download(self, downloads: tfds.download.DownloadManager) -> pathlib.Path:
        """Downloads the devkit (2.0 GB) and unpacks it; see `FilesBuilder`."""
        archive = pathlib.Path(downloads.download(ARCHIVE_URL))
        return archives.unpack(archive, self.unpack_dir)

    def find_pairs(self, folder: pathlib.Path) -> dict[str, list[Pair]]:
        """Finds VOC2012 and SBD in or above a folder; see `FilesBuilder`."""
        voc = self._find_voc(folder)
        splits = {split: _voc_pairs(voc, split) for split in ("train", "val")}
        sbd = self._find_sbd([folder, voc.parent, voc.parent.parent])
        if sbd is not None:
            known = {pair.name for pairs in splits.values() for pair in pairs}
            splits["sbd"] = _sbd_pairs(sbd, known)
        return splits

    def read_label(self, path: pathlib.Path) -> npt.NDArray[np.uint8]:
        """Reads a palette PNG of VOC or a .mat of SBD: uint8 [H,W]."""
        return _read_mat(path) if path.suffix == ".mat" else super().read_label(path)

    def _find_voc(self, folder: pathlib.Path) -> pathlib.Path:
        found = _devkit_in(folder)
        if found is None and (folder / ARCHIVE).is_file():
            found = _devkit_in(archives.unpack(folder / ARCHIVE, self.unpack_dir))
        if found is None:
            raise UserError(
                f"config.data.manual_dir={str(folder)!r} does not hold VOC 2012: "
                f"expected VOCdevkit/VOC2012/ with JPEGImages/, SegmentationClass/ "
                f"and ImageSets/Segmentation/, or {ARCHIVE}"
            )
        return found

    def _find_sbd(self, folders: list[pathlib.Path]) -> pathlib.Path | None:
        for folder in folders:
            if (folder / "benchmark_RELEASE").is_dir():
                return folder / "benchmark_RELEASE" / "dataset"
            if (folder / SBD_ARCHIVE).is_file():
                unpacked = archives.unpack(folder / SBD_ARCHIVE, self.unpack_dir)
                return unpacked / "benchmark_RELEASE" / "dataset"
        return None


def _devkit_in(folder: pathlib.Path) -> pathlib.Path | None:
    for voc in (folder / "VOCdevkit" / "VOC2012", folder / "VOC2012", folder):
        if (voc / "ImageSets" / "Segmentation").is_dir():
            return voc
    return None


def _voc_pairs(voc: pathlib.Path, split: str) -> list[Pair]:
    names = read_names(voc / "ImageSets" / "Segmentation" / f"{split}.txt")
    return [
        Pair(
            name=name,
            image=voc / "JPEGImages" / f"{name}.jpg",
            label=voc / "SegmentationClass" / f"{name}.png",
        )
        for name in names
    ]


def _sbd_pairs(sbd: pathlib.Path, known: set[str]) -> list[Pair]:
    names = read_names(sbd / "train.txt") + read_names(sbd / "val.txt")
    return [
        Pair(
            name=name,
            image=sbd / "img" / f"{name}.jpg",
            label=sbd / "cls" / f"{name}.mat",
        )
        for name in names
        if name not in known
    ]


def _read_mat(path: pathlib.Path) -> npt.NDArray[np.uint8]:
    """GTcls.Segmentation of an SBD file (MATLAB v5): uint8 [H,W], no ignored pixel."""
    try:
        segmentation = scipy.io.loadmat(path)["GTcls"]["Segmentation"][0, 0]
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise UserError(
            f"label {path} cannot be decoded: no MATLAB v5 file with GTcls.Segmentation"
        ) from error
    return np.ascontiguousarray(segmentation, dtype=np.uint8)
