"""Reads videos frame by frame, through PyAV, and says what is damaged in them."""

import contextlib
import dataclasses
import importlib.util
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from etils import epath

from refinenet_jax import files
from refinenet_jax.data import images
from refinenet_jax.errors import UserError, first_line, listed

if TYPE_CHECKING:
    from av import Packet, VideoStream
    from av.container import InputContainer

SUFFIXES = (".avi", ".mkv", ".mov", ".mp4", ".webm")

_NAMED = 5  # runs of damaged frames in a line; the others are counted


class VideoError(UserError):
    """A file that is no video, or one that cannot be shown as a video."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """One picture of a video.

    Attributes:
        number: its place among the frames that are in the file, from 0.
        time: when it is shown, in seconds.
        pixels: uint8 [H,W,3] RGB, turned as viewers show it.
    """

    number: int
    time: Fraction
    pixels: np.ndarray


def refuse_missing_reader(path: epath.Path) -> None:
    """Raises UserError where PyAV, which reads and writes videos, is not installed."""
    if not importlib.util.find_spec("av"):
        raise UserError(
            f"{path} is a video, which needs PyAV: pip install 'refinenet_jax[video]'"
        )


class Video:
    """A video file, read from its beginning to its end, once.

    A frame that the decoder could not make whole is left out: what it would paint over
    the damage is no picture.

    Attributes:
        frame_rate: frames a second, on average.
        num_frames: about how many there are; None where the file does not say.
        shape: height and width of the first whole frame.
        sound: the file opened once more, for its sound; None where it has none.
    """

    def __init__(self, path: epath.Path):
        """Opens the file and decodes its first frame.

        Raises:
            DataError: it is no regular file.
            VideoError: it cannot be read or is no video.
            UserError: PyAV is not installed.
        """
        refuse_missing_reader(path)
        self._path = path
        self._container, self.sound = _open(path)
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        # Not to be asked for once the file is closed.
        self._frames_in_header = self._stream.frames
        # Else decoders paint over what is damaged, and most say nothing of it.
        self._stream.codec_context.options = {"err_detect": "explode"}
        self._count = 0
        self._damaged: list[int] = []
        self._complaints: list[str] = []
        self._dropped = 0  # by the file's own edit list
        rate = self._stream.average_rate or self._stream.guessed_rate
        self._frames = self._whole_frames()
        self._first = next(self._frames, None)
        if self._first is None or not rate:
            self.close()
            raise VideoError(f"video {path} holds no frame that can be decoded")
        self.frame_rate = Fraction(rate)
        self.num_frames = self._announced()
        self.shape = self._first.pixels.shape[:2]

    def frames(self) -> Iterator[Frame]:
        """The whole frames in order."""
        assert self._first is not None
        yield self._first
        yield from self._frames

    def close(self) -> None:
        """Lets go of the file."""
        self._container.close()
        if self.sound is not None:
            self.sound.close()

    def faults(self) -> list[str]:
        """What is damaged or missing in what was read, a line each."""
        faults = []
        if self._damaged:
            which = listed(_runs(self._damaged), _NAMED)
            faults.append(f"damaged in video {self._path}: {which}")
        announced = self._frames_in_header - self._dropped
        if self._count < announced:
            faults.append(
                f"video {self._path} holds {self._count} of its {announced} frames"
            )
        elif self._complaints:
            faults.append(
                f"parts of video {self._path} are missing: {self._complaints[0]}"
            )
        return faults

    def _announced(self) -> int | None:
        if self._frames_in_header:
            return self._frames_in_header
        if self._container.duration:  # in microseconds
            return round(self._container.duration * self.frame_rate / 1_000_000)
        return None

    def _whole_frames(self) -> Iterator[Frame]:
        import av

        time = Fraction(0)
        for packet in self._packets():
            self._dropped += packet.is_discard
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                self._damaged.append(self._count)
                self._count += 1
                continue
            for frame in decoded:
                number, self._count = self._count, self._count + 1
                if frame.pts is not None and frame.time_base:
                    time = frame.pts * frame.time_base
                if frame.is_corrupt:
                    self._damaged.append(number)
                    continue
                pixels = np.rot90(
                    frame.to_ndarray(format="rgb24"), frame.rotation // 90
                )
                yield Frame(number, time, np.ascontiguousarray(pixels))

    def _packets(self) -> Iterator["Packet[VideoStream]"]:
        """What the file holds of pictures; notes what its reader complains about."""
        import av

        packets = self._container.demux(self._stream)
        while True:
            try:
                with _listening(self._container.format.name, self._complaints):
                    packet = next(packets, None)
            except av.FFmpegError as error:
                self._complaints.append(first_line(error))
                return
            if packet is None:
                return
            yield packet


def _open(path: epath.Path) -> tuple["InputContainer", "InputContainer | None"]:
    """The file, and once more if it has sound.

    Raises:
        DataError: it is no regular file.
        VideoError: it cannot be read or is no video.
    """
    import av

    images.refuse_special(path)
    try:
        # What is open can be read on when its name is gone.
        with files.on_disk(path) as file:
            container = av.open(str(file))
            if not container.streams.video:
                container.close()
                raise VideoError(f"{path} holds no pictures: leave it out")
            return container, av.open(str(file)) if container.streams.audio else None
    except OSError as error:
        raise VideoError(f"{path} cannot be read: {files.reason(error)}") from error
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise VideoError(
            f"{path} is no video that FFmpeg can read, or is cut short: mend or convert "
            "it with ffmpeg, or leave it out"
        ) from error


@contextlib.contextmanager
def _listening(reader: str, complaints: list[str]) -> Iterator[None]:
    """Notes errors of FFmpeg's reader of a file format, who goes on without a word.

    reader: the name of the format.
    """
    import av.logging

    av.logging.set_skip_repeated(False)
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture(local=False) as messages:
            yield
    finally:
        av.logging.set_level(None)
    complaints += [text.strip() for _, name, text in messages if name == reader]


def _runs(numbers: list[int]) -> list[str]:
    """[3, 4, 5, 8] → ["frames 3 to 5", "frame 8"]."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [
        f"frame {first}" if first == last else f"frames {first} to {last}"
        for first, last in runs
    ]
