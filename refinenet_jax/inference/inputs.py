"""The pictures and videos that a person names on the command line."""

import glob
from collections.abc import Sequence
from pathlib import Path

from refinenet_jax.data import images
from refinenet_jax.errors import UserError
from refinenet_jax.inference import video

_KNOWN = images.SUFFIXES + video.SUFFIXES


def find_inputs(patterns: Sequence[str]) -> list[Path]:
    """The images and videos that files, folders and globs stand for, in order.

    Raises:
        UserError: a pattern stands for none, or two files have the same name.
    """
    if not patterns:
        raise UserError("--mode=predict needs --images=FILE, FOLDER or 'GLOB'")
    paths: dict[Path, None] = {}
    for pattern in patterns:
        found = [Path(pattern)] if Path(pattern).exists() else []
        found = found or [Path(name) for name in sorted(glob.glob(pattern))]
        inputs = [file for path in found for file in _inputs_in(path)]
        if not inputs:
            raise UserError(
                f"--images={pattern}: no image there and no video; "
                f"known endings: {', '.join(_KNOWN)}"
            )
        paths |= dict.fromkeys(inputs)
    names: dict[str, Path] = {}
    for path in paths:
        other = names.setdefault(path.stem, path)
        if other != path:
            raise UserError(
                f"{other} and {path} would be written to the same name: predict them "
                "in two runs with different --workdir, or rename one"
            )
    return list(paths)


def _inputs_in(path: Path) -> list[Path]:
    """A file that was named is taken whatever its ending; of a folder, what is known."""
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.iterdir() if p.suffix.lower() in _KNOWN)


def is_video(path: Path) -> bool:
    """By its ending."""
    return path.suffix.lower() in video.SUFFIXES
