import re

import numpy as np
import pytest

from refinenet_jax.evaluation import boundary, intervals, metrics
from refinenet_jax.evaluation.counting import class_counts
from refinenet_jax.evaluation.report import (
    Case,
    choose_cases,
    class_table,
    write_report,
)
from tests.browser import assert_readable
from tests.evaluation.stand_in import random_examples

OWN = metrics.own_convention("folder")


def record_of(names, *, seed):
    """What eval.json holds, of random predictions."""
    rng = np.random.default_rng(seed)
    number = len(names)
    matrices = rng.integers(0, 50, (4, number, number))
    matrices[:, 3] = matrices[:, :, 3] = 0
    matrix = matrices.sum(axis=0)
    counts = class_counts(matrix)
    bands = np.repeat(counts[None], boundary.NUM_BANDS, axis=0)
    bands[1] = 0  # no pixel so near to a boundary
    drawn = intervals.bootstrap(class_counts(matrices), OWN, samples=9, seed=0)
    return {
        "step": 5,
        "dataset": "folder",
        "split": "val",
        "num_images": 4,
        **metrics.scores(counts, OWN),
        **metrics.by_convention(counts, OWN, names),
        "per_class_iou": metrics.by_class(metrics.iou(counts), names),
        "intervals": drawn.to_json(names),
        "boundary": boundary.summary(bands, OWN, names, 0.02),
        "confusion_matrix": matrix.tolist(),
        "ignored_pixels": 3,
        "protocol": {"scales": [1.0]},
        "compilations": 1,
        "seconds": 2.0,
        "images_per_second": 2.0,
        "data_fingerprint": "c0ffee",
        "provenance": {"command": "x"},
    }


def test_best_median_and_worst():
    scores = np.asarray([0.5, np.nan, 0.9, 0.1, 0.2, 0.6, 0.3, 0.8, 0.4, 0.7, 0.0])
    assert choose_cases(scores) == [
        ("best", 2),
        ("best", 7),
        ("best", 9),
        ("median", 6),
        ("median", 8),
        ("median", 0),
        ("worst", 10),
        ("worst", 3),
        ("worst", 4),
    ]


@pytest.mark.parametrize("number", range(9))
def test_no_image_is_shown_twice(number):
    cases = choose_cases(np.linspace(0, 1, number))
    assert sorted(index for _, index in cases) == list(range(number))


@pytest.mark.slow
def test_hostile_names_and_many_classes(browser, tmp_path):
    names = [f"class {i}" for i in range(150)]
    names[:3] = ["<script>alert(1)</script>", "$x_1$ \\frac{", "forty characters " * 3]
    record = record_of(names, seed=0)
    [example] = random_examples(1, list(range(30)), seed=0)
    image, label = example["image"], example["label"]
    case = Case("worst", "<b>a</b>.jpg", 0.25, image, label, image[..., 0])
    palette = np.random.default_rng(0).integers(0, 256, (150, 3)).tolist()
    write_report(tmp_path, record, [case], palette)
    text = (tmp_path / "report.html").read_text()
    outside = re.sub(r"base64,[^\"]*", "", text)
    assert not re.search(r"<script|<b>a|https?:|src=\"(?!data:)", outside)
    assert_readable(browser, tmp_path / "report.html")
    assert min(browser.natural_widths("figure img")) > 0
    assert len(browser.all(".classes tr")) == 151
    assert len(browser.all(".confusions tr")) == 16
    # The radius that reaches no pixel is left out.
    assert len(browser.all(".trimap tr")) == 1 + len(boundary.RADII) - 1
    assert browser.messages() == []
    assert "worst: <b>a</b>.jpg, 25.00 %" in browser.texts("h3")


def test_the_table_on_the_terminal():
    record = record_of(("background", "disk", "ring", "cross", "star"), seed=1)
    table = class_table(record)
    names, values, spans = (list(column.cells) for column in table.columns)
    assert names[:5] == list(record["per_class_iou"])
    assert names[5:] == ["mean iou", "pixel accuracy", "mean accuracy"]
    assert values[3] == "absent"
    assert values[5] == f"{100 * record['mean_iou']:.2f}"
    low, high = record["intervals"]["mean_iou"]
    assert spans[5] == f"{100 * low:.2f} to {100 * high:.2f}"
    assert (spans[3], spans[7]) == ("", "")
