import contextlib
import dataclasses
import errno
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from flax import nnx
from PIL import Image

from refinenet_jax import config as config_lib
from refinenet_jax import config_check
from refinenet_jax.checkpoints.metadata import Metadata
from refinenet_jax.data.class_table import read_class_table
from refinenet_jax.data.picture_kind import RGB
from refinenet_jax.errors import UserError
from refinenet_jax.memory import OutOfMemory
from refinenet_jax.modes import predict
from refinenet_jax.pictures import text_size
from refinenet_jax.segmenter import Segmenter
from tests.architectures import abstract_network, architecture
from tests.inference.videos import FRAME_RATE, cut, damage, read_video, write_video
from tests.tiny_segmenter import tiny_segmenter

DESCRIBED = architecture("light_resnet18")


class Fake:
    """Takes the brightness of a pixel for its class, and counts how often it is asked."""

    def __init__(self, class_names):
        self.class_names = tuple(class_names)
        self.palette = [(7 * i % 256, i, 255 - i) for i in range(len(class_names))]
        self.metadata = Metadata(DESCRIBED, self.class_names, self.palette, step=6)
        self.pictures = RGB
        self.compilations = 0
        self.asked = 0

    def predict(self, image):
        self.asked += 1
        return (image[..., 0] % len(self.class_names)).astype(np.uint8)

    def probabilities(self, image):
        one_hot = np.eye(len(self.class_names), dtype=np.float32)
        return 0.5 * one_hot[self.predict(image)] + 0.5 / len(self.class_names)


@pytest.fixture
def fake(monkeypatch):
    """Takes the place of the checkpoint in every workdir."""
    fake = Fake([f"class {i}" for i in range(200)])
    monkeypatch.setattr(
        predict.Segmenter, "from_checkpoint", lambda *given, **options: fake
    )
    return fake


@pytest.fixture
def run(tmp_path):
    """Runs the mode on paths, with fields of config.predict; gives the results."""

    def run(*paths, window=0, **fields):
        config = config_lib.default()
        config.eval.window = window
        config.predict.update(fields)
        predict.run(config, tmp_path / "work", [str(path) for path in paths])
        return tmp_path / "work" / "predictions"

    return run


