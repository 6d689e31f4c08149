"""NYU Depth Dataset V2, the labelled pictures with 40 classes."""

from refinenet_jax.data.builders.archives import Files
from refinenet_jax.data.builders.examples import FilesBuilder, Pair
from refinenet_jax.data.builders.matlab import open_hdf5, to_raw_label
from refinenet_jax.data.class_table import RawLabel, read_table
from refinenet_jax.pictures import encode_photo


class NyuDv2(FilesBuilder):
    """Writes the splits train and test of the authors' splits.mat.

    Pictures are whole, 640x480, with the white border that some authors cut off. Their
    names are their numbers in the file, from 0001.
    """

    name = "nyudv2"

    def find_pairs(self, files: Files) -> dict[str, list[Pair]]:
        """The pictures of both splits, all in one file; see `FilesBuilder`."""
        path = files.need("nyu_depth_v2_labeled.mat")
        return {
            split: [Pair(f"{number:04d}", path, path, number - 1) for number in numbers]
            for split, numbers in read_table(self.name)["split_numbers"].items()
        }

    def read_image(self, pair: Pair) -> bytes:
        """Reads one picture of images, uint8 [N,3,W,H], as a PNG."""
        with open_hdf5(pair.image) as file:
            picture = file["images"][pair.index]
        return encode_photo(picture.transpose(2, 1, 0))

    def read_label(self, pair: Pair) -> RawLabel:
        """Reads one map of labels, uint16 [N,W,H]: values 0..894."""
        with open_hdf5(pair.label) as file:
            values = file["labels"][pair.index]
        return to_raw_label(values.T, f"{pair.name} in {pair.label}")
