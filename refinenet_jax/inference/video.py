"""Reads videos frame by frame and writes them whole or not at all."""

import contextlib
import errno
import math
import os
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from etils import epath

from refinenet_jax import files
from refinenet_jax.data import images
from refinenet_jax.errors import UserError

SUFFIXES = (".avi", ".mkv", ".mov", ".mp4", ".webm")

# OpenCV reads these when it opens its first video. FFmpeg is to be silent, as what fails
# is said in one line; and to drop a packet that the file breaks off within, which would
# be half a picture.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "fflags;discardcorrupt")

_ESTIMATED = (".mkv", ".webm")
_OFF_THE_GRID = 0.25  # of a frame; Matroska rounds times to milliseconds


class VideoError(UserError):
    """A file that is no video, or one that cannot be shown as a video."""


class Video:
    """A video file, read from its beginning to its end, once.

    What a decoder repairs without a word (most of them paint over damaged blocks) is
    taken as it comes; frames that it gives up are left out.

    Attributes:
        frame_rate: frames a second.
        num_frames: as the file announces them; None where it does not.
        shape: height and width of the first frame, turned as viewers show it.
        skipped: what was left out so far, a line for each gap.
    """

    def __init__(self, path: epath.Path):
        """Opens the file and decodes its first frame.

        Raises:
            DataError: it is no regular file.
            VideoError: it cannot be read or is no video.
        """
        self._path = path
        self._capture = _open(path)
        self.frame_rate = self._capture.get(cv2.CAP_PROP_FPS)
        announced = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        # What is not known is a negative number beyond any count.
        self.num_frames = round(announced) if announced > 0 else None
        self._first = self._read()
        if self._first is None or not 0 < self.frame_rate < math.inf:
            raise VideoError(f"video {path} holds no frame that can be decoded")
        self._start = self._position()
        self.shape = self._first.shape[:2]
        self.skipped: list[str] = []

    def frames(self) -> Iterator[tuple[int, np.ndarray]]:
        """The number of each frame in the video, from 0, and uint8 [H,W,3] RGB."""
        expected, steady, frame = 0, True, self._first
        while frame is not None:
            # Where all frames come at their time, a gap in time is frames missing;
            # else the rate varies, or times are damaged, and they tell nothing.
            place = self._position() - self._start
            on_time = abs(place - round(place)) < _OFF_THE_GRID
            steady = steady and on_time and place < (self.num_frames or 0)
            number = max(expected, round(place)) if steady else expected
            if number > expected:
                self._skip(expected, number)
            yield number, frame
            expected = number + 1
            frame = self._read()
        self._check_end(expected)

    def _check_end(self, count: int) -> None:
        """Says where frames are missing at the end, `count` being read or skipped."""
        # Matroska announces a length in time, in which sound may outlast the pictures.
        estimated = self._path.suffix.lower() in _ESTIMATED
        slack = self.frame_rate / 4 if estimated else 0
        if self.num_frames is not None and count < self.num_frames - slack:
            self.skipped.append(
                f"video {self._path} breaks off after frame {count - 1}, "
                f"{self.num_frames - count} of its {self.num_frames} are missing"
            )

    def _skip(self, first: int, behind: int) -> None:
        last = behind - 1
        which = f"frame {first}" if first == last else f"frames {first} to {last}"
        self.skipped.append(f"{which} of video {self._path} cannot be decoded")

    def _read(self) -> np.ndarray | None:
        """The next frame that can be decoded, uint8 [H,W,3] RGB; None at the end."""
        with _silence():
            while self._capture.grab():
                decoded, bgr = self._capture.retrieve()
                if decoded:
                    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
            self._capture.release()
        return None

    def _position(self) -> float:
        """When the last frame is shown, counted in frames."""
        return self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 * self.frame_rate


@contextlib.contextmanager
def writing(
    path: epath.Path, frame_rate: float, shape: tuple[int, int]
) -> Iterator[Callable[[np.ndarray], None]]:
    """Writes an MPEG-4 video; takes its frames, uint8 [H,W,3] RGB, one after another.

    shape: height and width of the video. Frames of another are resized to it. MPEG-4
    has even sizes only: the last row or column of odd ones is cut off. The file appears
    when the block ends; where it raises, none does.

    Raises:
        VideoError: no video can have that shape or rate.
        UserError: the folder cannot be written to, or is full.
    """
    height, width = shape
    written = 0
    with files.replacing(path) as partial:
        partial.touch()  # OpenCV gives no reason where it cannot
        code = cv2.VideoWriter.fourcc(*"mp4v")
        with _silence():
            writer = cv2.VideoWriter(
                str(partial), cv2.CAP_FFMPEG, code, frame_rate, (width, height)
            )
        if not writer.isOpened():
            raise VideoError(
                f"{path} cannot be a video: {width}x{height} (width x height) at "
                f"{frame_rate:g} frames a second is beyond MPEG-4; resize the pictures"
            )

        def add(frame: np.ndarray) -> None:
            nonlocal written
            if frame.shape[:2] != shape:
                frame = np.asarray(cv2.resize(frame, (width, height)), np.uint8)
            with _silence():
                writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            written += 1

        try:
            yield add
        finally:
            with _silence():
                writer.release()
        _check_written(partial, written)


def _check_written(path: epath.Path, num_frames: int) -> None:
    """Raises OSError where a video is not whole: OpenCV says nothing of a full disk."""
    with _silence():
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    found = round(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.release()
    if found == num_frames:
        return
    with path.open("ab") as file:  # has the system say why
        file.write(bytes(1 << 16))
        file.flush()
        os.fsync(file.fileno())
    raise OSError(errno.EIO, f"{found} of {num_frames} frames were written")


def _open(path: epath.Path) -> cv2.VideoCapture:
    images.refuse_special(path)
    try:
        # What is open can be read on when its name is gone.
        with files.on_disk(path) as file, _silence():
            file.open("rb").close()  # OpenCV gives no reason where it cannot
            capture = cv2.VideoCapture(str(file), cv2.CAP_FFMPEG)
    except OSError as error:
        raise VideoError(f"{path} cannot be read: {files.reason(error)}") from error
    if not capture.isOpened():
        raise VideoError(
            f"{path} is no video that OpenCV can read, or is cut short: convert it with "
            "ffmpeg or leave it out"
        )
    return capture


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keeps OpenCV from the terminal: what fails is said in one line."""
    logging = cv2.utils.logging
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)