def write_image(path, shape=(20, 30), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def names_in(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def summary_in(folder):
    return json.loads((folder / "summary.json").read_text())


def test_images_and_a_video_together(fake, run, tmp_path):
    image = write_image(tmp_path / "in" / "photo.png", (20, 30))
    write_video(tmp_path / "in" / "film.avi", 12)
    folder = run(tmp_path / "in", image)
    frames = [f"film/{number:06}.png" for number in range(12)]
    assert names_in(folder) == [
        *frames,
        "film_overlay.mp4",
        "photo.png",
        "photo_overlay.jpg",
        "summary.json",
    ]
    summary = summary_in(folder)
    assert summary.pop("seconds") > 0
    assert summary == {
        "images": 1,
        "frames": 12,
        "kept": 0,
        "failed": 0,
        "compilations": 0,
        "step": 6,
    }
    label = Image.open(folder / "photo.png")
    assert label.mode == "P"
    pixels = np.asarray(Image.open(image))
    assert np.array_equal(np.asarray(label), pixels[..., 0] % 200)
    rate, overlays = read_video(folder / "film_overlay.mp4")
    assert rate == FRAME_RATE
    [shape] = {overlay.shape for overlay in overlays}
    assert shape[0] > 48 + 2 * text_size(64) and shape[1:] == (64, 3)
    _, pictures = read_video(tmp_path / "in" / "film.avi")
    for name, picture, overlay in zip(frames, pictures, overlays, strict=True):
        found = np.asarray(Image.open(folder / name))
        assert np.array_equal(found, picture[..., 2] % 200)
        expected = 0.5 * picture[..., ::-1] + 0.5 * np.array(fake.palette)[found]
        assert np.abs(overlay[:48, :, ::-1] - expected).mean() < 10  # H.264 has losses


def test_probabilities_are_numpy_arrays(fake, run, tmp_path):
    image = write_image(tmp_path / "photo.png", (20, 31))
    folder = run(image, probabilities=True)
    with np.load(folder / "photo.npz", allow_pickle=False) as found:
        assert set(found) == {"probabilities", "class_names"}
        shares, class_names = found["probabilities"], found["class_names"]
    assert (shares.shape, shares.dtype) == ((20, 31, 200), np.float32)
    assert class_names.tolist() == list(fake.class_names)
    label = np.asarray(Image.open(folder / "photo.png"))
    assert np.array_equal(label, shares.argmax(-1))
    assert np.array_equal(label, fake.predict(np.asarray(Image.open(image))))


def test_results_that_are_there_are_kept(fake, run, tmp_path, capsys):
    paths = [write_image(tmp_path / name) for name in ("a.png", "b.png")]
    film = write_video(tmp_path / "film.avi", 3)
    folder = run(*paths, film)
    assert fake.asked == 5
    (folder / "a_overlay.jpg").unlink()
    (folder / "b.png").write_bytes(b"mine")
    run(*paths, film)
    assert fake.asked == 6
    assert (folder / "b.png").read_bytes() == b"mine"
    found = summary_in(folder)
    assert (found["images"], found["frames"], found["kept"]) == (1, 0, 2)
    line = "2 were there already and are kept; --config.predict.overwrite=True predicts"
    assert line in capsys.readouterr().out
    run(*paths, probabilities=True)
    assert fake.asked == 8
    run(*paths, film, overwrite=True)
    assert fake.asked == 13
    assert summary_in(folder)["kept"] == 0
    assert "kept" not in capsys.readouterr().out.splitlines()[-1]


def test_a_film_predicted_again_leaves_no_old_frames(fake, run, tmp_path):
    folder = run(write_video(tmp_path / "film.avi", 5))
    run(write_video(tmp_path / "film.avi", 3), overwrite=True)
    assert len(list((folder / "film").iterdir())) == 3


def test_results_of_another_network_are_not_mixed_with(fake, run, tmp_path, capfd):
    paths = [write_image(tmp_path / name) for name in ("a.png", "b.png")]
    folder = run(paths[0])
    before = (folder / "a.png").read_bytes()
    fake.metadata = dataclasses.replace(fake.metadata, step=12)
    run(paths[1])
    assert not (folder / "a.png").exists()
    aside = folder.with_name("predictions_step6")
    assert (aside / "a.png").read_bytes() == before
    assert "results of step 6, this is step 12, move to" in capfd.readouterr().out
    run(*paths)
    assert fake.asked == 3  # b.png is kept, being of this step
    # Nothing is lost when it happens again.
    for step in (6, 12, 6):
        fake.metadata = dataclasses.replace(fake.metadata, step=step)
        run(paths[0])
    names = {path.name for path in folder.parent.glob("predictions*")}
    aside = {"predictions_step6", "predictions_step12", "predictions_step6_2"}
    assert aside | {"predictions"} <= names
    run(*paths, overwrite=True)
    assert fake.asked == 8


def test_what_cannot_be_read_is_left_out_and_named(fake, run, tmp_path, capfd):
    write_image(tmp_path / "in" / "good.png")
    for name in ("bad.jpg", "bad_film.mp4"):
        (tmp_path / "in" / name).write_bytes(b"neither")
    broken = write_video(tmp_path / "in" / "broken.avi", 40)
    cut(broken, 0.5)
    write_video(tmp_path / "in" / "damaged.webm", 40, noise=50)
    damage(tmp_path / "in" / "damaged.webm", at=0.5, share=0.05)
    capfd.readouterr()
    with pytest.raises(UserError) as error:
        run(tmp_path / "in")
    line = str(error.value)
    assert line.startswith("left out 2 of 5: image ")
    assert "bad.jpg cannot be decoded" in line
    assert "bad_film.mp4 is no video" in line
    assert f"did without parts of videos: damaged in video {broken}: frame " in line
    assert "damaged.webm are missing" in line
    assert "\n" not in line
    assert capfd.readouterr().err == ""
    folder = tmp_path / "work" / "predictions"
    summary = summary_in(folder)
    assert (summary["images"], summary["failed"]) == (1, 5)
    pictures = {
        name: len(read_video(folder / name)[1])
        for name in names_in(folder)
        if name.endswith(".mp4")
    }
    assert set(pictures) == {"broken_overlay.mp4", "damaged_overlay.mp4"}
    assert sum(pictures.values()) == summary["frames"]
    assert 30 < pictures["damaged_overlay.mp4"] < 40


def test_many_failures_are_counted(fake, run, tmp_path):
    for index in range(15):
        (tmp_path / f"{index}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="left out 15 of 15.*; and 5 more$"):
        run(tmp_path)


@pytest.fixture
def tiny(monkeypatch):
    """A real network that compiles in a blink takes the place of the checkpoint."""
    with tiny_segmenter(4) as segmenter:
        monkeypatch.setattr(
            predict.Segmenter, "from_checkpoint", lambda *given, **options: segmenter
        )
        yield segmenter


SCALE = (33550, 12, 3, (0.5, 0.5, 0.0), True)


def write_tiff(path, shape=(200, 300), **options):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    options = {"tile": (64, 64), "compression": "zlib"} | options
    tifffile.imwrite(path, pixels, photometric="rgb", extratags=[SCALE], **options)
    return path


def test_large_pictures_are_predicted_in_windows(tiny, run, tmp_path, capsys):
    """Beyond so many pixels, from a TIFF or not; what is there is kept."""
    paths = [write_tiff(tmp_path / "field.tif"), write_image(tmp_path / "a.png")]
    paths.append(write_image(tmp_path / "big.png", (100, 300)))
    options = {"max_megapixels": 0.02}
    folder = run(*paths, **options)
    assert names_in(folder) == [
        *("a.png", "a_overlay.jpg", "big.tif", "big_overlay.jpg"),
        *("field.tif", "field_overlay.jpg", "summary.json"),
    ]
    with tifffile.TiffFile(folder / "field.tif") as file:
        page = file.pages.first
        assert page.shape == (200, 300) and page.asarray().max() < 4
        assert page.tags[33550].value == SCALE[3]
    width, height = Image.open(folder / "field_overlay.jpg").size
    assert width == 300 and height > 200
    assert summary_in(folder)["images"] == 3
    out = capsys.readouterr().out
    assert "field, 200 x 300 pixels, is predicted in 1 windows" in out
    run(*paths, **options)
    assert summary_in(folder)["kept"] == 3


@pytest.mark.slow
def test_a_picture_too_long_for_a_jpeg_is_large(tiny, run, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "_LONGEST_JPEG", 400)
    folder = run(write_image(tmp_path / "long.png", (1, 401)), window=64)
    assert tifffile.imread(folder / "long.tif").shape == (1, 401)
    assert Image.open(folder / "long_overlay.jpg").size[0] == 401
    assert (folder / "summary.json").exists()
    folder = run(write_image(tmp_path / "just.png", (1, 400)), window=64)
    assert (folder / "just.png").exists()


def test_what_memory_does_not_hold_is_predicted_in_windows(
    tiny, run, tmp_path, monkeypatch, capsys
):
    def out_of_memory(image):
        raise OutOfMemory("no memory is left")

    monkeypatch.setattr(tiny, "predict", out_of_memory)
    path = write_tiff(tmp_path / "field.tif")
    folder = run(path)
    assert "memory does not hold field.tif whole" in capsys.readouterr().out
    with tifffile.TiffFile(folder / "field.tif") as file:
        assert file.pages.first.tags[33550].value == SCALE[3]


def test_what_is_asked_for_of_large_pictures_and_cannot_be(tiny, run, tmp_path):
    path = write_tiff(tmp_path / "field.tif")
    with pytest.raises(
        UserError, match=r"left out 1 of 1.*predict.probabilities=False"
    ):
        run(path, max_megapixels=0.02, probabilities=True)


def test_large_pictures_that_cannot_be_read(tiny, run, tmp_path):
    cut_short = write_tiff(tmp_path / "cut.tif")
    cut_short.write_bytes(cut_short.read_bytes()[:-100])
    good = write_tiff(tmp_path / "good.tif")
    with pytest.raises(UserError) as error:
        run(cut_short, good, max_megapixels=0.02)
    assert str(error.value) == (
        f"left out 1 of 2: image {cut_short} cannot be decoded: it is cut short"
    )
    folder = tmp_path / "work" / "predictions"
    assert names_in(folder) == ["good.tif", "good_overlay.jpg", "summary.json"]


def test_overlays_in_colours_that_all_tell_apart(fake, run, tmp_path):
    image = write_image(tmp_path / "photo.png", (40, 60))
    overlays, labels = [], []
    for palette in ("own", "distinct"):
        folder = run(image, palette=palette, overwrite=True)
        overlays.append(np.asarray(Image.open(folder / "photo_overlay.jpg")))
        labels.append((folder / "photo.png").read_bytes())
    assert labels[0] == labels[1]  # keeps the data set's colours
    assert not np.array_equal(*overlays)


def network_of(num_classes):
    """A real network whose weights are random numbers, quicker made than initialised."""
    description = architecture("light_resnet18", num_classes)
    graph, state = nnx.split(abstract_network(description))
    rng = np.random.default_rng(0)
    state = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0, 0.1, leaf.shape), leaf.dtype), state
    )
    metadata = Metadata(
        description,
        tuple(f"class {i}" for i in range(num_classes)),
        tuple((i, i, i) for i in range(num_classes)),
        size_multiple=32,
    )
    return Segmenter(nnx.merge(graph, state), metadata)


