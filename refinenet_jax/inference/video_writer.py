"""Writes videos, whole or not at all, with the sound of those they are made of."""

import contextlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from etils import epath

from refinenet_jax import files
from refinenet_jax.inference.video import VideoError

if TYPE_CHECKING:
    from av import VideoStream
    from av.container import InputContainer, OutputContainer

# What players of MP4 files know is copied as it is.
_COPIED = ("aac", "ac3", "alac", "eac3", "flac", "mp3", "opus")
_CLOCK = Fraction(1, 90_000)  # of the times in what is written, in seconds
_QUALITY = {"preset": "veryfast", "crf": "18", "x264-params": "colormatrix=smpte170m"}

Add = Callable[[np.ndarray, Fraction], None]


@contextlib.contextmanager
def writing(
    path: epath.Path, frame_rate: Fraction, sound: "InputContainer | None" = None
) -> Iterator[Add]:
    """Writes an H.264 video in an MP4 file.

    What it gives takes one frame after another, uint8 [H,W,3] RGB, and when each is
    shown, in seconds. The first decides the size; others are resized to it. The file
    appears when the block ends; where it raises, none does.

    Args:
        path: ends in .mp4.
        frame_rate: frames a second, as players announce it.
        sound: a file whose sound goes along.

    Raises:
        VideoError: no video can have that size, from the first frame on.
        UserError: the folder cannot be written to, or is full.
    """
    import av

    with (
        files.replacing(path) as partial,
        av.open(str(partial), "w", format="mp4") as container,
    ):
        stream = container.add_stream("libx264", rate=frame_rate, options=_QUALITY)
        stream.codec_context.time_base = _CLOCK
        track = _Sound(sound, container) if sound is not None else None
        last = -1

        def add(pixels: np.ndarray, time: Fraction) -> None:
            nonlocal last
            if last < 0:
                _begin(stream, pixels.shape[:2], path)
            size = (stream.width, stream.height)
            if pixels.shape[1::-1] != size:
                pixels = np.asarray(cv2.resize(pixels, size), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            last = max(round(time / _CLOCK), last + 1)
            frame.pts, frame.time_base = last, _CLOCK
            container.mux(stream.encode(frame))
            if track is not None:
                track.until(time)

        yield add
        container.mux(stream.encode())
        if track is not None:
            track.until(None)


def _begin(stream: "VideoStream", shape: tuple[int, ...], path: epath.Path) -> None:
    """Opens the encoder for frames of [H,W].

    Raises:
        VideoError: no video can have that size.
    """
    import av

    stream.height, stream.width = height, width = shape
    # Colours at half the resolution, which every player knows, need even sizes.
    stream.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"
    try:
        stream.codec_context.open()
    except av.FFmpegError as error:
        raise VideoError(
            f"{path} cannot be a video: {width}x{height} (width x height) is beyond "
            "H.264; resize the pictures"
        ) from error


class _Sound:
    """Copies the first sound track of a file, encoded anew where players want that."""

    def __init__(self, source: "InputContainer", target: "OutputContainer"):
        self._target = target
        stream = source.streams.audio[0]
        self._packets = source.demux(stream)
        self._copied = stream.codec_context.name in _COPIED
        self._stream: Any
        if self._copied:
            self._stream = target.add_stream_from_template(stream)
        else:
            # Some files do not say which channel is on which side.
            layout = (
                "mono" if stream.codec_context.layout.nb_channels == 1 else "stereo"
            )
            self._stream = target.add_stream("aac", rate=stream.rate, layout=layout)

    def until(self, time: Fraction | None) -> None:
        """Writes what is heard up to then, and a little more; None: all there is."""
        import av

        while True:
            # What is damaged is left out.
            with contextlib.suppress(av.error.InvalidDataError, av.error.ArgumentError):
                packet = next(self._packets, None)
                if packet is None:
                    return
                for part in self._encoded(packet):
                    self._target.mux(part)
                if time is not None and (packet.pts or 0) * packet.time_base > time:
                    return

    def _encoded(self, packet: Any) -> list[Any]:
        if self._copied:
            packet.stream = self._stream
            return [] if packet.dts is None else [packet]
        frames = packet.decode()
        parts = [part for frame in frames for part in self._stream.encode(frame)]
        # The packet without content is the last one.
        return parts if packet.size else parts + self._stream.encode()
