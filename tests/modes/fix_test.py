"""A copy in which what can be mended is; nothing changes in place."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from refinenet_jax import main
from refinenet_jax.errors import UserError
from tests import own_folder
from tests.modes.folders import CASES, GOOD, LISTED, Case, narrow
from tests.own_folder import SIZES, border, scene, write_folder


def outlines_are_11(label):
    return np.where(border(label) == 255, 4, label).astype(np.uint8)


def first_rows_are_void(label):
    label = label.copy()
    label[:2] = 255
    return label


# Name: how the folder is written, and what its labels mean.
MENDED = {
    "shifted_up": (CASES["shifted_up"], np.array),
    "zero_is_void": (CASES["zero_is_void"], first_rows_are_void),
    "last_is_void": (Case("", change=outlines_are_11), border),
    "ignore_not_declared": (CASES["ignore_not_declared"], border),
    "unknown_values": (CASES["unknown_values"], border),
    "colours_for_ids": (CASES["colours_for_ids"], np.array),
    "binary_mask": (CASES["binary_mask"], lambda x: (x == 2).astype(np.uint8)),
    "exif": (GOOD["photos on their side"], np.array),
    "colours": (GOOD["colours"], np.array),
}


def digest(folder):
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(str(path).encode() + path.read_bytes())
            found.update(str(path.stat().st_mtime_ns).encode())
    return found.hexdigest()


def fix(folder, tmp_path, *arguments):
    main.main(
        [
            "refinenet",
            "--config=folder",
            "--mode=check_data",
            f"--config.data.manual_dir={folder}",
            f"--workdir={tmp_path / 'run'}",
            f"--fix={tmp_path / 'mended'}",
            *arguments,
        ]
    )


def assert_holds(folder, expected):
    seed = 0
    for split, size in SIZES.items():
        for index in range(size):
            image, label = scene(seed)
            [path] = (folder / f"images/{split}").glob(f"{split}{index}.*")
            found = np.asarray(Image.open(path)).astype(int)
            assert found.shape == image.shape
            assert np.abs(found - image).mean() < 20  # photographs of noise are JPEGs
            found = np.asarray(
                Image.open(folder / f"labels/{split}/{split}{index}.png")
            )
            np.testing.assert_array_equal(found, expected(label))
            seed += 1


@pytest.mark.parametrize("name", MENDED)
def test_mended(name, tmp_path, capsys):
    case, expected = MENDED[name]
    folder = write_folder(tmp_path / "own", case.write, case.change, case.classes)
    if case.spoil:
        case.spoil(folder)
    before = digest(folder)
    fields = {"encoding": "colours"} if name == "colours" else case.fields or {}
    fix(
        folder,
        tmp_path,
        *[f"--config.data.folder.{k}={v}" for k, v in fields.items()],
    )
    assert digest(folder) == before
    assert_holds(tmp_path / "mended", expected)
    said = capsys.readouterr().out
    assert f"wrote {tmp_path / 'mended'}: 10 images and labels" in said
    assert "no errors" in said and "nothing was to be mended" not in said
    report = json.loads((tmp_path / "run/check_data/mended/report.json").read_text())
    assert report["errors"] == 0
    assert not list(tmp_path.glob(".mended*"))


def test_labels_of_another_size(tmp_path, capsys):
    folder = write_folder(tmp_path / "own", write=narrow)
    fix(folder, tmp_path)
    assert "10 labels resized to their images" in capsys.readouterr().out
    label = np.asarray(Image.open(tmp_path / "mended/labels/val/val0.png"))
    assert np.mean(label == scene(SIZES["train"])[1]) > 0.95


def test_shapes_become_ids(tmp_path, capsys):
    folder = write_folder(tmp_path / "own", classes="background\nhouse")
    for path in folder.glob("labels/*/*.png"):
        rows, columns = np.nonzero(np.asarray(Image.open(path)) == 2)
        corners = [[columns.min(), rows.min()], [columns.max(), rows.max()]]
        shape = {
            "label": "house",
            "shape_type": "rectangle",
            "points": np.array(corners, float).tolist(),
        }
        found = {"shapes": [shape], "imageHeight": 40, "imageWidth": 56}
        path.with_suffix(".json").write_text(json.dumps(found))
        path.unlink()
    fix(folder, tmp_path, "--config.data.folder.encoding=labelme")
    assert_holds(tmp_path / "mended", lambda label: _houses(label).astype(np.uint8))
    assert "10 labels of labelme written as class ids" in capsys.readouterr().out


def _houses(label):
    """The smallest rectangle around all of class 2."""
    rows, columns = np.nonzero(label == 2)
    found = np.zeros(label.shape, bool)
    found[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    return found


def test_what_cannot_be_mended_is_left_out(tmp_path, capsys):
    folder = write_folder(tmp_path / "own", change=lambda label: label + 1)
    path = folder / "labels/train/train1.png"
    path.write_bytes(path.read_bytes()[:40])
    fix(folder, tmp_path)
    said = capsys.readouterr().out
    assert "9 images and labels" in said
    assert "left out: label" in said and "train1.png cannot be decoded" in said


def test_a_healthy_folder(tmp_path, capsys):
    fix(write_folder(tmp_path / "own"), tmp_path)
    assert "nothing was to be mended" in capsys.readouterr().out


def test_refused(tmp_path):
    folder = write_folder(tmp_path / "own")
    with pytest.raises(UserError, match=r"lies in config\.data\.manual_dir, where"):
        fix(folder, tmp_path, f"--fix={folder / 'new'}")
    (tmp_path / "mended").mkdir()
    with pytest.raises(UserError, match="is there already: name a new folder"):
        fix(folder, tmp_path)
    with pytest.raises(UserError, match="--fix goes with --mode=check_data"):
        fix(folder, tmp_path, "--mode=eval")
    with pytest.raises(
        UserError, match="mends one's own folder: take the files of cam"
    ):
        fix(folder, tmp_path, "--config=camvid")


def test_nothing_that_can_be_read(tmp_path):
    folder = write_folder(tmp_path / "own", write=CASES["jpeg_label"].write)
    with pytest.raises(UserError, match="can be mended: label .* is a JPEG"):
        fix(folder, tmp_path)
    assert not list(tmp_path.glob("*mended*"))


def test_the_classes_keep_their_colours(tmp_path):
    folder = write_folder(tmp_path / "own", own_folder.rgb, classes=LISTED)
    fix(folder, tmp_path)
    assert (tmp_path / "mended/classes.txt").read_text().splitlines() == LISTED.split(
        "\n"
    )