@pytest.mark.slow
def test_sizes_at_the_edge_with_a_real_network(run, tmp_path, monkeypatch):
    network = network_of(4)
    monkeypatch.setattr(
        predict.Segmenter, "from_checkpoint", lambda *given, **options: network
    )
    shapes = {"one": (1, 1), "wide": (1, 5000)}
    for name, shape in shapes.items():
        write_image(tmp_path / "in" / f"{name}.png", shape)
    folder = run(tmp_path / "in")
    assert (summary_in(folder)["images"], summary_in(folder)["failed"]) == (2, 0)
    for name, shape in shapes.items():
        label = np.asarray(Image.open(folder / f"{name}.png"))
        assert label.shape == shape
        assert label.max() < 4
        width, height = Image.open(folder / f"{name}_overlay.jpg").size
        assert width == shape[1] and height > shape[0]


def test_a_submission_goes_with_the_predictions(run, tmp_path, monkeypatch, capsys):
    fake = Fake(read_class_table("voc2012").class_names)
    monkeypatch.setattr(
        predict.Segmenter, "from_checkpoint", lambda *given, **options: fake
    )
    paths = [write_image(tmp_path / f"2008_00000{i}.png", seed=i) for i in range(2)]
    ids = tmp_path / "ids.txt"
    ids.write_text("2008_000000\n2008_000001\n2008_000002\n")
    with pytest.raises(UserError, match="missing: 2008_000002"):
        run(*paths, submission="voc2012", ids=str(ids))
    assert fake.asked == 0  # said before any work
    assert not (tmp_path / "work").exists()
    ids.write_text("2008_000000\n2008_000001\n")
    folder = run(*paths, submission="voc2012", ids=str(ids))
    assert (folder / "submission_voc2012.tar.gz").exists()
    assert "2 label maps, checked, are in" in capsys.readouterr().out
    film = write_video(tmp_path / "film.avi", 2)
    with pytest.raises(UserError, match="is a video, which no server takes"):
        run(*paths, film, submission="voc2012")
    with pytest.raises(UserError, match="set config.predict.submission too"):
        run(*paths, ids=str(ids))


