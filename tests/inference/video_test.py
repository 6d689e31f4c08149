import contextlib
from fractions import Fraction

import cv2
import numpy as np
import pytest

from refinenet_jax.errors import UserError
from refinenet_jax.inference import video
from refinenet_jax.inference.video import Video, VideoError
from refinenet_jax.inference.video_writer import writing
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

av = pytest.importorskip("av")


def numbers(source):
    """The frames' numbers as the reader has them, checked against their pictures."""
    found = []
    for each in source.frames():
        assert each.pixels.dtype == np.uint8
        assert number_of(each.pixels) == each.number
        assert float(each.time * source.frame_rate) == pytest.approx(
            each.number, abs=0.1
        )
        found.append(each.number)
    return found


@pytest.mark.parametrize("container", CODECS)
def test_every_container_gives_its_frames_in_order(container, tmp_path):
    source = Video(write_video(tmp_path / f"clip.{container}", 30))
    assert source.frame_rate == FRAME_RATE
    assert source.num_frames == 30
    assert source.shape == (48, 64)
    assert numbers(source) == list(range(30))
    assert source.faults() == []
    assert source.sound is None


def test_every_known_ending_is_tested():
    assert {f".{container}" for container in CODECS} == set(video.SUFFIXES)


def test_colours_are_rgb(tmp_path):
    writer = cv2.VideoWriter(
        str(tmp_path / "red.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 48)
    )
    writer.write(np.full((48, 64, 3), (0, 0, 255), np.uint8))
    writer.release()
    [only] = Video(tmp_path / "red.avi").frames()
    picture = only.pixels
    assert picture[..., 0].min() > 240
    assert picture[..., 1:].max() < 15


@pytest.mark.parametrize("container", ["mov", "mp4"])
def test_damaged_frames_are_named_and_left_out(container, tmp_path):
    path = write_video(tmp_path / f"clip.{container}", 40, noise=50)
    damage(path, at=0.5, share=0.05)
    source = Video(path)
    found = []
    for each in source.frames():
        found.append(each.number)
        assert round(each.time * source.frame_rate) == each.number
        # The noise makes pictures brighter by 25, which is 5 numbers.
        assert abs(number_of(each.pixels) - 5 - each.number) <= 1
    damaged = sorted(set(range(40)) - set(found))
    first, last = damaged[0], damaged[-1]
    assert 10 < first < last < 39
    assert damaged == list(range(first, last + 1))
    assert source.faults() == [f"damaged in video {path}: frames {first} to {last}"]


def test_frames_that_are_gone_are_counted(tmp_path):
    path = write_video(tmp_path / "clip.avi", 40, noise=50)
    damage(path, at=0.5, share=0.05)
    source = Video(path)
    found = list(source.frames())
    assert 30 < len(found) < 40
    assert source.faults() == [f"video {path} holds {len(found)} of its 40 frames"]


def test_clusters_that_are_gone_are_told_of(tmp_path):
    path = write_video(tmp_path / "clip.webm", 40, noise=50)
    damage(path, at=0.5, share=0.05)
    source = Video(path)
    assert len(list(source.frames())) < 40
    [fault] = source.faults()
    assert fault.startswith(f"parts of video {path} are missing: 0x00 at pos ")


@pytest.mark.parametrize("container", ["avi", "mkv", "webm"])
def test_a_video_that_breaks_off(container, tmp_path):
    path = write_video(tmp_path / f"clip.{container}", 40)
    cut(path, 0.5)
    source = Video(path)
    found = numbers(source)
    assert 5 < len(found) < 35
    assert found == list(range(len(found)))
    told = source.faults()[-1]
    if container == "avi":
        assert told.startswith(f"video {path} holds ")
        assert told.endswith(" of its 40 frames")
    else:
        assert told == f"parts of video {path} are missing: File ended prematurely"


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


def test_a_file_of_sound_alone(tmp_path):
    path = write_film(tmp_path / "song.mp4", sound="aac")
    with pytest.raises(VideoError, match="song.mp4 holds no pictures"):
        Video(path)


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", 3)
    monkeypatch.setattr(video.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs PyAV: pip install .*\[video\]"):
        Video(path)


def write_film(path, times=(), sound=None, turned=0):
    """Frames at these times, in seconds, with 2 s of a tone of 440 Hz."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10) if times else None
        track = sound and container.add_stream(sound, rate=48_000, layout="mono")
        if stream:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 10)
            if path.suffix != ".avi":  # it has no times
                stream.codec_context.time_base = Fraction(1, 1000)
            if turned:
                stream.set_display_rotation(turned)
        for number, time in enumerate(times):
            picture = av.VideoFrame.from_ndarray(frame(number), format="rgb24")
            picture.pts, picture.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(96_000) / 48_000)
        for start in range(0, len(wave) if sound else 0, 1000):
            piece = wave[None, start : start + 1000].astype(np.float32)
            heard = av.AudioFrame.from_ndarray(piece, "fltp", "mono")
            heard.sample_rate, heard.pts = 48_000, start
            heard.time_base = Fraction(1, 48_000)
            container.mux(track.encode(heard))
        for each in filter(None, (stream, track)):
            container.mux(each.encode())
    return path


def heard_in(path):
    """Seconds of sound, its codec and its strongest pitch in Hz."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        parts = [part.to_ndarray() for part in container.decode(audio=0)]
        wave = np.concatenate([part.reshape(-1) for part in parts]).astype(float)
        pitch = np.abs(np.fft.rfft(wave))[1:].argmax() + 1
        seconds = len(wave) / stream.rate
        return seconds, stream.codec_context.name, pitch / seconds


@pytest.mark.parametrize(
    ("name", "sound", "kept"),
    [
        ("film.mp4", "aac", "aac"),
        ("film.mkv", "flac", "flac"),
        ("film.avi", "pcm_s16le", "aac"),
    ],
)
def test_times_and_sound_are_kept(name, sound, kept, tmp_path):
    times = [0, 0.1, 0.2, 0.7, 0.8, 1.9]
    if name.endswith(".avi"):  # has no times
        times = [number / 10 for number in range(20)]
    source = Video(write_film(tmp_path / name, times, sound))
    target = tmp_path / "overlay.mp4"
    with (
        contextlib.closing(source),
        writing(target, source.frame_rate, source.sound) as add,
    ):
        for each in source.frames():
            add(each.pixels, each.time)
    assert source.faults() == []
    found = list(Video(target).frames())
    assert [float(each.time) for each in found] == pytest.approx(times, abs=2e-3)
    shown = [number_of(each.pixels) for each in found]
    assert np.abs(np.array(shown) - range(len(times))).max() <= 1  # coded twice
    seconds, codec, pitch = heard_in(target)
    assert codec == kept
    assert seconds == pytest.approx(2, abs=0.1)
    assert pitch == pytest.approx(440, abs=2)


@pytest.mark.parametrize("turned", [90, 180, 270])
def test_a_video_filmed_sideways_is_turned(turned, tmp_path):
    path = write_film(tmp_path / "clip.mp4", [0, 0.1, 0.2], turned=turned)
    source = Video(path)
    _, pictures = read_video(path)  # OpenCV turns them, too
    assert source.shape == pictures[0].shape[:2]
    for each, picture in zip(source.frames(), pictures, strict=True):
        assert np.abs(each.pixels.astype(int) - picture[..., ::-1]).mean() < 2


def test_written_videos_have_the_rate_the_size_and_the_frames(tmp_path):
    path = tmp_path / "new" / "clip_overlay.mp4"
    rate = Fraction(30_000, 1001)
    with writing(path, rate) as add:
        for number in range(25):
            add(frame(number), number / rate)
        add(cv2.resize(frame(25), (32, 32)), 25 / rate)
        assert not path.exists()
    found, pictures = read_video(path)
    assert found == pytest.approx(29.97, abs=1e-3)
    assert [picture.shape for picture in pictures] == [(48, 64, 3)] * 26
    assert [number_of(picture) for picture in pictures] == list(range(26))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("shape", [(49, 65), (48, 65), (1, 1), (1, 5000)])
def test_odd_sizes_are_kept(shape, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    pixels = cv2.blur(pixels, (9, 9)).reshape(*shape, 3)
    with writing(tmp_path / "clip.mp4", Fraction(10)) as add:
        add(pixels, Fraction(0))
    [only] = Video(tmp_path / "clip.mp4").frames()
    assert only.pixels.shape == (*shape, 3)
    assert np.abs(only.pixels.astype(int) - pixels).mean() < 8


def test_a_run_that_is_broken_off_leaves_no_video(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"of an earlier run")
    with pytest.raises(KeyboardInterrupt), writing(path, Fraction(10)) as add:
        add(frame(0), Fraction(0))
        raise KeyboardInterrupt
    assert path.read_bytes() == b"of an earlier run"
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_size_that_no_video_has(tmp_path, capfd):
    with (
        pytest.raises(VideoError, match="17000x16 .* is beyond H.264"),
        writing(tmp_path / "clip.mp4", Fraction(10)) as add,
    ):
        add(np.zeros((16, 17_000, 3), np.uint8), Fraction(0))
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")
