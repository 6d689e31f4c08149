"""Mode predict: class maps and overlays of a person's own images and videos."""

import contextlib
import itertools
import json
import math
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from refinenet_jax import files, log
from refinenet_jax.assembly.data import shown_of
from refinenet_jax.assembly.evaluation import protocol_of
from refinenet_jax.data.class_table import read_class_table
from refinenet_jax.data.images import DataError
from refinenet_jax.data.picture_kind import RGB
from refinenet_jax.errors import UserError, listed
from refinenet_jax.inference import tiff, video, video_writer
from refinenet_jax.inference.inputs import (
    find_inputs,
    is_video,
    kind_of,
    read_picture,
)
from refinenet_jax.inference.submission import Classes, Submission
from refinenet_jax.memory import OutOfMemory
from refinenet_jax.palettes import distinct
from refinenet_jax.pictures import (
    STRETCHED,
    Shown,
    encode,
    overlay,
    palette_png,
    with_legend,
)
from refinenet_jax.segmenter import Segmenter

_LONGEST_JPEG = 65_500  # JPEG_MAX_DIMENSION of libjpeg
_VIDEO_LINES = 2  # of the legend, whose height cannot change
_WINDOW = 1024  # of pictures beyond memory, where config.eval.window is 0
_SUMMARY = "summary.json"
_NAMED = 10  # failures in the line at the end; the others are counted


def run(config: ConfigDict, workdir: epath.Path, patterns: Sequence[str]) -> None:
    """Writes what `Predictions` says into predictions/, summary.json and the archive.

    patterns: files, folders or globs. Of several processes the first works.

    Raises:
        UserError: nothing to predict, no checkpoint, files that cannot be read or
            written, or images that are no submission for the server asked for.
    """
    if jax.process_index() != 0:
        return
    paths = find_inputs(patterns)
    videos = list(filter(is_video, paths))
    for path in videos:
        video.refuse_missing_reader(path)
    segmenter = Segmenter.from_checkpoint(
        workdir,
        config.eval.checkpoint,
        protocol=protocol_of(config),
        buckets=config.eval.buckets,
        shown=shown_of(config),
    )
    kind = kind_of(segmenter.metadata.architecture)
    if videos and kind != RGB:
        raise UserError(
            f"{videos[0]} is a video, which is RGB, and the network sees {kind}: leave it "
            "out"
        )
    archive = _submission(config.predict, paths, segmenter.class_names)
    done = Predictions(
        segmenter,
        workdir / "predictions",
        overwrite=config.predict.overwrite,
        probabilities=config.predict.probabilities,
        distinct=config.predict.palette == "distinct",
        whole=archive is not None,
        max_megapixels=config.predict.max_megapixels,
        window=config.eval.window or _WINDOW,
        overlap=config.eval.overlap,
        shown=shown_of(config),
        not_finite=config.data.not_finite,
    )
    done.begin()
    with log.progress("predicting", len(paths)) as on_input:
        for path in paths:
            done.predict(path)
            on_input()
    done.finish()
    left_out = done.left_out(len(paths))
    if left_out:
        raise UserError(left_out + ("; no archive is written" if archive else ""))
    if archive:
        with log.progress("packing", 2 * len(archive)) as on_label:
            file = archive.write(done.folder, on_label)
        log.say(f"{len(archive)} label maps, checked, are in {file}")


