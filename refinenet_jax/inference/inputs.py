"""The pictures and videos that a person hands in."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
from etils import epath

from refinenet_jax import files
from refinenet_jax.data import images
from refinenet_jax.errors import UserError
from refinenet_jax.inference import video

# uint8 [H,W,3] RGB, the path of an image file, or an image of Pillow's.
Picture = np.ndarray | str | os.PathLike[str] | PIL.Image.Image

_KNOWN = images.SUFFIXES + video.SUFFIXES


def pixels_of(picture: Any) -> np.ndarray:
    """A `Picture` → uint8 [H,W,3] RGB, turned upright as its EXIF orientation asks.

    Raises:
        UserError: a file or an image of Pillow's cannot be read.
        ValueError: it is no picture, or an array of another dtype or shape.
    """
    if isinstance(picture, str | os.PathLike):
        return images.read_image(picture)
    if isinstance(picture, PIL.Image.Image):
        return images.from_pillow(picture)
    is_array = isinstance(picture, np.ndarray)
    if (
        is_array
        and picture.dtype == np.uint8
        and picture.ndim == 3
        and picture.shape[2] == 3
        and 0 not in picture.shape
    ):
        return picture
    found = (
        f"{picture.dtype} {list(picture.shape)}" if is_array else type(picture).__name__
    )
    raise ValueError(
        f"an image is uint8 [H,W,3] RGB, a path or a Pillow image, this is {found}"
    )


def find_inputs(patterns: Sequence[str]) -> list[epath.Path]:
    """The images and videos that files, folders and globs stand for, in order.

    Raises:
        UserError: a pattern stands for none, or two files have the same name.
    """
    if not patterns:
        raise UserError("--mode=predict needs --images=FILE, FOLDER or 'GLOB'")
    paths: dict[epath.Path, None] = {}
    for pattern in patterns:
        named = files.path(pattern)
        found = [named] if named.exists() else files.matching(pattern)
        inputs = [file for path in found for file in _inputs_in(path)]
        if not inputs:
            raise UserError(
                f"--images={pattern}: no image there and no video; "
                f"known endings: {', '.join(_KNOWN)}"
            )
        paths |= dict.fromkeys(inputs)
    names: dict[str, epath.Path] = {}
    for path in paths:
        other = names.setdefault(path.stem, path)
        if other != path:
            raise UserError(
                f"{other} and {path} would be written to the same name: predict them "
                "in two runs with different --workdir, or rename one"
            )
    return list(paths)


def _inputs_in(path: epath.Path) -> list[epath.Path]:
    """A file that was named is taken whatever its ending; of a folder, what is known."""
    if not files.is_folder(path):
        return [path]
    return sorted(p for p in path.iterdir() if p.suffix.lower() in _KNOWN)


def is_video(path: epath.Path) -> bool:
    """By its ending."""
    return path.suffix.lower() in video.SUFFIXES
