"""Small videos, whole and damaged."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

FRAME_RATE = 12.5
CODECS = {"avi": "MJPG", "mkv": "MJPG", "mov": "mp4v", "mp4": "mp4v", "webm": "VP80"}


def frame(number: int, noise: int = 3) -> npt.NDArray[np.uint8]:
    """Grey of 5 times its number and noise: uint8 [48,64,3]."""
    noisy = np.random.default_rng(number).integers(0, noise, (48, 64, 1))
    return np.repeat(noisy + 5 * number, 3, axis=2).astype(np.uint8)


def number_of(picture: npt.NDArray[np.uint8]) -> int:
    """Which frame a decoded picture is; codecs lag up to 4 behind in brightness."""
    return int(picture.mean() + 3) // 5


def write_video(path: Path, num_frames: int, noise: int = 3) -> Path:
    code = cv2.VideoWriter.fourcc(*CODECS[path.suffix[1:]])
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, FRAME_RATE, (64, 48))
    for number in range(num_frames):
        writer.write(frame(number, noise))
    writer.release()
    return path


def read_video(path: Path) -> tuple[float, list[npt.NDArray[np.uint8]]]:
    """Frame rate and pictures, uint8 [H,W,3] BGR."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    pictures = []
    while True:
        found, picture = capture.read()
        if not found:
            return capture.get(cv2.CAP_PROP_FPS), pictures
        pictures.append(picture)


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


def damage(path: Path, at: float, share: float) -> None:
    """Overwrites bytes in the middle with zeros."""
    data = bytearray(path.read_bytes())
    start, length = int(at * len(data)), int(share * len(data))
    data[start : start + length] = bytes(length)
    path.write_bytes(data)
