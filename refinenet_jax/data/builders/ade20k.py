"""ADE20K as in the scene parsing benchmark (SceneParse150): 150 classes."""

from refinenet_jax.data.builders.archives import Files
from refinenet_jax.data.builders.examples import FilesBuilder, Pair
from refinenet_jax.data.builders.pairing import files_by_name, pairs_by_name

_ROOT = "ADEChallengeData2016"


class Ade20k(FilesBuilder):
    """Writes the splits train and val, the folders training and validation."""

    name = "ade20k"

    def find_pairs(self, files: Files) -> dict[str, list[Pair]]:
        """Pairs images/ with annotations/; see `FilesBuilder`."""
        return {
            "train": _pairs(files, "training"),
            "val": _pairs(files, "validation"),
        }


def _pairs(files: Files, folder: str) -> list[Pair]:
    images = files.need(f"{_ROOT}/images/{folder}")
    labels = files.need(f"{_ROOT}/annotations/{folder}")
    return pairs_by_name(
        files_by_name(images, "*.jpg", ".jpg"), files_by_name(labels, "*.png", ".png")
    )
