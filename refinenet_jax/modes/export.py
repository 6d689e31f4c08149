"""Mode export: a checkpoint of ours becomes files for other programs."""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from refinenet_jax import files, log
from refinenet_jax.assembly.data import open_request, request_of
from refinenet_jax.checkpoints.metadata import Metadata
from refinenet_jax.data.builders.examples import FilesBuilder
from refinenet_jax.data.datasets import builder
from refinenet_jax.data.images import read_image
from refinenet_jax.data.mixture import decode
from refinenet_jax.data.picture_kind import RGB, PictureKind
from refinenet_jax.data.request import Request
from refinenet_jax.data.transforms.channels import by_channels
from refinenet_jax.errors import UserError
from refinenet_jax.inference import onnx_programs, programs
from refinenet_jax.inference.inputs import find_inputs
from refinenet_jax.inference.programs import Program, Runner
from refinenet_jax.inference.protocol import Shape
from refinenet_jax.provenance import provenance
from refinenet_jax.segmenter import Segmenter

_NUM_PICTURES = 8  # of the data set, where --images names none
# Sums in another order turn the class of pixels where two classes all but tie, of which
# bfloat16 has many: one pixel in a thousand between any two programs of it.
_LEAST_AGREEMENT = {"float32": 0.999, "bfloat16": 0.99}


@dataclasses.dataclass(frozen=True)
class _Format:
    """A form that a program is written in.

    Attributes:
        encode: the program, its height and width, what goes along as text and the kind
            of the pictures → the content of the file.
        load: opens the file in the runtime that it is for.
    """

    encode: Callable[[Program, Shape, dict[str, str], PictureKind], bytes]
    load: Callable[[epath.Path], Runner]


_FORMATS = {
    "stablehlo": _Format(
        lambda program, size, _, kind: programs.to_stablehlo(program, size, kind),
        programs.load_stablehlo,
    ),
    "onnx": _Format(onnx_programs.to_onnx, onnx_programs.load_onnx),
}


def run(config: ConfigDict, workdir: epath.Path, patterns: Sequence[str]) -> None:
    """Writes the files of config.export.formats and export.json into export/.

    patterns: as mode predict takes them: the pictures that each program is tried on
    before its file appears; without any, the first ones of the config's evaluation
    split, which is not downloaded for that: without pictures only the weights are
    written. Of several processes the first works.

    Raises:
        UserError: no checkpoint or one that cannot be read, no pictures where nothing
            but programs is asked for, a package that is missing, or a program that
            gives other classes than the network.
    """
    formats = [name for name in config.export.formats if name in _FORMATS]
    weights = "safetensors" in config.export.formats
    if "onnx" in formats:
        _check_onnx(config)
    paths = find_inputs(patterns) if patterns else []
    folder = workdir / "export"
    kind: PictureKind | None = None
    if jax.process_index() == 0:
        segmenter = Segmenter.from_checkpoint(
            workdir, config.eval.checkpoint, dtype=config.model.dtype
        )
        kind = segmenter.pictures
        record = _describe(segmenter, config.export.size)
        if weights:
            record["formats"]["safetensors"] = _write_weights(segmenter, workdir)
        files.write_json(folder / "export.json", record)
    if formats and not paths and not _at_hand(request_of(config)):
        asked = (
            f"no pictures to try {' and '.join(formats)} on, which are left out: give "
            "some with --images=FILE, FOLDER or 'GLOB'"
        )
        if not weights:
            raise UserError(asked)
        log.say(asked)
    elif formats:
        # All processes open the data together.
        pictures = _pictures(config, paths, kind)
        if jax.process_index() == 0:
            trial = _Trial(segmenter, config.export.size, pictures)
            for name in formats:
                record["formats"][name] = trial.write(name, folder)
                files.write_json(folder / "export.json", record)


def _check_onnx(config: ConfigDict) -> None:
    onnx_programs.check_installed()
    if config.model.dtype != "float32":
        raise UserError(
            f"config.model.dtype={config.model.dtype!r}: ONNX Runtime computes in "
            "float32 on CPU; add --config.model.dtype=float32"
        )


def _describe(segmenter: Segmenter, size: Shape) -> dict[str, Any]:
    """What export.json says of the network; its formats follow one by one."""
    metadata, kind = segmenter.metadata, segmenter.pictures
    height, width = size
    return {
        "step": metadata.step,
        "architecture": metadata.architecture.to_json(),
        "dtype": metadata.dtype,
        "input": {
            "name": onnx_programs.INPUT,
            "dtype": kind.dtype,
            "shape": ["batch", height, width, kind.channels],
            "colours": "RGB" if kind == RGB else None,
        },
        "output": {
            "name": onnx_programs.OUTPUT,
            "dtype": "uint8",
            "shape": ["batch", height, width],
        },
        "class_names": metadata.class_names,
        "palette": metadata.palette,
        "mean": metadata.architecture.mean,
        "std": metadata.architecture.std,
        "formats": {},
        "provenance": provenance(),
    }


