import base64
import json

import numpy as np
import pytest
from PIL import Image

from refinenet_jax.data.class_table import read_class_table
from refinenet_jax.data.source import Source
from refinenet_jax.evaluation import evaluator, tally
from refinenet_jax.evaluation.evaluator import Evaluator
from refinenet_jax.evaluation.report import class_table
from refinenet_jax.pictures import encode, text_size
from tests.data import ask
from tests.evaluation.stand_in import StandIn, random_examples

NUM_IMAGES = 14
CLASSES = [0, 1, 2, 4, 5]  # no triangle
KINDS = ["best"] * 3 + ["median"] * 3 + ["worst"] * 3


@pytest.fixture
def scorer():
    """Evaluates known predictions; gives the evaluator with other settings."""

    def scorer(**changes):
        records = [
            {
                "image": encode(example["image"], "PNG"),
                "label": encode(example["label"], "PNG"),
                "name": example["name"].encode(),
            }
            for example in random_examples(NUM_IMAGES, CLASSES, seed=1)
        ]
        settings = {"bootstrap_samples": 1000, "boundary_width": 0.02, **changes}
        return Evaluator(
            StandIn(batch_size=4),
            ask.lookup("shapes"),
            "val",
            Source(records, "c0ffee", [], {}),
            num_threads=4,
            seed=0,
            **settings,
        )

    return scorer


def read(path):
    return json.loads(path.read_text())


def test_what_an_audit_writes(scorer, tmp_path):
    record = scorer().audit(7, None, None, tmp_path)
    assert json.loads(json.dumps(record)) == read(tmp_path / "eval.json")
    assert read(tmp_path / "eval.json") == read(tmp_path / "eval/7.json")
    assert record["num_images"] == NUM_IMAGES
    assert record["per_class_iou"]["triangle"] is None
    assert record["convention"] == "absent_left_out"
    by_convention = record["mean_iou_by_convention"]
    assert by_convention["absent_left_out"] == record["mean_iou"]
    assert by_convention["absent_counts_0"] == pytest.approx(record["mean_iou"] * 5 / 6)
    low, high = record["intervals"]["mean_iou"]
    assert low < record["mean_iou"] < high
    assert record["intervals"]["per_class_iou"]["triangle"] is None
    assert record["intervals"]["samples"] == 1000
    assert 0 < record["boundary"]["mean_iou"] < 1
    assert record["boundary"]["width_of_diagonal"] == 0.02
    assert record["protocol"]["scales"] == (1.0,)
    assert record["compilations"] == 1
    figures = sorted(path.name for path in (tmp_path / "eval/figures").iterdir())
    assert figures == [
        "classes.png",
        "confusion.png",
        *(f"image_{n}_{kind}.png" for n, kind in enumerate(KINDS, start=1)),
        "trimap.png",
    ]


def test_the_report_in_a_browser(scorer, browser, tmp_path):
    record = scorer().audit(7, None, None, tmp_path)
    report = tmp_path / "eval" / "report.html"
    browser.open(report)
    files = sorted((tmp_path / "eval/figures").iterdir())
    widths = browser.natural_widths("figure img")
    assert sorted(widths) == sorted(Image.open(path).width for path in files)
    assert all(image.is_displayed() for image in browser.all("figure img"))
    assert browser.messages() == []
    [text] = browser.texts("body")
    intervals, boundary = record["intervals"], record["boundary"]
    shares = [
        *(record[name] for name in ("mean_iou", "pixel_accuracy", "mean_accuracy")),
        record["frequency_weighted_iou"],
        *record["mean_iou_by_convention"].values(),
        *(value for value in record["per_class_iou"].values() if value is not None),
        *intervals["mean_iou"],
        *intervals["per_class_iou"]["ring"],
        boundary["mean_iou"],
        boundary["per_class_iou"]["disk"],
        *boundary["trimap"]["mean_iou"],
    ]
    for share in shares:
        assert f"{100 * share:.2f}" in text
    matrix = np.asarray(record["confusion_matrix"])
    np.fill_diagonal(matrix, 0)
    assert str(matrix.max()) in text
    assert "triangle absent" in text
    for value in (
        f"{NUM_IMAGES} images",
        "fusion softmax",
        record["data_fingerprint"],
        record["provenance"]["command"],
        record["provenance"]["packages"]["jax"],
        record["provenance"]["device"],
        record["conventions"]["without_truth_left_out"],
    ):
        assert value in text
    page = report.read_bytes()
    for path in files:
        assert base64.b64encode(path.read_bytes()) in page
    browser.open(report, 390)
    assert browser.beyond_the_edge() == []


def test_training_counts_no_boundaries_and_writes_no_report(
    scorer, tmp_path, monkeypatch
):
    monkeypatch.setattr(tally, "count_boundaries", None)
    record, pictures = scorer(bootstrap_samples=10).evaluate(3, None, None, tmp_path)
    assert record["boundary"] is None
    assert record["intervals"]["samples"] == 10
    assert read(tmp_path / "eval.json")["mean_iou"] == record["mean_iou"]
    assert not (tmp_path / "eval/report.html").exists()
    np.testing.assert_array_equal(Image.open(tmp_path / "eval/3.png"), pictures)


@pytest.mark.slow
def test_without_intervals_and_boundaries(scorer, browser, tmp_path):
    record = scorer(bootstrap_samples=0, boundary_width=0.0).audit(
        7, None, None, tmp_path
    )
    assert record["intervals"] is record["boundary"] is None
    assert class_table(record).columns[1].header == "IoU %"
    browser.open(tmp_path / "eval" / "report.html")
    assert len(browser.natural_widths("figure img")) == 2 + len(KINDS)
    assert "Boundaries" not in browser.texts("h2")


def test_pictures_are_spread_over_the_split(scorer, tmp_path):
    _, pictures = scorer().evaluate(3, None, None, tmp_path)
    examples = random_examples(NUM_IMAGES, CLASSES, seed=1)
    palette = np.asarray(read_class_table("shapes").palette, np.uint8)
    row = 2 * text_size(pictures.shape[1])  # headings
    for index in (0, 3, 5, 8, 10, 13):
        height, width = examples[index]["label"].shape
        image = pictures[row : row + height, :width]
        np.testing.assert_array_equal(image, examples[index]["image"])
        third = pictures.shape[1] * 2 // 3
        drawn = pictures[row : row + height, third : third + width]
        np.testing.assert_array_equal(drawn, palette[examples[index]["image"][..., 0]])
        row += height
    assert row < pictures.shape[0]  # a legend


def test_evenly_spread():
    assert evaluator._evenly_spread(range(1, 100, 2), 3) == {1, 49, 99}
    assert evaluator._evenly_spread(range(2), 6) == {0, 1}
    assert evaluator._evenly_spread(range(0), 6) == set()


def test_an_evaluation_that_is_to_end_writes_nothing(scorer, tmp_path, monkeypatch):
    asked = []

    def reached():
        asked.append(None)
        return len(asked) > 5

    monkeypatch.setattr(evaluator.preemption, "reached", reached)
    with pytest.raises(evaluator.preemption.Preempted):
        scorer().audit(7, None, None, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_processes_with_fewer_images_ask_as_often(monkeypatch):
    asked = []
    monkeypatch.setattr(evaluator.preemption, "reached", lambda: asked.append(None))
    rows = [(0, {}), (2, {})]
    assert list(evaluator._while_asking(rows, 3)) == rows
    assert len(asked) == 3
