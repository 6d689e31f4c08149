"""PASCAL-Context: VOC 2010 images with 59 classes, with and without background."""

from refinenet_jax.data.builders.archives import Files
from refinenet_jax.data.builders.examples import FilesBuilder, Pair, read_names
from refinenet_jax.data.builders.matlab import read_variable, to_raw_label
from refinenet_jax.data.builders.pairing import named_pairs
from refinenet_jax.data.class_table import RawLabel

_VOC = "VOCdevkit/VOC2010"


class PascalContext(FilesBuilder):
    """Writes the splits train and val of VOC 2010's main task.

    Labels are the authors' 459 classes; all that are none of the 59 count as
    background.
    """

    name = "pascal_context"

    def find_pairs(self, files: Files) -> dict[str, list[Pair]]:
        """Pairs VOC 2010's images with the label maps; see `FilesBuilder`."""
        images = files.need(f"{_VOC}/JPEGImages")
        labels = files.need("trainval")
        return {
            split: named_pairs(
                read_names(files.need(f"{_VOC}/ImageSets/Main/{split}.txt")),
                images,
                labels,
                ".mat",
            )
            for split in ("train", "val")
        }

    def read_label(self, pair: Pair) -> RawLabel:
        """Reads LabelMap of a .mat: uint16 [H,W]."""
        return to_raw_label(read_variable(pair.label, "LabelMap"), str(pair.label))


class PascalContext59(PascalContext):
    """The same pictures; background does not count."""

    name = "pascal_context_59"