def _write_weights(segmenter: Segmenter, workdir: epath.Path) -> dict[str, Any]:
    """Writes network.safetensors; gives what export.json says of it."""
    path = workdir / "export" / "network.safetensors"
    tensors = segmenter.save(path)
    log.say(f"step {segmenter.metadata.step} of {workdir}: {tensors} tensors in {path}")
    return {"file": path.name, "sha256": files.sha256(path), "tensors": tensors}


def _pictures(
    config: ConfigDict, paths: Sequence[epath.Path], kind: PictureKind | None = RGB
) -> list[np.ndarray]:
    """What the programs are tried on: [H,W,C] of the exported size each.

    kind: of the network; None in processes that try nothing.
    """
    if paths:
        images = [read_image(path, kind) for path in paths] if kind else []
    else:
        request = request_of(config, channels=kind.channels if kind else 0)
        [source] = open_request(request, config.data.eval_split)
        if kind is None:
            return []
        if source.kind != kind:
            raise UserError(
                f"the pictures of {source.kind} in config.data are none that the network, "
                f"which sees {kind}, can be tried on: give some with --images"
            )
        count = min(_NUM_PICTURES, len(source))
        images = [decode(source[index], kind)["image"] for index in range(count)]
    height, width = config.export.size
    return [
        by_channels(lambda some: cv2.resize(some, (width, height)), image)
        for image in images
    ]


def _at_hand(request: Request) -> bool:
    """Whether a data set can be read without downloading it."""
    if request.name == "folder" and not request.manual_dir:
        return False
    found = builder(request)
    is_drawn = not isinstance(found, FilesBuilder)
    return is_drawn or bool(request.manual_dir) or files.path(found.data_path).exists()


class _Trial:
    """Writes programs that give the classes that the network gives, and no others."""

    def __init__(
        self, segmenter: Segmenter, size: Shape, pictures: Sequence[np.ndarray]
    ):
        metadata = segmenter.metadata
        self._program = programs.whole_program(segmenter.model)
        self._size, self._kind = size, segmenter.pictures
        self._least_agreement = _LEAST_AGREEMENT[metadata.dtype]
        self._properties = _properties(metadata)
        self._pictures = np.stack(pictures)
        self._expected = []
        with log.progress("predicting", len(pictures)) as on_picture:
            for picture in pictures:
                self._expected.append(segmenter.predict(picture))
                on_picture()

    def write(self, name: str, folder: epath.Path) -> dict[str, Any]:
        """Writes the program in one format; gives what export.json says of it.

        Raises:
            UserError: it gives other classes, or the folder cannot be written to.
        """
        start = time.monotonic()
        path = folder / f"network.{name}"
        log.say(f"{name}: tracing the program")
        content = _FORMATS[name].encode(
            self._program, self._size, self._properties, self._kind
        )
        with files.replacing(path) as partial:
            partial.write_bytes(content)
            log.say(f"{name}: {len(content) / 1e6:.1f} MB, being tried")
            agreement = self._agreement(name, _FORMATS[name].load(partial))
            if agreement < self._least_agreement:
                raise UserError(
                    f"config.export.formats: as {name}, the network gives its own "
                    f"classes at only {agreement:.3%} of the pixels of "
                    f"{len(self._pictures)} pictures, so {path} is not kept: leave "
                    f"{name} out"
                )
        seconds = time.monotonic() - start
        log.say(
            f"{name}: the classes of {agreement:.4%} of the pixels of "
            f"{len(self._pictures)} pictures agree; {path} took {seconds:.1f} s"
        )
        return {
            "file": path.name,
            "sha256": files.sha256(path),
            "agreement": agreement,
            "images": len(self._pictures),
            "seconds": seconds,
        }

    def _agreement(self, name: str, run: Runner) -> float:
        """The share of pixels that a program gives the network's classes."""
        shares = []
        with log.progress(f"trying {name}", len(self._pictures)) as on_picture:
            # In twos, with a last one alone: the size of the batch is free.
            for start in range(0, len(self._pictures), 2):
                found = run(self._pictures[start : start + 2])
                expected = self._expected[start : start + 2]
                for one, other in zip(found, expected, strict=True):
                    shares.append(np.mean(one == other))
                    on_picture()
        return float(np.mean(shares))


def _properties(metadata: Metadata) -> dict[str, str]:
    """What goes along within a file that has room for text."""
    kept = ("step", "architecture", "class_names", "palette")
    values = metadata.to_json()
    return {name: json.dumps(values[name]) for name in kept}
