"""PASCAL Person-Part: VOC 2010 images of people, six parts and background."""

import pathlib

from refinenet_jax.data.builders.archives import Files
from refinenet_jax.data.builders.examples import FilesBuilder, Pair, read_names
from refinenet_jax.data.builders.pairing import named_pairs

_ROOT = "pascal_person_part"


class PersonPart(FilesBuilder):
    """Writes the splits train and val."""

    name = "person_part"

    def find_pairs(self, files: Files) -> dict[str, list[Pair]]:
        """Pairs VOC 2010's images with the part maps; see `FilesBuilder`."""
        images = files.need("VOCdevkit/VOC2010/JPEGImages")
        labels = files.need(f"{_ROOT}/{_ROOT}_gt")
        lists = files.need(f"{_ROOT}/{_ROOT}_trainval_list")
        return {
            split: named_pairs(_names(lists, split), images, labels, ".png")
            for split in ("train", "val")
        }


def _names(lists: pathlib.Path, split: str) -> list[str]:
    """Names from train.txt, of image and label paths, or else from train_id.txt."""
    path = lists / f"{split}.txt"
    bare = lists / f"{split}_id.txt"
    if bare.is_file() and not path.is_file():
        path = bare
    return [pathlib.PurePosixPath(word).stem for word in read_names(path)]