class Predictions:
    """The folder of results.

    Of an image: NAME.png, the class ids in colour, NAME_overlay.jpg with a legend below
    and, if wanted, NAME.npz: `probabilities`, float32 [H,W,classes], and `class_names`.
    Of a large one, or one that memory does not hold: NAME.tif, and an overlay in less
    detail. Of a video: NAME/000000.png, ... and NAME_overlay.mp4. What cannot be read
    stops nothing.

    Args:
        segmenter: what predicts.
        folder: of the results.
        overwrite: what is there is predicted again.
        probabilities: whether the .npz is wanted.
        distinct: overlays have colours that all tell apart, not the data set's own.
        whole: a NAME.tif is of no use.
        max_megapixels: larger images are predicted in windows.
        window: see `Segmenter.predict_large`.
        overlap: likewise.
        shown: how pictures that are not RGB are shown.
        not_finite: "refuse" or "ignore" NaN and infinity.

    Attributes:
        folder: where they are.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        folder: epath.Path,
        *,
        overwrite: bool,
        probabilities: bool,
        distinct: bool,
        whole: bool,
        max_megapixels: float,
        window: int,
        overlap: float,
        shown: Shown = STRETCHED,
        not_finite: str = "refuse",
    ):
        self.folder = folder
        self._segmenter = segmenter
        self._overwrite = overwrite
        self._probabilities = probabilities
        self._distinct = distinct
        self._whole = whole or probabilities
        self._max_pixels = max_megapixels * 1e6
        self._windows: dict[str, Any] = {"window": window, "overlap": overlap}
        self._shown = shown
        self._not_finite = not_finite
        self._counts = {"images": 0, "frames": 0, "kept": 0}
        self._failed: list[str] = []
        self._faults: list[str] = []
        self._with_alpha = 0
        self._start = time.monotonic()

    def begin(self) -> None:
        """Makes sure that results can be written and will be of one network.

        Results of another step are moved aside, to predictions_stepN beside the folder.

        Raises:
            UserError: they cannot be written.
        """
        step, earlier = self._segmenter.metadata.step, self._earlier_step()
        if earlier is not None and earlier != step and not self._overwrite:
            aside = self._unused(f"{self.folder.name}_step{earlier}")
            try:
                files.rename_folder(self.folder, aside, last=_SUMMARY)
            except OSError as error:
                raise UserError(
                    f"{self.folder} holds results of step {earlier}, this is step "
                    f"{step}, and cannot be moved aside ({files.reason(error)}): choose "
                    "another --workdir"
                ) from error
            log.say(f"results of step {earlier}, this is step {step}, move to {aside}")
            earlier = None
        if earlier != step:
            self._write_summary()
        self._present = {path.name for path in self.folder.iterdir()}

    def predict(self, path: epath.Path) -> None:
        """Predicts an image or a video, unless its results are there.

        Raises:
            UserError: the folder cannot be written to, or is full.
        """
        if self._is_kept(path):
            self._counts["kept"] += 1
            return
        try:
            if is_video(path):
                self._predict_video(path)
            else:
                self._predict_image(path)
        except (DataError, tiff.TiffError, video.VideoError) as error:
            self._failed.append(str(error))
        except OutOfMemory as error:
            self._failed.append(f"{path}: {error}")

    def finish(self) -> None:
        """Writes summary.json and says what was done."""
        seconds = self._write_summary()
        frames, kept = self._counts["frames"], self._counts["kept"]
        done = f"{self._counts['images']} images"
        done += f" and {frames} frames" if frames else ""
        log.say(f"{done} in {log.duration(seconds)}; pictures are in {self.folder}")
        if self._with_alpha:
            log.say(f"{self._with_alpha} of them have transparency, which is dropped")
        if kept:
            log.say(
                f"{kept} were there already and are kept; "
                "--config.predict.overwrite=True predicts them again"
            )

    def left_out(self, num_inputs: int) -> str:
        """A line on what could not be predicted; "" where all could."""
        parts = []
        if self._failed:
            parts.append(f"left out {len(self._failed)} of {num_inputs}: ")
            parts[-1] += listed(self._failed, _NAMED, "; ")
        if self._faults:
            faults = listed(self._faults, _NAMED, "; ")
            parts.append(f"did without parts of videos: {faults}")
        return "; ".join(parts)

    def _write_summary(self) -> float:
        seconds = time.monotonic() - self._start
        summary = {
            **self._counts,
            "failed": len(self._failed) + len(self._faults),
            "compilations": self._segmenter.compilations,
            "seconds": seconds,
            "step": self._segmenter.metadata.step,
        }
        files.write_json(self.folder / _SUMMARY, summary)
        return seconds

    def _unused(self, name: str) -> epath.Path:
        """A path beside the folder that nothing is at: NAME, NAME_2, ..."""
        candidates = (
            self.folder.with_name(f"{name}_{number}" if number > 1 else name)
            for number in itertools.count(1)
        )
        return next(path for path in candidates if not path.exists())

    def _earlier_step(self) -> int | None:
        """The step of the network that predicted what is there, where that is known."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return json.loads((self.folder / _SUMMARY).read_text())["step"]
        return None

    def _is_kept(self, path: epath.Path) -> bool:
        results = [{path.stem, f"{path.stem}_overlay.mp4"}]
        if not is_video(path):
            endings = [".png", "_overlay.jpg"] + [".npz"] * self._probabilities
            results = [{path.stem + ending for ending in endings}]
            if not self._whole:
                results.append({f"{path.stem}.tif", f"{path.stem}_overlay.jpg"})
        return not self._overwrite and any(each <= self._present for each in results)

    def _result(self, path: epath.Path, ending: str) -> epath.Path:
        return self.folder / f"{path.stem}{ending}"

    def _predict_image(self, path: epath.Path) -> None:
        kind = kind_of(self._segmenter.metadata.architecture)
        in_file = None
        if kind == RGB and tiff.is_tiff(path):  # others are read whole
            in_file = tiff.shape_of(path)
        if in_file is not None and self._is_large(in_file):
            self._predict_large(path, path)
            return
        image, has_alpha = read_picture(path, kind, not_finite=self._not_finite)
        self._with_alpha += has_alpha
        if self._is_large(image.shape[:2]):
            self._predict_large(path, image)
            return
        try:
            self._predict_whole(path, image)
        except OutOfMemory:
            if self._whole:
                raise
            log.say(f"memory does not hold {path.name} whole")
            self._predict_large(path, image if in_file is None else path)

    def _is_large(self, shape: tuple[int, ...]) -> bool:
        return math.prod(shape) > self._max_pixels or max(shape) > _LONGEST_JPEG

    def _predict_large(self, path: epath.Path, image: np.ndarray | epath.Path) -> None:
        """Into a TIFF, and an overview; image: the file where it is a TIFF."""
        if self._whole:
            self._failed.append(
                f"{path} is beyond config.predict.max_megapixels, of which there are "
                "class ids in a TIFF alone: leave it out, or set config.predict."
                "probabilities=False and config.predict.submission=''"
            )
            return
        self._segmenter.predict_large(
            image,
            self._result(path, ".tif"),
            overview=self._result(path, "_overlay.jpg"),
            distinct=self._distinct,
            **self._windows,
        )
        self._counts["images"] += 1

    def _predict_whole(self, path: epath.Path, image: np.ndarray) -> None:
        if self._probabilities:
            shares = self._segmenter.probabilities(image)
            label = shares.argmax(axis=-1).astype(np.uint8)
            names = np.array(self._segmenter.class_names)
            with files.replacing(self._result(path, ".npz")) as partial:
                np.savez_compressed(partial, probabilities=shares, class_names=names)
        else:
            label = self._segmenter.predict(image)
        png = palette_png(label, self._segmenter.palette)
        files.write_bytes(self._result(path, ".png"), png)
        shown = self._overlay(image, label, path.name)
        if len(shown) > _LONGEST_JPEG:
            shown = shown[: len(image)]
        files.write_bytes(self._result(path, "_overlay.jpg"), encode(shown, "JPEG"))
        self._counts["images"] += 1

    def _overlay(
        self, image: np.ndarray, label: np.ndarray, heading: str, lines: int = 0
    ) -> np.ndarray:
        """With a legend below: uint8 [H',W,3]."""
        names, palette = self._segmenter.class_names, self._segmenter.palette
        colours = distinct(len(palette)) if self._distinct else palette
        picture = self._shown.rgb(image)
        mixed = overlay(picture, label, colours, outlined=self._distinct)
        return with_legend(mixed, label, names, colours, heading=heading, lines=lines)

    def _predict_video(self, path: epath.Path) -> None:
        """One frame after another, so that a video of any length fits into memory."""
        folder, palette = self.folder / path.stem, self._segmenter.palette
        target = self._result(path, "_overlay.mp4")
        with (
            contextlib.closing(video.Video(path)) as source,
            log.progress(path.name, source.num_frames) as on_frame,
            video_writer.writing(target, source.frame_rate, source.sound) as add,
        ):
            for old in folder.glob(f"{'[0-9]' * 6}.png"):
                old.unlink()  # of a run that was broken off, or a longer video
            for frame in source.frames():
                label = self._segmenter.predict(frame.pixels)
                png = palette_png(label, palette)
                files.write_bytes(folder / f"{frame.number:06}.png", png)
                heading = f"{path.name}  {log.duration(float(frame.time))}"
                shown = self._overlay(frame.pixels, label, heading, _VIDEO_LINES)
                add(shown, frame.time)
                self._counts["frames"] += 1
                on_frame()
            self._faults += source.faults()


def _submission(
    settings: ConfigDict, paths: Sequence[epath.Path], class_names: Sequence[str]
) -> Submission | None:
    """What config.predict asks for; None where it asks for none."""
    if not settings.submission:
        if settings.ids:
            raise UserError(
                "config.predict.ids is of an archive: set config.predict.submission too"
            )
        return None
    videos = [path for path in paths if is_video(path)]
    if videos:
        raise UserError(f"{videos[0]} is a video, which no server takes: leave it out")
    table = read_class_table(settings.submission)
    return Submission(
        settings.submission,
        Classes(table.class_names, table.palette, table.raw_to_class),
        paths,
        class_names=class_names,
        competition=settings.competition,
        ids_file=settings.ids,
    )
