"""Mode check_data on real files: what people get wrong, and that the remedy helps."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refinenet_jax.assembly import data as job
from refinenet_jax.config import default
from refinenet_jax.errors import UserError
from refinenet_jax.modes import check_data
from tests import own_folder
from tests.browser import assert_readable
from tests.modes.folders import CASES, GOOD, LISTED, damage, narrow
from tests.own_folder import border, grey, write_folder
from tests.references import PICTURES

REPOSITORY = Path(__file__).parents[2]


def of_folder(folder, **fields):
    config = default()
    config.model.num_classes = 0
    config.data.name = "folder"
    config.data.manual_dir = str(folder)
    return changed(config, fields)


def changed(config, fields):
    for name, value in fields.items():
        if name in config.data.folder:
            config.data.folder[name] = value
        else:
            config.data[name] = value
    return config


def check(config, workdir):
    """(what was refused or "", what report.json holds)."""
    refused = ""
    try:
        check_data.run(config, workdir)
    except UserError as error:
        refused = str(error)
        assert "\n" not in refused
    report = json.loads((workdir / "check_data/report.json").read_text())
    assert bool(refused) == bool(report["errors"])
    return refused, report


def codes(report, *levels):
    return [x["code"] for x in report["findings"] if x["level"] in levels]


@pytest.mark.parametrize("code", CASES)
def test_a_broken_folder(code, tmp_path, capsys):
    case = CASES[code]
    folder = write_folder(tmp_path / "own", case.write, case.change, case.classes)
    if case.spoil:
        case.spoil(folder)
    fields = case.fields or {}
    refused, report = check(of_folder(folder, **fields), tmp_path / "run")
    assert codes(report, "error", "warning") == [code] * report["errors"]
    message = report["findings"][0]["message"]
    assert case.says in message
    assert code in refused and message in refused and "report.html" in refused
    told = capsys.readouterr().out + refused
    messages = [finding["message"] for finding in report["findings"]]
    assert all(told.count(each) == messages.count(each) for each in messages)
    assert code in (tmp_path / "run/check_data/report.html").read_text()
    with pytest.raises(UserError, match=code):
        job.refuse_errors(of_folder(folder, **fields))

    if case.remedy is None:
        shutil.rmtree(folder)
        write_folder(folder, grey, classes=LISTED)
        mended = of_folder(folder)
    else:
        mended = changed(of_folder(folder, **fields), case.remedy)
    refused, report = check(mended, tmp_path / "mended")
    assert not refused
    # Files that are left out are told of.
    assert codes(report, "error", "warning") == ["damaged"] * (code == "damaged")


def test_a_damaged_file_that_is_skipped_is_counted(tmp_path):
    folder = write_folder(tmp_path / "own")
    damage(folder)
    _, report = check(of_folder(folder, damaged="skip"), tmp_path / "run")
    (finding,) = report["findings"]
    assert finding["level"] == "warning" and report["warnings"] == 1
    assert finding["message"].startswith("1 of 6 images: ")
    assert finding["files"] == ["labels/train/train1.png"]
    assert report["splits"]["train"]["unreadable"] == 1


@pytest.mark.parametrize("name", GOOD)
def test_a_good_folder(name, tmp_path, capsys):
    case = GOOD[name]
    folder = write_folder(tmp_path / "own", case.write, case.change, case.classes)
    if case.spoil:
        case.spoil(folder)
    config = of_folder(folder, **case.fields or {})
    job.refuse_errors(config)
    assert capsys.readouterr().out == ""
    refused, report = check(config, tmp_path / "run")
    assert not refused and not codes(report, "error", "warning")
    sideways = name == "photos on their side"
    assert codes(report, "note") == ["exif"] * 2 * sideways
    train = report["splits"]["train"]
    assert (train["images"], train["scanned"]) == (6, 6)
    assert train["turned"] == 6 * sideways
    assert train["sizes"] == {
        "smallest": [56, 40],
        "median": [56, 40],
        "largest": [56, 40],
        "distinct": 1,
    }
    assert all(entry["images"] == 6 for entry in train["classes"].values())
    assert train["unknown_values"] == {}
    labelled = sum(entry["pixels"] for entry in train["classes"].values())
    assert labelled == pytest.approx((1 - train["ignored_share"]) * 6 * 40 * 56)


def test_shapes_are_healthy(tmp_path, capsys):
    config = default()
    config.data.dir = str(tmp_path / "prepared")
    job.refuse_errors(config)
    capsys.readouterr()
    job.refuse_errors(config)
    assert capsys.readouterr().out == ""
    refused, report = check(config, tmp_path / "run")
    assert not refused and report["findings"] == []
    assert report["splits"]["train"]["images"] == 400


@pytest.mark.parametrize("name", ["camvid", "voc2012"])
def test_real_data_are_healthy(name, tmp_path):
    config = default()
    config.data.name = name
    config.data.manual_dir = str(PICTURES / name)
    start = time.monotonic()
    job.refuse_errors(config)
    assert time.monotonic() - start < 20
    refused, report = check(config, tmp_path / "run")
    assert not refused and not codes(report, "error", "warning")


def test_splits_that_are_unions(tmp_path):
    config = default()
    config.data.name = "voc2012"
    config.data.manual_dir = str(PICTURES / "voc2012")
    config.data.train_split = "trainval"
    _, report = check(config, tmp_path / "run")
    assert report["splits"]["trainval"]["images"] == 4
    # Both the published lists and the choice are the person's own.
    assert codes(report, "error", "warning") == ["duplicate_across_splits"]
    assert report["findings"][0]["level"] == "warning"

    config.data.train_split = "train_aug"
    with pytest.raises(UserError, match=r"SBD's benchmark\.tgz"):
        check_data.run(config, tmp_path / "run")
    config.data.train_split = "dev"
    with pytest.raises(UserError, match="known: train, val, trainval, train_aug"):
        check_data.run(config, tmp_path / "run")


def test_one_split_for_both_is_looked_at_once(tmp_path):
    config = of_folder(write_folder(tmp_path / "own"), train_split="val")
    refused, report = check(config, tmp_path / "run")
    assert not refused and list(report["splits"]) == ["val"]


def test_splits_that_were_drawn_are_told(tmp_path):
    folder = write_folder(tmp_path / "own")
    for kind in ("images", "labels"):
        for path in (folder / kind).glob("*/*"):
            path.rename(folder / kind / path.name)
        for path in (folder / kind).iterdir():
            if path.is_dir():
                path.rmdir()
    _, report = check(of_folder(folder), tmp_path / "run")
    assert codes(report, "note") == ["drawn_splits"]
    assert {name: split["images"] for name, split in report["splits"].items()} == {
        "train": 8,
        "val": 2,
    }


def test_training_looks_at_as_many_as_the_config_says(tmp_path, capsys):
    folder = write_folder(tmp_path / "own")
    path = folder / "labels/train/train5.png"
    grey(path, np.asarray(Image.open(path)) + 90)
    config = of_folder(folder, check_images=0)
    job.refuse_errors(config)
    config.data.check_images = 1  # number 3
    job.refuse_errors(config)
    config.data.check_images = 32
    with pytest.raises(UserError, match=r"labels/train/train5\.png"):
        job.refuse_errors(config)
    assert capsys.readouterr().out == ""
    damage(folder)
    config.data.damaged = "skip"
    with pytest.raises(UserError):
        job.refuse_errors(config)
    assert capsys.readouterr().out.startswith("warning damaged, train: 1 of 6 images")


def test_names_that_are_no_text(tmp_path):
    folder = write_folder(tmp_path / "own")
    for kind in ("images", "labels"):
        path = folder / f"{kind}/train/train1.png"
        path.rename(path.with_name("\udcff.png"))
    with pytest.raises(UserError, match=r"\\udcff\.png' has no UTF-8 name"):
        check_data.run(of_folder(folder), tmp_path / "run")


def test_files_that_are_missing_from_a_split_that_is_not_looked_at(tmp_path):
    for number, split in enumerate(("train", "val", "test")):
        for kind, pixels in zip(("", "annot"), own_folder.scene(number), strict=True):
            path = tmp_path / f"camvid/{split}{kind}/{split}.png"
            own_folder.write_image(path, pixels)
        (tmp_path / f"camvid/{split}.txt").write_text(f"{split}\n")
    config = default()
    config.data.name = "camvid"
    config.data.manual_dir = str(tmp_path / "camvid")
    refused, report = check(config, tmp_path / "run")
    assert not refused and report["data_fingerprint"]
    (tmp_path / "camvid/test/test.png").unlink()
    refused, report = check(config, tmp_path / "run")
    assert "camvid/test/test." in refused and report["data_fingerprint"] is None
    assert codes(report, "error") == ["missing"] and len(report["splits"]) == 2


def test_the_program(tmp_path):
    folder = write_folder(tmp_path / "own", change=lambda label: label + 1)

    def start(workdir, *arguments):
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "refinenet_jax.main"),
                *("--config=configs/folder.py", "--mode=check_data", *arguments),
                f"--config.data.manual_dir={folder}",
                f"--workdir={tmp_path / workdir}",
            ],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    shifted, mended = start("a"), start("b", "--config.data.folder.offset=-1")
    _, told = shifted.communicate(timeout=120)
    assert shifted.returncode == 2, told
    assert told.startswith("error: 1 error in the data: shifted_up: ")
    assert told.count("\n") == 1
    said, told = mended.communicate(timeout=120)
    assert mended.returncode == 0 and "no errors" in said and not told, told
    for workdir in ("a", "b"):
        written = {path.name for path in (tmp_path / workdir / "check_data").iterdir()}
        assert written == {"report.json", "report.html"}
    assert not list(tmp_path.glob("**/*.array_record*"))


def test_the_page_in_a_browser(browser, tmp_path):
    name = '<script>alert(1)<script>&"'
    folder = write_folder(tmp_path / "own", change=border)
    for kind in ("images", "labels"):
        path = folder / f"{kind}/train/train2.png"
        path.rename(path.with_name(f"{name}.png"))
    narrow(folder / "labels/val/val3.png", own_folder.scene(9)[1])
    _, report = check(of_folder(folder), tmp_path / "run")
    browser.open(tmp_path / "run/check_data/report.html")

    (finding,) = browser.texts(".finding")
    assert "size_mismatch" in finding and report["findings"][0]["message"] in finding
    assert "labels/val/val3.png" in finding
    captions = browser.texts("figcaption")
    assert len(captions) == 10
    assert f"labels/train/{name}.png" in captions
    # Image and overlay of all but the one whose label does not fit.
    assert browser.natural_widths(".sheet img") == [56] * 19
    for image in browser.all(".sheet img"):
        assert image.is_displayed() and min(image.size.values()) > 20
    for number, split in enumerate(report["splits"].values()):
        table = browser.all(".histogram")[number]
        bars = [bar.size["width"] for bar in table.find_elements("class name", "bar")]
        counts = [entry["pixels"] for entry in split["classes"].values()]
        assert np.argsort(bars).tolist() == np.argsort(counts).tolist()
        shares = np.array(counts) / max(counts)
        np.testing.assert_allclose(np.array(bars) / max(bars), shares, atol=0.02)
    assert browser.messages() == []
    assert_readable(browser, tmp_path / "run/check_data/report.html")
