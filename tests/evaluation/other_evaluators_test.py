"""The scores are those of evaluators that other people wrote."""

import numpy as np
import pytest
from PIL import Image

from refinenet_jax.data.class_table import read_class_table
from refinenet_jax.evaluation import metrics, tally
from refinenet_jax.evaluation.counting import class_counts
from refinenet_jax.evaluation.metrics import iou, own_convention, scores
from tests.evaluation.stand_in import StandIn, random_examples

NUM_CLASSES = 19
PRESENT = [0, 1, 2, 5, 11, 13, 17, 18]
OWN = own_convention("cityscapes")


@pytest.fixture(scope="module")
def examples():
    """Of odd sizes, with ignored pixels; classes absent, only true, only predicted."""
    examples = random_examples(13, PRESENT, seed=7)
    for example in examples:
        # Class 5 is never predicted, class 6 is in no truth.
        example["image"][..., 0][example["image"][..., 0] == 5] = 6
    return examples


@pytest.fixture(scope="module")
def matrix(examples):
    """As the evaluation counts it, in batches of 4 and what is left."""
    return tally.tally(
        StandIn(4),
        enumerate(examples),
        NUM_CLASSES,
        kept=(),
        boundary_width=0,
        num_threads=1,
        on_image=lambda: None,
    ).matrix


def pairs(examples):
    return [(x["image"][..., 0], x["label"]) for x in examples]


def test_numpy(examples, matrix):
    prediction, label = (
        np.concatenate([x.ravel() for x in maps])
        for maps in zip(*pairs(examples), strict=True)
    )
    prediction, label = prediction[label != 255], label[label != 255]
    values, truth = [], []
    for c in range(NUM_CLASSES):
        is_it, found = label == c, prediction == c
        assert matrix[c].tolist() == [
            (is_it & (prediction == other)).sum() for other in range(NUM_CLASSES)
        ]
        union = (is_it | found).sum()
        values.append((is_it & found).sum() / union if union else np.nan)
        truth.append(is_it.sum())
    assert iou(class_counts(matrix)).tolist() == pytest.approx(values, nan_ok=True)
    assert np.isnan(values).sum() == NUM_CLASSES - len(PRESENT) - 1
    assert values[5] == values[6] == 0
    truth = np.asarray(truth)
    found = scores(class_counts(matrix), OWN)
    accuracies = [
        (prediction[label == c] == c).mean() for c in range(NUM_CLASSES) if truth[c]
    ]
    assert found == {
        "mean_iou": pytest.approx(np.nanmean(values)),
        "pixel_accuracy": pytest.approx((prediction == label).mean()),
        "mean_accuracy": pytest.approx(np.mean(accuracies)),
        "frequency_weighted_iou": pytest.approx(
            np.nansum(values * truth) / truth.sum()
        ),
    }


def test_torchmetrics(examples, matrix):
    torch = pytest.importorskip("torch")
    classification = pytest.importorskip("torchmetrics.classification")
    confusion = classification.MulticlassConfusionMatrix(NUM_CLASSES, ignore_index=255)
    by_class = classification.MulticlassJaccardIndex(
        NUM_CLASSES, average="none", ignore_index=255
    )
    mean = classification.MulticlassJaccardIndex(NUM_CLASSES, ignore_index=255)
    for prediction, label in pairs(examples):
        arrays = [torch.from_numpy(x.astype(np.int64)) for x in (prediction, label)]
        for metric in (confusion, by_class, mean):
            metric.update(*arrays)
    assert confusion.compute().tolist() == matrix.tolist()
    counts = class_counts(matrix)
    # It divides in float32, and calls the IoU of an absent class 0.
    expected = np.nan_to_num(iou(counts))
    np.testing.assert_allclose(by_class.compute().numpy(), expected, rtol=1e-6)
    assert float(mean.compute()) == pytest.approx(OWN.mean_iou(counts), rel=1e-6)
    zeros = next(
        each for each in metrics.conventions(["road"]) if each.name == "absent_counts_0"
    )
    assert float(by_class.compute().mean()) == pytest.approx(
        zeros.mean_iou(counts), rel=1e-6
    )


def test_cityscapes_scripts(examples, matrix, tmp_path):
    name = "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling"
    theirs = pytest.importorskip(name)
    table = read_class_table("cityscapes")
    ids = np.zeros(256, np.uint8)
    for raw, class_id in table.raw_to_class.items():
        ids[class_id] = raw
    ids[255] = 4  # "static", which is not evaluated
    paths = []
    for number, maps in enumerate(pairs(examples)):
        row = [tmp_path / f"{number}_{kind}.png" for kind in ("prediction", "truth")]
        for path, classes in zip(row, maps, strict=True):
            Image.fromarray(ids[classes]).save(path)
        paths.append([str(path) for path in row])
    arguments = theirs.args
    arguments.evalInstLevelScore = arguments.JSONOutput = False
    arguments.quiet = True
    result = theirs.evaluateImgLists(*zip(*paths, strict=True), arguments)
    counts = class_counts(matrix)
    found = [result["classScores"][name] for name in table.class_names]
    assert found == pytest.approx(iou(counts).tolist(), rel=1e-15, nan_ok=True)
    assert result["averageScoreClasses"] == pytest.approx(
        scores(counts, OWN)["mean_iou"], rel=1e-15
    )
    rows = ids[:NUM_CLASSES]
    assert np.asarray(result["confMatrix"])[np.ix_(rows, rows)].tolist() == (
        matrix.tolist()
    )
