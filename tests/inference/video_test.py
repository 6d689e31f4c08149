import errno

import cv2
import numpy as np
import pytest

from refinenet_jax.errors import UserError
from refinenet_jax.inference import video
from refinenet_jax.inference.video import Video, VideoError
from tests.inference.videos import (
    CODECS,
    FRAME_RATE,
    cut,
    damage,
    frame,
    number_of,
    read_video,
    write_video,
)


def numbers(source):
    """The frames' numbers as the reader has them, checked against their pictures."""
    found = []
    for number, picture in source.frames():
        assert picture.dtype == np.uint8
        assert number_of(picture) == number
        found.append(number)
    return found


@pytest.mark.parametrize("container", CODECS)
def test_every_container_gives_its_frames_in_order(container, tmp_path):
    source = Video(write_video(tmp_path / f"clip.{container}", 30))
    assert source.frame_rate == FRAME_RATE
    assert source.num_frames == 30
    assert source.shape == (48, 64)
    assert numbers(source) == list(range(30))
    assert source.skipped == []


def test_every_known_ending_is_tested():
    assert {f".{container}" for container in CODECS} == set(video.SUFFIXES)


def test_colours_are_rgb(tmp_path):
    writer = cv2.VideoWriter(
        str(tmp_path / "red.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 48)
    )
    writer.write(np.full((48, 64, 3), (0, 0, 255), np.uint8))
    writer.release()
    [(_, picture)] = Video(tmp_path / "red.avi").frames()
    assert picture[..., 0].min() > 240
    assert picture[..., 1:].max() < 15


def test_frames_that_cannot_be_decoded_are_named_and_the_others_keep_their_numbers(
    tmp_path,
):
    path = write_video(tmp_path / "clip.webm", 40, noise=50)
    damage(path, at=0.5, share=0.05)
    source = Video(path)
    found = []
    for number, picture in source.frames():
        # The noise makes pictures brighter by 25, which is 5 numbers.
        assert abs(number_of(picture) - 5 - number) <= 1
        found.append(number)
    lost = sorted(set(range(40)) - set(found))
    first, last = lost[0], lost[-1]
    assert 10 < first < last < 39
    assert lost == list(range(first, last + 1))
    assert source.skipped == [
        f"frames {first} to {last} of video {path} cannot be decoded"
    ]


def test_one_frame_that_cannot_be_turned_into_a_picture(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.avi", 10)
    source = Video(path)
    capture = source._capture

    class Failing:
        def __init__(self):
            self.taken = 0  # the reader has the first already

        def retrieve(self):
            self.taken += 1
            return (False, None) if self.taken == 4 else capture.retrieve()

        def __getattr__(self, name):
            return getattr(capture, name)

    monkeypatch.setattr(source, "_capture", Failing())
    assert numbers(source) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert source.skipped == [f"frame 4 of video {path} cannot be decoded"]


@pytest.mark.parametrize("container", ["avi", "mkv", "webm"])
def test_a_video_that_breaks_off(container, tmp_path):
    path = write_video(tmp_path / f"clip.{container}", 40)
    cut(path, 0.5)
    source = Video(path)
    found = numbers(source)
    assert 5 < len(found) < 35
    assert found == list(range(len(found)))
    last, missing = len(found) - 1, 40 - len(found)
    line = f"breaks off after frame {last}, {missing} of its 40 are missing"
    assert source.skipped == [f"video {path} {line}"]


@pytest.mark.parametrize("content", [b"", b"no video at all", bytes(5000)])
def test_what_is_no_video(content, tmp_path, capfd):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match="clip.mp4 is no video") as error:
        Video(path)
    assert "\n" not in str(error.value)
    # An MP4 has its index at the end.
    cut(write_video(path, 20), 0.5)
    with pytest.raises(VideoError, match="cut short"):
        Video(path)
    with pytest.raises(VideoError, match="nowhere.mp4 cannot be read: No such file"):
        Video(tmp_path / "nowhere.mp4")
    assert capfd.readouterr() == ("", "")


def test_a_rate_that_varies_is_not_taken_for_damage(tmp_path, monkeypatch):
    source = Video(write_video(tmp_path / "clip.mp4", 10))
    times = iter([0.0, 0.7, 3.1, 4.0, 8.0, 8.6, 9.0, 9.2, 9.4, 9.6, 9.8])
    monkeypatch.setattr(source, "_position", lambda: next(times))
    assert numbers(source) == list(range(10))
    assert source.skipped == []


def test_written_videos_have_the_rate_the_size_and_the_frames(tmp_path):
    path = tmp_path / "new" / "clip_overlay.mp4"
    with video.writing(path, 29.97, (48, 64)) as add:
        for number in range(25):
            add(frame(number))
        add(cv2.resize(frame(25), (32, 32)))
        assert not path.exists()
    rate, pictures = read_video(path)
    assert rate == pytest.approx(29.97, abs=1e-3)
    assert [picture.shape for picture in pictures] == [(48, 64, 3)] * 26
    assert [number_of(picture) for picture in pictures] == list(range(26))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_odd_size_loses_its_last_row_and_column(tmp_path):
    with video.writing(tmp_path / "clip.mp4", 10, (49, 65)) as add:
        add(np.full((49, 65, 3), 200, np.uint8))
    _, [picture] = read_video(tmp_path / "clip.mp4")
    assert picture.shape == (48, 64, 3)


def test_a_run_that_is_broken_off_leaves_no_video(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"of an earlier run")
    with pytest.raises(KeyboardInterrupt), video.writing(path, 10, (48, 64)) as add:
        add(frame(0))
        raise KeyboardInterrupt
    assert path.read_bytes() == b"of an earlier run"
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_size_that_no_video_has(tmp_path, capfd):
    with (
        pytest.raises(VideoError, match="1x5000 .* is beyond MPEG-4"),
        video.writing(tmp_path / "clip.mp4", 10, (5000, 1)),
    ):
        pass
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_a_video_that_lacks_frames_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(video.os, "fsync", refuse)
    with (
        pytest.raises(UserError, match="No space left on device.*make room there"),
        video.writing(tmp_path / "clip.mp4", 10, (48, 64)) as add,
    ):
        add(frame(0))
        # As on a full disk: what is written from here on is lost.
        (tmp_path / ".partial-clip.mp4").unlink()
        (tmp_path / ".partial-clip.mp4").touch()
    assert not list(tmp_path.iterdir())


def refuse(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")
