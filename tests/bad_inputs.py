"""Bad inputs by name: what is given, and what the program answers in one line.

`python -m tests.bad_inputs` runs them all and prints a table in Markdown.
"""

import contextlib
import dataclasses
import io
import json
import os
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tifffile
from PIL import Image

from refinenet_jax import main
from refinenet_jax.weights.torch import write_safetensors
from tests.own_folder import write_folder
from tests.weights.networks import checkpoint_of

TINY = (
    "--config=default",
    "--config.train.num_steps=1",
    "--config.train.batch_size=4",
    "--config.data.crop_size=32",
)


@dataclasses.dataclass
class Place:
    """Where bad inputs are made.

    Attributes:
        root: an empty folder; each input makes what it needs in there.
        network: a workdir with a network that was not trained.
    """

    root: Path
    network: Path


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command line led to.

    Attributes:
        code: of exit; None where it ended in a traceback.
        out: on stdout.
        err: on stderr, or the traceback's last line.
        seconds: that it took.
    """

    code: int | None
    out: str
    err: str
    seconds: float


Given = Callable[[Place], list[str]]
# name: (what is given, a part of the line that answers).
TABLE: dict[str, tuple[Given, str]] = {}


def make_place(root: Path) -> Place:
    """Makes the network that some inputs need."""
    place = Place(root, root / "network")
    weights = root / "network.safetensors"
    write_safetensors(weights, checkpoint_of("light_resnet18", num_classes=6), {})
    answer = run(
        *TINY, "--mode=convert", f"--weights={weights}", f"--workdir={place.network}"
    )
    assert answer.code == 0, answer.err
    return place


def run(*arguments: str) -> Answer:
    """Runs the program in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    start = time.monotonic()
    with (
        mock.patch.object(sys, "argv", ["refinenet", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main.run()
        except SystemExit as exit:
            code = exit.code
        except Exception as error:  # noqa: BLE001 (what is to be found here)
            code = None
            print(f"{type(error).__name__}: {error}", file=err)
    return Answer(code, out.getvalue(), err.getvalue(), time.monotonic() - start)


def answer_to(name: str, place: Place) -> Answer:
    """Runs the command line of one input."""
    given, _ = TABLE[name]
    place.root.mkdir(exist_ok=True)
    return run(*TINY, f"--workdir={place.root / 'workdir'}", *given(place))


def _flags(name: str, line: str, *arguments: str) -> None:
    TABLE[name] = (lambda place: list(arguments), line)


def _made(line: str) -> Callable[[Given], Given]:
    """Takes a function that makes files and gives the arguments; named as it is."""

    def add(given: Given) -> Given:
        TABLE[given.__name__.strip("_").replace("_", " ")] = (given, line)
        return given

    return add


for _field in ("optimizer.learning_rate", "optimizer.weight_decay"):
    _flags(f"{_field}=inf", "='inf' must be", f"--config.{_field}=inf")
    _flags(f"{_field}=nan", "='nan' must be", f"--config.{_field}=nan")
_flags("optimizer.clip_norm=inf", "must be in 0..", "--config.optimizer.clip_norm=inf")
_flags(
    "class weights that are no number",
    "must be a tuple",
    "--config.loss.class_weights=nan",
)
_flags(
    "another number of class weights",
    "has 3 numbers, but shapes has 6 classes",
    "--config.loss.class_weights=(1,2,3)",
)
_flags("a loss of nothing", "all weights are 0", "--config.loss.cross_entropy=0")
_flags("data.blur=inf", "must be in 0..100", "--config.data.blur=inf")
_flags("model.mean of 1e9", "must be a tuple", "--config.model.mean=(1e9,1e9,1e9)")
_flags("a crop beyond reason", "in 1..8192", "--config.data.crop_size=10000000")
_flags(
    "a crop beyond memory",
    "needs at least",
    "--config.data.crop_size=8192",
    "--config.data.check_images=0",
)
_flags(
    "a batch beyond memory",
    "takes about",
    "--config.train.batch_size=65536",
    "--config.data.crop_size=512",
    "--config.data.check_images=0",
)
_flags(
    "workers and threads beyond memory",
    "config.data.num_threads=256, takes about",
    "--config.data.num_workers=256",
    "--config.data.num_threads=256",
    "--config.data.check_images=0",
)
_flags("threads beyond reason", "in 1..256", "--config.data.num_threads=1000000")
_flags("scales beyond reason", "at most 16", "--config.eval.scales=(1e6,)")
_flags("size_multiple beyond reason", "8192", "--config.eval.size_multiple=1000000")
_flags("samples beyond reason", "100000", "--config.eval.bootstrap_samples=10**12")
_flags("a coordinator without port", "HOST:PORT", "--coordinator_address=here")
_flags("no process", "in 1..65536", "--num_processes=0")
_flags(
    "a process beyond the last",
    "--process_id=2 must be less than --num_processes=2",
    "--coordinator_address=a:1",
    "--num_processes=2",
    "--process_id=2",
)
for _name in (
    "config",
    "config.data.name",
    "config.data.train_split",
    "config.data.manual_dir",
    "config.data.dir",
    "config.init_from",
    "config.model.variant",
    "workdir",
    "mode",
    "x" * 3000,
):
    _flags(f"a name of 300 characters in --{_name[:30]}", "", f"--{_name}={'x' * 300}")
_flags("a name that is no UTF-8", "must be text", "--workdir=a\udcff")


@_made("no name over 255 bytes")
def _an_image_with_a_long_name(place: Place) -> list[str]:
    return _predict(place, Path("x" * 300))


_LARGE = "--config.predict.max_megapixels=0.001"


@_made("cut.tif cannot be decoded: it is cut short")
def _a_large_TIFF_that_is_cut_short(place: Place) -> list[str]:
    file = place.root / "cut.tif"
    tifffile.imwrite(file, np.ones((100, 150, 3), np.uint8), photometric="rgb")
    file.write_bytes(file.read_bytes()[:-9])
    return [*_predict(place, file), _LARGE]


@_made("strips of 10000 x 10000, too large to read by window")
def _a_large_TIFF_in_one_strip(place: Place) -> list[str]:
    file = place.root / "strip.tif"
    options = {"shape": (10_000, 10_000, 3), "dtype": np.uint8, "rowsperstrip": 10_000}
    tifffile.imwrite(file, photometric="rgb", **options)
    return _predict(place, file)


@_made("config.eval.window")
def _images_beyond_memory(place: Place) -> list[str]:
    return [
        "--mode=eval",
        f"--workdir={place.network}",
        "--config.eval.size_multiple=8192",
        "--config.eval.batch_size=256",
    ]


@_made("cannot be prepared in")
def _data_dir_is_a_file(place: Place) -> list[str]:
    file = place.root / "file"
    file.write_text("x")
    return [f"--config.data.dir={file}"]


@_made("choose another")
def _data_dir_in_proc(place: Place) -> list[str]:
    return ["--config.data.dir=/proc"]


@_made("cannot be made")
def _workdir_in_proc(place: Place) -> list[str]:
    return ["--workdir=/proc/run"]


@_made("is not as it was prepared")
def _prepared_data_with_garbled_info(place: Place) -> list[str]:
    folder = place.root / "prepared/shapes/1.1.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{")
    return [f"--config.data.dir={place.root / 'prepared'}"]


def _own(place: Place, *arguments: str, classes: str = "") -> tuple[Path, list[str]]:
    """A good folder of pictures, and the arguments to look through it."""
    folder = write_folder(
        place.root / "own", **({"classes": classes} if classes else {})
    )
    return folder, [
        "--mode=check_data",
        "--config.data.name=folder",
        "--config.model.num_classes=0",
        f"--config.data.manual_dir={folder}",
        f"--config.data.dir={place.root / 'prepared'}",
        *arguments,
    ]


def _drawn(place: Place, **change: object) -> list[str]:
    """A folder of LabelMe's, one of whose files is not as it should be."""
    folder, arguments = _own(place, "--config.data.folder.encoding=labelme")
    for path in folder.glob("labels/*/*.png"):
        shape = {
            "label": "road",
            "shape_type": "polygon",
            "points": [[1, 1], [50, 1], [50, 30]],
        }
        found = {"shapes": [shape], "imageHeight": 40, "imageWidth": 56}
        if path.stem == "train3":
            found = {"shapes": [shape | change], "imageHeight": 40, "imageWidth": 56}
        path.with_suffix(".json").write_text(json.dumps(found))
        path.unlink()
    return arguments


@_made("train3.json, shape 1 has a corner outside the picture of 56 x 40; draw")
def _a_polygon_outside_the_picture(place: Place) -> list[str]:
    return _drawn(place, points=[[1, 1], [90, 1], [50, 30]])


@_made("has the class 'lake', which classes.txt does not list; add the name")
def _a_category_that_no_list_has(place: Place) -> list[str]:
    return _drawn(place, label="lake")


@_made("train3.json is no JSON of LabelMe: it has no shapes")
def _a_JSON_that_is_no_LabelMe(place: Place) -> list[str]:
    arguments = _drawn(place)
    (place.root / "own/labels/train/train3.json").write_text('{"version": 4}')
    return arguments


@_made("of category 8, which is none of its categories; add")
def _a_category_that_COCO_does_not_have(place: Place) -> list[str]:
    folder, arguments = _own(place, "--config.data.folder.encoding=coco")
    for split in ("train", "val"):
        mark = {"image_id": 1, "category_id": 8, "segmentation": {"counts": [2240]}}
        image = {"id": 1, "file_name": f"{split}0.png", "height": 40, "width": 56}
        found = {
            "images": [image],
            "categories": [{"id": 7, "name": "road"}],
            "annotations": [mark],
        }
        (folder / f"instances_{split}.json").write_text(json.dumps(found))
    return arguments


@_made("--fix goes with --mode=check_data")
def _fix_in_another_mode(place: Place) -> list[str]:
    return ["--fix=mended"]


@_made("lists 256 classes; there can be 255")
def _more_classes_than_255(place: Place) -> list[str]:
    return _own(place, classes="\n".join(f"class {i}" for i in range(256)))[1]


@_made("has 30000 characters")
def _a_class_of_30000_characters(place: Place) -> list[str]:
    return _own(place, classes="\n".join(["road", "sky", " " * 29_999 + "x"]))[1]


def _encoded(place: Place, name: str, encoding: str) -> list[str]:
    folder, arguments = _own(place)
    (folder / name).write_text("Straße\nHaus\nBäume\nFeld\n", encoding=encoding)
    return arguments


@_made("classes.txt is no text in UTF-8")
def _classes_in_latin_1(place: Place) -> list[str]:
    return _encoded(place, "classes.txt", "latin-1")


@_made("classes.txt is no text in UTF-8")
def _classes_in_utf_16(place: Place) -> list[str]:
    return _encoded(place, "classes.txt", "utf-16")


@_made("train.txt is no text in UTF-8")
def _a_list_in_latin_1(place: Place) -> list[str]:
    return _encoded(place, "train.txt", "latin-1")


@_made("train.txt is no text in UTF-8")
def _a_list_in_utf_16(place: Place) -> list[str]:
    return _encoded(place, "train.txt", "utf-16")


@_made("lists ., which")
def _a_list_with_a_dot(place: Place) -> list[str]:
    folder, arguments = _own(place)
    (folder / "train.txt").write_text(".\n")
    return arguments


@_made("lists /, which")
def _a_list_with_a_slash(place: Place) -> list[str]:
    folder, arguments = _own(place)
    (folder / "train.txt").write_text("/\n")
    return arguments


@_made("it is no regular file")
def _classes_that_are_a_pipe(place: Place) -> list[str]:
    folder, arguments = _own(place)
    (folder / "classes.txt").unlink()
    os.mkfifo(folder / "classes.txt")
    return arguments


@_made("it is no regular file")
def _an_image_of_a_data_set_that_is_a_pipe(place: Place) -> list[str]:
    folder, arguments = _own(place)
    (folder / "images/train/train0.png").unlink()
    os.mkfifo(folder / "images/train/train0.png")
    return arguments


@_made("it is no regular file")
def _a_label_that_is_a_device(place: Place) -> list[str]:
    folder, arguments = _own(place)
    (folder / "labels/val/val0.png").unlink()
    (folder / "labels/val/val0.png").symlink_to("/dev/zero")
    return arguments


def _predict(place: Place, *inputs: Path) -> list[str]:
    images = [f"--images={path}" for path in inputs]
    return ["--mode=predict", f"--workdir={place.network}", *images]


@_made("it is no regular file")
def _an_image_that_is_a_pipe(place: Place) -> list[str]:
    os.mkfifo(place.root / "pipe.png")
    return _predict(place, place.root / "pipe.png")


@_made("/dev/zero cannot be read: it is no regular file")
def _an_image_that_is_a_device(place: Place) -> list[str]:
    return _predict(place, Path("/dev/zero"))


@_made("it is no regular file")
def _a_video_that_is_a_pipe(place: Place) -> list[str]:
    os.mkfifo(place.root / "pipe.mp4")
    return _predict(place, place.root / "pipe.mp4")


@_made("config.eval.window")
def _an_image_beyond_memory(place: Place) -> list[str]:
    file = place.root / "large.png"
    Image.fromarray(np.zeros((9_000, 9_000), np.uint8)).save(file)
    # Whose class ids alone would be predicted in windows.
    whole = "--config.predict.probabilities=True", "--config.predict.max_megapixels=81"
    return [*_predict(place, file), *whole]


@_made("the pictures of a data set must be of one kind")
def _channels_that_differ_between_files(place: Place) -> list[str]:
    folder, arguments = _own(place)
    _bands(folder / "images/train/train3.tif", np.zeros((40, 56, 6), np.uint16))
    (folder / "images/train/train3.png").unlink()
    return arguments


@_made("has 2240 of 2240 pixels that are NaN or infinite")
def _a_float_picture_with_NaN(place: Place) -> list[str]:
    folder, arguments = _own(place)
    for path in folder.glob("images/*/*.png"):
        values = np.full((40, 56), np.nan if path.stem == "train3" else 0.5, np.float32)
        np.save(path.with_suffix(".npy"), values)
        path.unlink()
    return arguments


@_made("bands.tif has 6 channels of 16 bits, not RGB of 8 bits")
def _a_picture_of_other_channels_than_the_network(place: Place) -> list[str]:
    file = place.root / "bands.tif"
    _bands(file, np.zeros((40, 56, 6), np.uint16))
    return _predict(place, file)


@_made("floats.tif has 3 channels of float32, not RGB of 8 bits")
def _channels_of_floats_for_a_network_of_RGB(place: Place) -> list[str]:
    file = place.root / "floats.tif"
    tifffile.imwrite(file, np.zeros((40, 56, 3), np.float32))
    return _predict(place, file)


@_made("bands.tif cannot be decoded: it is damaged or no image")
def _a_TIFF_cut_short(place: Place) -> list[str]:
    file = place.root / "bands.tif"
    _bands(file, np.zeros((400, 560, 3), np.uint8))
    file.write_bytes(file.read_bytes()[:300_000])
    return _predict(place, file)


def _bands(path: Path, values: np.ndarray) -> None:
    """Writes [H,W,C] as a TIFF."""
    tifffile.imwrite(path, values, photometric="minisblack", planarconfig="contig")


def _safetensors(place: Place, header: bytes, data: bytes = b"") -> list[str]:
    file = place.root / "weights.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return ["--mode=convert", f"--weights={file}"]


@_made("conv is stored as F8_E4M3, which is not read here")
def _safetensors_with_float8(place: Place) -> list[str]:
    entry = {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}
    return _safetensors(place, json.dumps({"conv": entry}).encode(), bytes(4))


@_made("is no .safetensors file")
def _safetensors_without_json(place: Place) -> list[str]:
    return _safetensors(place, b"no JSON")


@_made("is no .safetensors file")
def _safetensors_with_a_list(place: Place) -> list[str]:
    return _safetensors(place, b"[1, 2]")


@_made("what its header says of the network cannot be read")
def _safetensors_of_ours_with_a_garbled_header(place: Place) -> list[str]:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = {"__metadata__": {"refinenet_jax": "[1]"}, "conv": entry}
    return _safetensors(place, json.dumps(header).encode(), bytes(4))


def _pickle(place: Place, content: object) -> list[str]:
    torch = pytest.importorskip("torch")

    file = place.root / "weights.pth"
    torch.save(content, file)
    return ["--mode=convert", f"--weights={file}"]


@_made("conv is stored as sparse_coo, float32")
def _a_sparse_tensor(place: Place) -> list[str]:
    torch = pytest.importorskip("torch")

    return _pickle(place, {"conv": torch.eye(3).to_sparse()})


@_made("its weights are numbered (1), not named")
def _weights_named_by_numbers(place: Place) -> list[str]:
    torch = pytest.importorskip("torch")

    return _pickle(place, {1: torch.ones(1)})


def _table() -> str:
    """All answers in Markdown."""
    rows = ["| input | code | seconds | line |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        place = make_place(Path(folder))
        for number, name in enumerate(TABLE):
            here = dataclasses.replace(place, root=Path(folder) / str(number))
            answer = answer_to(name, here)
            line = answer.err.strip().replace("|", "\\|").replace(folder, "…")
            line = line if len(line) < 300 else f"{line[:150]} … {line[-150:]}"
            rows.append(f"| {name} | {answer.code} | {answer.seconds:.1f} | {line} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(_table())