def test_an_image_left_out_makes_no_submission(run, tmp_path, monkeypatch):
    fake = Fake(read_class_table("voc2012").class_names)
    monkeypatch.setattr(
        predict.Segmenter, "from_checkpoint", lambda *given, **options: fake
    )
    path = write_image(tmp_path / "2008_000001.png", (200, 300))
    path.write_bytes(path.read_bytes()[:4000])  # its header is whole
    with pytest.raises(UserError, match="left out 1 of 1.*; no archive is written"):
        run(path, submission="voc2012")
    assert names_in(tmp_path / "work" / "predictions") == ["summary.json"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("submission", "mars", "known: voc2012, cityscapes, ade20k"),
        ("competition", "comp1", "known: comp5, comp6"),
    ],
)
def test_bad_fields(field, value, message):
    config = config_lib.default()
    config.predict[field] = value
    with pytest.raises(UserError, match=message):
        config_check.check(config)


def test_a_run_that_is_broken_off_leaves_whole_files(fake, run, tmp_path, monkeypatch):
    calls = iter(range(100))

    def interrupted(image):
        if next(calls) == 7:
            raise KeyboardInterrupt
        return image[..., 0] % 200

    monkeypatch.setattr(fake, "predict", interrupted)
    paths = [write_image(tmp_path / "a.png"), write_video(tmp_path / "film.avi", 20)]
    with pytest.raises(KeyboardInterrupt):
        run(*paths)
    folder = tmp_path / "work" / "predictions"
    frames = [f"film/{number:06}.png" for number in range(6)]
    assert names_in(folder) == ["a.png", "a_overlay.jpg", *frames, "summary.json"]
    monkeypatch.undo()
    monkeypatch.setattr(
        predict.Segmenter, "from_checkpoint", lambda *given, **options: fake
    )
    run(*paths)
    assert fake.asked == 20  # the image is kept, the film begins again


