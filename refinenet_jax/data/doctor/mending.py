"""Writes a copy of a person's own folder in which what can be mended is."""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from refinenet_jax import files
from refinenet_jax.data import images
from refinenet_jax.data.builders.examples import FilesBuilder, Pair, RawExample
from refinenet_jax.data.datasets import builder
from refinenet_jax.data.doctor.diagnosis import values_of
from refinenet_jax.data.doctor.encodings import better_reading
from refinenet_jax.data.doctor.survey import Survey
from refinenet_jax.data.images import DataError
from refinenet_jax.data.picture_kind import RGB, PictureKind
from refinenet_jax.data.request import Request
from refinenet_jax.errors import UserError
from refinenet_jax.labels import IGNORE_LABEL
from refinenet_jax.pictures import encode

_HEIC = (".heic", ".heif")  # which `read` has written anew
_NEARLY = 0.02  # by which two ratios of width to height may differ


@dataclasses.dataclass(frozen=True)
class Mended:
    """What was written.

    Attributes:
      pairs: how many.
      done: what was mended -> in how many labels or images.
      left_out: what could not be, in a line each.
    """

    pairs: int
    done: Mapping[str, int]
    left_out: Sequence[str]


def better_request(surveys: Sequence[Survey], request: Request) -> Request:
    """The way to read the labels that leaves fewest of them unexplained.

    Each other way is tried on what was counted, or on the files, before it is taken.
    """
    kinds = {fault.kind for survey in surveys for fault in survey.faults}
    values = values_of(surveys, request)
    changes: list[dict[str, Any]] = []
    if request.folder.encoding == "ids":
        binary = values is not None and values.all <= {0, IGNORE_LABEL}
        if binary or "colours_for_ids" in kinds:
            changes.append({"encoding": "colours"})
        reading = None if values is None else better_reading(values)
        if reading is not None:
            changes.append({"offset": reading[0], "ignore": reading[1]})
    for change in changes:
        tried = dataclasses.replace(
            request, folder=dataclasses.replace(request.folder, **change)
        )
        if _reads_as_much(tried, request):
            return tried
    return request


def _reads_as_much(tried: Request, before: Request) -> bool:
    """Whether no fewer of the first labels of each split make sense."""

    def readable(request: Request) -> int:
        try:
            found = builder(request)
            assert isinstance(found, FilesBuilder)
            splits = found.locate()
            return sum(
                _makes_sense(found, pair) for ps in splits.values() for pair in ps[:8]
            )
        except UserError:
            return 0

    return readable(tried) >= max(readable(before), 1)


def _makes_sense(found: FilesBuilder, pair: Pair) -> bool:
    try:
        raw = found.read_label(pair)
        ids = found.class_table.to_class_ids(raw, str(pair.label))
    except UserError:
        return False
    return bool((ids != IGNORE_LABEL).any())


def write_mended(
    request: Request,
    names: Sequence[str],
    target: epath.Path,
    was: Request,
    on_image: Callable[[], None],
) -> Mended:
    """Writes images/SPLIT/, labels/SPLIT/ and classes.txt; whole or not at all.

    Args:
      request: how the labels are read.
      names: of the splits.
      target: a folder that does not exist.
      was: how a person read them.
      on_image: called after each.

    Raises:
      UserError: the target exists, lies in the folder that is mended or cannot be
        written to, or nothing in it can be read.
    """
    found = builder(request)
    assert isinstance(found, FilesBuilder)
    _refuse_target(target, request)
    splits = {name: pairs for name, pairs in found.locate().items() if name in names}
    partial = target.with_name(f".{target.name}.partial")
    files.remove_folder(partial)
    try:
        mended = _write(found, splits, partial, on_image)
        if not mended.pairs:
            raise UserError(
                f"nothing of {request.manual_dir} can be mended: "
                + (mended.left_out[0] if mended.left_out else "it has no image")
            )
        files.rename_folder(partial, target)
    except OSError as error:
        raise UserError(f"--fix={target} cannot be written: {error}") from error
    finally:
        files.remove_folder(partial)
    return dataclasses.replace(
        mended, done={**_reading(request, was, mended.pairs), **mended.done}
    )


def _refuse_target(target: epath.Path, request: Request) -> None:
    folder = os.path.realpath(request.manual_dir)
    if os.path.commonpath([folder, os.path.realpath(target)]) == folder:
        raise UserError(
            f"--fix={target} lies in config.data.manual_dir, where nothing is changed: "
            "name a folder elsewhere"
        )
    if target.exists():
        raise UserError(f"--fix={target} is there already: name a new folder")


def _write(
    found: FilesBuilder,
    splits: Mapping[str, Sequence[Pair]],
    folder: epath.Path,
    on_image: Callable[[], None],
) -> Mended:
    done: Counter[str] = Counter()
    left_out: list[str] = []
    number = 0
    for split, pairs in splits.items():
        for pair in pairs:
            try:
                example, resized = _read(found, pair)
                label = found.class_table.to_class_ids(example.raw, str(pair.label))
            except UserError as error:
                left_out.append(str(error))
                on_image()
                continue
            ending = pair.image.suffix
            if example.turned or ending.lower() in _HEIC:
                ending = ".png" if PictureKind.of(example.image) == RGB else ".npy"
            image = folder / "images" / split / f"{pair.name}{ending}"
            files.write_bytes(image, example.encoded)
            path = folder / "labels" / split / f"{pair.name}.png"
            files.write_bytes(path, encode(label, "PNG"))
            number += 1
            done["labels resized to their images"] += resized
            done["photographs set upright"] += example.turned
            done["labels turned with them"] += example.label_turned
            on_image()
    table = found.class_table
    lines = [
        f"{name} {red} {green} {blue}"
        for name, (red, green, blue) in zip(
            table.class_names, table.palette, strict=True
        )
    ]
    files.write_bytes(folder / "classes.txt", ("\n".join(lines) + "\n").encode())
    return Mended(
        number, {what: count for what, count in done.items() if count}, left_out
    )


def _read(found: FilesBuilder, pair: Pair) -> tuple[RawExample, bool]:
    """A pair, and whether its label had to be resized."""
    try:
        return found.read(pair), False
    except DataError as error:
        if error.kind != "size_mismatch":
            raise
        encoded = found.read_image(pair)
        image = images.decode_picture(encoded, str(pair.image), found.pictures)
        if images.orientation(encoded) != 1:
            raise
        raw = found.read_label(pair)
        height, width = image.shape[:2]
        ratio = (raw.shape[1] * height) / (raw.shape[0] * width)
        if abs(ratio - 1) > _NEARLY:
            raise
        # The pixel whose centre is nearest, as cv2.INTER_NEAREST_EXACT.
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(np.intp)
            for new, old in zip((height, width), raw.shape, strict=True)
        )
        resized = np.ascontiguousarray(raw[rows][:, columns])
        return RawExample(pair, encoded, image, resized, turned=False), True


def _reading(request: Request, was: Request, pairs: int) -> dict[str, int]:
    """What is another way to read the labels, as `Mended.done` has it."""
    now, before = request.folder, was.folder
    told = [
        f"config.data.folder.{name}={getattr(now, name)!r}"
        for name in ("encoding", "offset", "ignore")
        if getattr(now, name) != getattr(before, name)
    ]
    if told:
        return {f"labels read with {' and '.join(told)}": pairs}
    if now.encoding != "ids":
        return {f"labels of {now.encoding} written as class ids": pairs}
    if now.offset or now.ignore != (IGNORE_LABEL,):
        return {"labels written as class ids from 0 on": pairs}
    return {}
