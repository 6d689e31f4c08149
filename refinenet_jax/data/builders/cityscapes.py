"""Cityscapes with fine labels, 19 classes."""

from refinenet_jax.data.builders.archives import Files
from refinenet_jax.data.builders.examples import FilesBuilder, Pair
from refinenet_jax.data.builders.pairing import files_by_name, pairs_by_name

_IMAGE = "_leftImg8bit.png"
_LABEL = "_gtFine_labelIds.png"


class Cityscapes(FilesBuilder):
    """Writes the splits train and val; the published labels of test are empty.

    Labels are read from the labelIds files, as they are in the authors' archive: their
    trainIds files have to be generated first and hold nothing more.
    """

    name = "cityscapes"

    def find_pairs(self, files: Files) -> dict[str, list[Pair]]:
        """Pairs the files of all cities, by <city>_<sequence>_<frame>."""
        return {split: _pairs(files, split) for split in ("train", "val")}


def _pairs(files: Files, split: str) -> list[Pair]:
    images = files.need(f"leftImg8bit/{split}")
    labels = files.need(f"gtFine/{split}")
    return pairs_by_name(
        files_by_name(images, f"*/*{_IMAGE}", _IMAGE),
        files_by_name(labels, f"*/*{_LABEL}", _LABEL),
    )
