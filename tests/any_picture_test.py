"""Pictures that are not RGB, all the way: checked, trained on, scored, predicted, exported."""

import json

import cv2
import jax
import numpy as np
import pytest
import tifffile
from PIL import Image

from refinenet_jax import Segmenter
from refinenet_jax.models import add_backbone
from tests.in_process import run
from tests.own_folder import HEIGHT, WIDTH, scene
from tests.restored import restored_tables
from tests.tiny import TINY

QUICK = (
    "--config=folder:light_tiny",
    "--config.train.num_steps=2",
    "--config.train.batch_size=4",
    "--config.train.eval_every=2",
    "--config.train.checkpoint_every=2",
    "--config.data.crop_size=32",
    "--config.data.num_workers=0",
    "--config.data.colour_jitter=(0,0,0,0)",
    "--config.data.rotation=10",
    "--config.model.cascade=single",
    "--config.model.pooling_stages=1",
    "--config.eval.bootstrap_samples=0",
)


def grey_16(image):
    """uint8 [H,W,3] → uint16 [H,W]: luminance."""
    return (image @ [0.299, 0.587, 0.114] * 257).round().astype(np.uint16)


def six(image):
    """uint8 [H,W,3] → uint16 [H,W,6]: RGB, how they change, and the mean around."""
    grey = grey_16(image)
    more = [abs(cv2.Sobel(grey, cv2.CV_32F, *d)) for d in ((1, 0), (0, 1))]
    bands = np.dstack([image * 257.0, *more, cv2.blur(grey, (5, 5))])
    return bands.clip(0, 65535).astype(np.uint16)


def floats(image):
    """uint8 [H,W,3] → float32 [H,W,2] around 280, NaN in a corner."""
    values = (image[..., :2] / 255 * 20 + 270).astype(np.float32)
    values[:5, :7, 1] = np.nan
    return values


def save_png(path, image):
    assert cv2.imwrite(f"{path}.png", grey_16(image))


def save_tif(path, image):
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(f"{path}.tif", six(image), **options)


def save_npy(path, image):
    np.save(f"{path}.npy", floats(image))


def write_folder(root, *saves, splits=(("train", 5), ("val", 3))):
    """A folder whose pictures are saved by each of the functions in turn."""
    number = 0
    for split, size in splits:
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for index in range(size):
            image, label = scene(number)
            saves[number % len(saves)](root / f"images/{split}/{split}{index}", image)
            Image.fromarray(label).save(root / f"labels/{split}/{split}{index}.png")
            number += 1
    (root / "classes.txt").write_text("field\nroad\nhouse\ntree\n")
    return root


@pytest.fixture(autouse=True)
def tiny_networks():
    hurry = "jax_disable_most_optimizations"
    before = jax.config.read(hurry)
    jax.config.update(hurry, True)
    with restored_tables():
        add_backbone("tiny", TINY)
        yield
    jax.config.update(hurry, before)


def read(path):
    return json.loads(path.read_text())


CASES = {
    "grey": (save_png, 1, "uint16", ()),
    "six": (save_tif, 6, "uint16", ("--config.data.shown_channels=(5,0,3)",)),
    "floats": (save_npy, 2, "float32", ("--config.data.not_finite=ignore",)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_all_the_way(case, tmp_path):
    save, channels, dtype, more = CASES[case]
    photos = write_folder(tmp_path / "photos", save)
    common = (
        *QUICK,
        *more,
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.manual_dir={photos}",
        f"--config.data.dir={tmp_path / 'data'}",
    )
    code, _, err = run(*common, "--mode=check_data")
    assert code == 0, err
    told = read(tmp_path / "run/check_data/report.json")["splits"]["train"]["pictures"]
    assert told["kinds"] == [{"channels": channels, "dtype": dtype}]
    code, _, err = run(*common)
    assert code == 0, err
    config = read(tmp_path / "run/config.json")
    assert config["model"]["channels"] == 0
    segmenter = Segmenter.from_checkpoint(tmp_path / "run")
    architecture = segmenter.metadata.architecture
    # The network has what check_data says of the training pictures.
    assert list(architecture.mean) == told["mean"]
    assert list(architecture.std) == told["std"]
    assert architecture.picture_dtype == dtype
    code, _, err = run(*common, "--mode=eval")
    assert code == 0, err
    record = read(tmp_path / "run/eval.json")
    hidden = 3 * 5 * 7 if case == "floats" else 0
    assert record["ignored_pixels"] == hidden
    assert np.sum(record["confusion_matrix"]) == 3 * HEIGHT * WIDTH - hidden

    code, _, err = run(*common, "--mode=predict", f"--images={photos / 'images/val'}")
    assert code == 0, err
    [path, *_] = sorted((photos / "images/val").iterdir())
    label = np.asarray(Image.open(tmp_path / "run/predictions/val0.png"))
    pixels = {"grey": grey_16, "six": six, "floats": floats}[case](scene(5)[0])
    for given in (path, pixels):
        np.testing.assert_array_equal(segmenter.predict(given), label)
    overlay = np.asarray(Image.open(tmp_path / "run/predictions/val0_overlay.jpg"))
    assert overlay[:HEIGHT].std() > 10

    Image.fromarray(scene(0)[0]).save(tmp_path / "photo.png")
    code, _, err = run(*common, "--mode=predict", f"--images={tmp_path / 'photo.png'}")
    assert code == 2
    assert "photo.png has RGB of 8 bits, not" in err.splitlines()[-1]

    export = ("--mode=export", "--config.export.formats=('stablehlo',)")
    code, _, err = run(*common, *export, "--config.export.size=(32,64)")
    assert code == 0, err
    exported = read(tmp_path / "run/export/export.json")
    assert exported["input"]["shape"] == ["batch", 32, 64, channels]
    assert exported["input"]["dtype"] == dtype
    assert exported["formats"]["stablehlo"]["agreement"] > 0.999


@pytest.mark.parametrize(
    ("saves", "arguments", "words"),
    [
        ((save_png, save_tif), (), "must be of one kind"),
        ((save_npy,), (), "35 of 2240 pixels that are NaN or infinite"),
        ((save_png,), ("--config.model.channels=4",), "config.model.channels=4: set 0"),
        ((save_png,), ("--config.data.shown_channels=(1,)",), "0 to 0"),
    ],
)
def test_what_does_not_fit_is_found_in_the_data(saves, arguments, words, tmp_path):
    photos = write_folder(tmp_path / "photos", *saves)
    code, _, err = run(
        *QUICK,
        "--mode=check_data",
        f"--config.data.manual_dir={photos}",
        f"--workdir={tmp_path / 'run'}",
        *arguments,
    )
    assert code == 2
    assert words in err.splitlines()[-1]
    assert "Traceback" not in err


def test_colours_are_changed_of_rgb_alone(tmp_path):
    code, _, err = run(
        *(word for word in QUICK if "colour_jitter" not in word),
        f"--config.data.manual_dir={write_folder(tmp_path / 'photos', save_png)}",
        f"--config.data.dir={tmp_path / 'data'}",
        f"--workdir={tmp_path / 'run'}",
    )
    assert code == 2
    assert "set config.data.colour_jitter=(0,0,0,0)" in err.splitlines()[-1]
