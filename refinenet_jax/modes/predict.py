"""Mode predict: class maps and overlays of a person's own images."""

import glob
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from refinenet_jax import files, log
from refinenet_jax.data.images import read_image
from refinenet_jax.errors import UserError
from refinenet_jax.inference import draw
from refinenet_jax.segmenter import Segmenter

_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def run(config: ConfigDict, workdir: Path, patterns: Sequence[str]) -> None:
    """Writes predictions/NAME.png, NAME_overlay.jpg and summary.json.

    patterns: files, folders or globs. An image that cannot be read stops nothing: it is
    counted, and named when the others are done. Of several processes the first works.

    Raises:
        UserError: no image to predict, no checkpoint, or images that cannot be read.
    """
    if jax.process_index() != 0:
        return
    paths = find_images(patterns)
    segmenter = Segmenter.from_checkpoint(workdir, config.eval.checkpoint)
    folder = workdir / "predictions"
    start = time.monotonic()
    failed = []
    with log.progress("predicting", len(paths)) as on_image:
        for path in paths:
            try:
                image = read_image(path)
            except UserError as error:
                failed.append(str(error))
            else:
                _write(folder / path.stem, image, segmenter)
            on_image()
    seconds = time.monotonic() - start
    summary = {
        "images": len(paths) - len(failed),
        "failed": len(failed),
        "compilations": segmenter.compilations,
        "seconds": seconds,
    }
    files.write_json(folder / "summary.json", summary)
    log.say(
        f"{summary['images']} images in {log.duration(seconds)}; "
        f"pictures are in {folder}"
    )
    if failed:
        raise UserError(f"left out {len(failed)} of {len(paths)}: {'; '.join(failed)}")


def find_images(patterns: Sequence[str]) -> list[Path]:
    """The image files that files, folders and globs stand for, in order.

    Raises:
        UserError: a pattern stands for none, or two files have the same name.
    """
    if not patterns:
        raise UserError("--mode=predict needs --images=FILE, FOLDER or 'GLOB'")
    paths: dict[Path, None] = {}
    for pattern in patterns:
        found = [Path(pattern)] if Path(pattern).exists() else []
        found = found or [Path(name) for name in sorted(glob.glob(pattern))]
        images = [image for path in found for image in _images_in(path)]
        if not images:
            raise UserError(
                f"--images={pattern}: no image there; "
                f"known endings: {', '.join(_SUFFIXES)}"
            )
        paths |= dict.fromkeys(images)
    names: dict[str, Path] = {}
    for path in paths:
        other = names.setdefault(path.stem, path)
        if other != path:
            raise UserError(
                f"{other} and {path} would be written to the same name: predict them "
                "in two runs with different --workdir, or rename one"
            )
    return list(paths)


def _images_in(path: Path) -> list[Path]:
    """A file that was named is taken whatever its ending; of a folder, the images."""
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES)


def _write(target: Path, image: np.ndarray, segmenter: Segmenter) -> None:
    label = segmenter.predict(image)
    palette = segmenter.palette
    png = target.with_name(f"{target.name}.png")
    files.write_bytes(png, draw.palette_png(label, palette))
    overlay = draw.overlay(image, label, palette)
    files.write_bytes(
        target.with_name(f"{target.name}_overlay.jpg"), draw.encode(overlay, "JPEG")
    )
