"""Pairs images with labels that lie in folders of their own and share names."""

import pathlib
from collections.abc import Iterable, Mapping

from refinenet_jax.data.builders.examples import Pair
from refinenet_jax.data.images import DataError


def files_by_name(
    folder: pathlib.Path, pattern: str, suffix: str
) -> dict[str, pathlib.Path]:
    """The files in a folder by their name without a suffix.

    Args:
      folder: where to look.
      pattern: of the paths below it, such as "*/*.png".
      suffix: the end of each file's name.

    Raises:
      DataError: there is none.
    """
    found = {
        path.name.removesuffix(suffix): path for path in sorted(folder.glob(pattern))
    }
    if not found:
        raise DataError("missing", f"{folder} holds no {pattern}")
    return found


def named_pairs(
    names: Iterable[str], images: pathlib.Path, labels: pathlib.Path, ending: str
) -> list[Pair]:
    """NAME.jpg in one folder with NAME and an ending, such as ".png", in the other."""
    return [Pair(n, images / f"{n}.jpg", labels / f"{n}{ending}") for n in names]


def pairs_by_name(
    images: Mapping[str, pathlib.Path], labels: Mapping[str, pathlib.Path]
) -> list[Pair]:
    """The pairs of all names.

    Raises:
      DataError: an image lacks its label, or a label its image.
    """
    for given, others, kind in (
        (images, labels, "label"),
        (labels, images, "image"),
    ):
        alone = sorted(set(given) - set(others))
        if alone:
            raise DataError(
                "missing",
                f"{given[alone[0]]} has no {kind} ({len(alone)} such files): is the "
                "data set complete?",
            )
    return [Pair(name=name, image=images[name], label=labels[name]) for name in images]
