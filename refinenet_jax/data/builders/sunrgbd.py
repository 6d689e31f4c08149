"""SUN RGB-D, the colour pictures with 37 classes."""

import pathlib

from refinenet_jax.data.builders.archives import Files
from refinenet_jax.data.builders.examples import FilesBuilder, Pair
from refinenet_jax.data.builders.matlab import open_hdf5, read_variable, to_raw_label
from refinenet_jax.data.class_table import RawLabel
from refinenet_jax.data.images import DataError

_TOOLBOX = "SUNRGBDtoolbox"


class SunRgbd(FilesBuilder):
    """Writes the splits train and test of the authors' allsplit.mat.

    A picture's name is the path of its scene, with _ for /.
    """

    name = "sunrgbd"

    def find_pairs(self, files: Files) -> dict[str, list[Pair]]:
        """Pairs SUNRGBD/ with the toolbox's label maps; see `FilesBuilder`."""
        meta = files.need(f"{_TOOLBOX}/Metadata/SUNRGBDMeta.mat")
        labels = files.need(f"{_TOOLBOX}/Metadata/SUNRGBD2Dseg.mat")
        lists = files.need(f"{_TOOLBOX}/traintestSUNRGBD/allsplit.mat")
        root = files.need("SUNRGBD")
        pictures = _paths(meta, "SUNRGBDMeta", "rgbpath")
        # <scene>/image/<file>, in the order of the label maps.
        places = {path.parents[1]: place for place, path in enumerate(pictures)}
        splits: dict[str, list[Pair]] = {}
        for split in ("train", "test"):
            splits[split] = []
            for scene in _paths(lists, f"all{split}"):
                if scene not in places:
                    raise DataError(
                        "missing", f"{lists} lists {scene}, which {meta} does not have"
                    )
                place = places[scene]
                name = "_".join(scene.parts)
                splits[split].append(Pair(name, root / pictures[place], labels, place))
        return splits

    def read_label(self, pair: Pair) -> RawLabel:
        """Reads one map of SUNRGBD2Dseg.seglabel, [W,H] each: values 0..37."""
        with open_hdf5(pair.label) as file:
            reference = file["SUNRGBD2Dseg"]["seglabel"][pair.index, 0]
            values = file[reference][()]
        return to_raw_label(values.T, f"{pair.name} in {pair.label}")


def _paths(
    path: pathlib.Path, variable: str, field: str = ""
) -> list[pathlib.PurePosixPath]:
    """Paths below SUNRGBD/ of a cell array, or of a field of a struct array.

    They begin with the folders of the authors' own machine.
    """
    values = read_variable(path, variable)
    try:
        texts = [cell.item() for cell in (values[field] if field else values).flat]
        below = [text.split("/SUNRGBD/")[1] for text in texts]
    except (AttributeError, IndexError, ValueError) as error:
        raise DataError(
            "damaged", f"{path} cannot be decoded: {variable} {field} holds no paths"
        ) from error
    return [pathlib.PurePosixPath(text) for text in below]