def test_a_disk_that_fills_up(fake, run, tmp_path, monkeypatch):
    path = write_image(tmp_path / "a.png")
    original = type(path).write_bytes

    def full(target, data):
        if "overlay" in target.name:
            original(target, data[:50])
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(target, data)

    monkeypatch.setattr(type(path), "write_bytes", full)
    with pytest.raises(UserError) as error:
        run(path)
    folder = tmp_path / "work" / "predictions"
    assert str(error.value) == (
        f"cannot write a_overlay.jpg into {folder} (No space left on device): "
        "make room there or choose another --workdir"
    )
    assert names_in(folder) == ["a.png", "summary.json"]


def test_an_output_folder_that_is_a_file(fake, run, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "predictions").touch()
    with pytest.raises(UserError, match="summary.json into .*predictions .*move away"):
        run(write_image(tmp_path / "a.png"))
    assert fake.asked == 0


@contextlib.contextmanager
def small_disk(folder):
    """A file system of 400 KB where that can be had; gives whether it can."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and not subprocess.call(
        command, stderr=subprocess.DEVNULL
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


# What main does, with a network that needs no checkpoint.
PROGRAM = """
import resource, sys
import numpy as np
from refinenet_jax import main
from refinenet_jax.checkpoints.metadata import Metadata
from refinenet_jax.data.picture_kind import RGB
from refinenet_jax.models import Architecture
from refinenet_jax.modes import predict
from refinenet_jax.pictures import text_size

class Fake:
    class_names, palette = ["a"] * 200, [(i, i, i) for i in range(200)]
    pictures = RGB
    metadata, compilations = Metadata(Architecture("light_resnet18", 200), (), (), step=1), 0
    def predict(self, image):
        return (image[..., 0] % 200).astype(np.uint8)

predict.Segmenter.from_checkpoint = lambda *given, **options: Fake()
if sys.argv.pop() == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
main.run()
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["images", "video"])
def test_a_disk_that_is_really_full(kind, tmp_path):
    if kind == "images":
        for index in range(12):
            write_image(tmp_path / "in" / f"{index}.png", (200, 300), seed=index)
    else:
        (tmp_path / "in").mkdir()
        write_video(tmp_path / "in" / "film.avi", 400, noise=200)
    with small_disk(tmp_path / "disk") as mounted:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                PROGRAM,
                "--config=configs/default.py",
                f"--workdir={tmp_path / 'disk' / 'run'}",
                "--mode=predict",
                f"--images={tmp_path / 'in'}",
                "disk" if mounted else "limit",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        folder = tmp_path / "disk" / "run" / "predictions"
        assert done.returncode == 2, done.stderr
        [line] = done.stderr.splitlines()
        reason = "No space left on device" if mounted else "File too large"
        assert line.startswith("error: cannot write ")
        assert f"{folder}" in line
        assert f"({reason}): make room there or choose another --workdir" in line
        for path in folder.rglob("*.*"):
            assert not path.name.startswith(".")
            if path.suffix in (".png", ".jpg"):
                Image.open(path).load()
        assert not (folder / "film_overlay.mp4").exists()
        assert summary_in(folder)["images"] == 0
