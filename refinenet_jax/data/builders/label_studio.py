"""Labels as Label Studio exports them: a PNG for each brush, and a JSON of the tasks."""

import pathlib
import re
from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet_jax.data import images
from refinenet_jax.data.builders.drawn import Names, empty_label, not_of_kind
from refinenet_jax.data.builders.examples import Pair
from refinenet_jax.data.builders.folder_layouts import (
    Splits,
    by_stem,
    chosen,
    divide,
    lists_in,
)
from refinenet_jax.data.images import DataError
from refinenet_jax.data.request import FolderLabels
from refinenet_jax.errors import UserError

_KIND = "Label Studio"
_MASK = re.compile(r"task-(\d+)-annotation-(\d+)-by-.+?-tag-(.+)-\d+\.png")
_UPLOAD = re.compile(r"[0-9a-f]{8}-")  # what an upload has before its name
_PAINTED = 128  # of 255, from which a pixel is


def find_splits(folder: pathlib.Path, labels: FolderLabels) -> Splits:
    """The pairs of the tasks that have masks; images are in images/.

    Raises:
      UserError: there is no JSON, or there are several.
      DataError: it is something else, or an image is missing.
    """
    found = sorted(folder.glob("*.json"))
    if len(found) != 1:
        raise UserError(
            f"config.data.manual_dir={str(folder)!r} has {len(found)} JSON files; "
            "expected one, the tasks as Label Studio exports them"
        )
    masks: dict[int, list[pathlib.Path]] = defaultdict(list)
    for path in sorted(folder.glob("labels/*.png")):
        if match := _MASK.fullmatch(path.name):
            masks[int(match[1])].append(path)
    pictures = by_stem(folder / "images", images.SUFFIXES)
    pairs = {}
    for task, file in _files(found[0]).items():
        stem = pathlib.PurePosixPath(file).stem
        name = next(
            (n for n in (stem, _UPLOAD.sub("", stem, count=1)) if n in pictures), None
        )
        if name is None:
            raise DataError(
                "missing",
                f"{found[0]} lists {file}, which {folder}/images does not hold",
            )
        if task in masks:
            pairs[name] = Pair(name, pictures[name], found[0], task, tuple(masks[task]))
    if not pairs:
        raise UserError(
            f"{folder}/labels has no mask of the tasks of {found[0].name}: export "
            "'Brush labels to PNG' there"
        )
    lists = lists_in(folder, labels.classes)
    if lists:
        return {p.stem: list(chosen(p, pairs, found[0]).values()) for p in lists}
    return divide(folder, pairs, labels)


def _files(path: pathlib.Path) -> dict[int, str]:
    """The image of each task."""
    try:
        tasks: Any = images.read_json(path)
        return {int(t["id"]): str(t.get("data", t)["image"]) for t in tasks}
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise not_of_kind(path, _KIND, "it is no list of tasks with images") from error


def read_label(pair: Pair, names: Names) -> npt.NDArray[np.uint8]:
    """The masks of a task over each other, those of its newest annotation.

    Returns:
      uint8 [H,W] class ids, 255 = ignore; see `Names.unlabelled`.

    Raises:
      DataError: a mask has another size than the first, or a class that is not listed.
    """
    found = [(path, _MASK.fullmatch(path.name)) for path in pair.others]
    newest = max(int(match[2]) for _, match in found if match)
    label: npt.NDArray[np.uint8] | None = None
    for path, match in found:
        if not match or int(match[2]) != newest:
            continue
        painted = images.decode_label(images.read_bytes(path), str(path)) >= _PAINTED
        if label is None:
            height, width = painted.shape
            label = empty_label(height, width, names.unlabelled, str(path))
        if label.shape != painted.shape:
            raise DataError(
                "size_mismatch", f"{path} has another size than {pair.others[0]}"
            )
        label[painted] = names.id_of(match[3], str(path))
    assert label is not None
    return label
