import json
import re

import numpy as np
import pytest
from PIL import Image

from refinenet_jax import files
from refinenet_jax.training import page as page_module
from refinenet_jax.training.page import RunPage
from tests.browser import assert_readable

STRIP = np.random.default_rng(0).integers(0, 256, (90, 1500, 3), np.uint8)


def run_page(folder, first_step=0, lines=(), title="shapes, light_resnet18"):
    return RunPage(
        folder,
        title=title,
        made_with={"command": "refinenet --config=default", "versions": {"jax": "1"}},
        lines=lines,
        first_step=first_step,
        num_steps=400,
    )


def record(step):
    return {
        "step": step,
        "loss_mean": 4 / step,
        "learning_rate": 1e-3 * (400 - step) / 400,
        "images_per_second": 40.0,
    }


def evaluate(page, folder, step, mean_iou):
    """As the evaluator does: its files are there before the page hears of it."""
    scores = {"mean_iou": mean_iou, "pixel_accuracy": 0.9, "mean_accuracy": 0.7}
    files.write_json(folder / f"eval/{step}.json", {"step": step, **scores})
    Image.fromarray(STRIP).save(folder / f"eval/{step}.png")
    Image.fromarray(STRIP).save(folder / f"eval/{step}_worst.jpg")
    page.evaluation(step, scores, STRIP)


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(page_module, "_EVERY", 0.0)


@pytest.mark.usefixtures("at_once")
def test_a_run_while_it_trains_and_at_its_end(browser, tmp_path):
    page = run_page(tmp_path)
    browser.open(tmp_path / "report.html")
    assert browser.texts("h2") == ["Curves", "Made with"]
    for step in range(4, 401, 4):
        page.add(record(step), seconds_left=75.0)
        if step % 100 == 0:
            evaluate(page, tmp_path, step, mean_iou=0.5 - abs(step - 300) / 1000)
        if step == 104:
            assert "Step 104 of 400, training, 1:15 left." in text_of(tmp_path)
            assert '<meta http-equiv="refresh" content="15">' in text_of(tmp_path)
    page.close()
    assert "Step 400 of 400, finished." in text_of(tmp_path)
    assert "http-equiv" not in text_of(tmp_path)
    assert_readable(browser, tmp_path / "report.html")
    assert browser.texts("svg + figcaption") == [
        "0.01 at step 400; least 0.01, greatest 1",
        "0 at step 400; least 0, greatest 0.00099",
        "40 at step 400; least 40, greatest 40",
        "40.00 at step 400; least 30.00, greatest 50.00",
    ]
    assert len(browser.all("circle")) == 4
    rows = browser.texts(".evaluations tr")
    assert len(rows) == 5
    assert rows[1].startswith("400 40.00 90.00")
    assert [row for row in rows if "best" in row] == [rows[2]]
    assert browser.texts("h3")[0] == "Step 400, mean IoU 40.00 %"
    assert browser.natural_widths(".strip img") == [960] * 5
    targets = [link.get_attribute("href") for link in browser.all(".strip a")]
    assert targets[0].endswith("eval/400_worst.jpg")
    assert targets[-1].endswith("eval/100.png")


def text_of(folder):
    return (folder / "report.html").read_text()


@pytest.mark.usefixtures("at_once")
def test_a_run_that_goes_on_shows_what_was_before(browser, tmp_path):
    page = run_page(tmp_path)
    for step in (100, 200):
        page.add(record(step), None)
        evaluate(page, tmp_path, step, mean_iou=step / 1000)
    (tmp_path / "eval/50.json").write_text("cut sho")
    lines = [json.dumps(record(step)) for step in (50, 100)]
    page = run_page(tmp_path, first_step=100, lines=lines)
    assert "Step 100 of 400, beginning." in text_of(tmp_path)
    browser.open(tmp_path / "report.html")
    assert len(browser.texts(".evaluations tr")) == 2  # that of step 200 comes again
    assert browser.texts("h3") == ["Step 100, mean IoU 10.00 %"]
    page.close()
    assert "ended before its last step" in text_of(tmp_path)


def test_pages_are_not_written_at_every_line(tmp_path, monkeypatch):
    page = run_page(tmp_path)
    before = text_of(tmp_path)
    for step in range(1, 20):
        page.add(record(step), 1.0)
    assert text_of(tmp_path) == before


@pytest.mark.usefixtures("at_once")
def test_of_many_evaluations_the_first_the_latest_and_some_between(tmp_path):
    page = run_page(tmp_path)
    for step in range(10, 400, 10):
        evaluate(page, tmp_path, step, mean_iou=None)
    shown = [int(x) for x in re.findall(r"<h3>Step (\d+)", text_of(tmp_path))]
    assert 6 <= len(shown) <= 12
    assert (shown[0], shown[-1]) == (390, 10)
    assert shown == sorted(shown, reverse=True)


def test_names_are_never_markup(tmp_path):
    run_page(tmp_path, title="<script>alert(1)</script>").close()
    assert "<script" not in text_of(tmp_path)
