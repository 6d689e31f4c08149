"""The pictures and videos that a person hands in."""

import contextlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
from etils import epath

from refinenet_jax import files
from refinenet_jax.data import images
from refinenet_jax.data.picture_kind import RGB, PictureKind
from refinenet_jax.errors import UserError
from refinenet_jax.inference import video
from refinenet_jax.models import Architecture

# An array [H,W,C], the path of an image file, or an image of Pillow's.
Picture = np.ndarray | str | os.PathLike[str] | PIL.Image.Image

_KNOWN = images.SUFFIXES + video.SUFFIXES


def kind_of(architecture: Architecture) -> PictureKind:
    """The pictures that a network sees."""
    return PictureKind(architecture.channels, architecture.picture_dtype)


def pixels_of(picture: Any, kind: PictureKind = RGB) -> np.ndarray:
    """A `Picture` → [H,W,C] of a kind, turned upright as its EXIF orientation asks.

    kind: of the network; one of Pillow's own must be RGB or grey, and grey arrays may
        lack the axis of channels.

    Raises:
        UserError: a file or an image of Pillow's cannot be read, or is of another kind.
        ValueError: it is no picture, or an array of another dtype or shape.
    """
    if isinstance(picture, str | os.PathLike):
        return images.read_image(picture, kind)
    if isinstance(picture, PIL.Image.Image):
        return images.from_pillow(picture, kind)
    is_array = isinstance(picture, np.ndarray)
    if is_array and picture.ndim == 2 and kind.channels == 1:
        picture = picture[..., np.newaxis]
    if (
        is_array
        and picture.ndim == 3
        and 0 not in picture.shape
        and PictureKind.of(picture) == kind
    ):
        return picture
    found = (
        f"{picture.dtype} {list(picture.shape)}" if is_array else type(picture).__name__
    )
    wanted = f"{kind.dtype} [H,W,{kind.channels}]" + " RGB" * (kind == RGB)
    raise ValueError(f"an image is {wanted}, a path or a Pillow image, this is {found}")


def read_picture(
    path: epath.Path, kind: PictureKind, *, not_finite: str
) -> tuple[np.ndarray, bool]:
    """As `pixels_of`, and whether transparency was dropped.

    not_finite: "refuse" or "ignore" NaN and infinity.

    Raises:
        DataError: the file cannot be read, is of another kind, or holds what is no
            finite number and is not to.
    """
    data, name = images.read_bytes(path), os.fspath(path)
    decoded = images.decode_picture(data, name, kind)
    pixels = images.turn_upright(decoded, images.orientation(data))
    if not_finite == "refuse" and pixels.dtype.kind == "f":
        bad = int(np.count_nonzero(~np.isfinite(pixels).all(axis=2)))
        if bad:
            raise images.DataError(
                "not_finite",
                f"image {name} has {bad} pixels that are NaN or infinite: set "
                "config.data.not_finite='ignore' to have the mean seen there",
            )
    with contextlib.suppress(images.DataError):  # what OpenCV alone can read
        return pixels, images.read_header(data, name).has_alpha
    return pixels, False


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
