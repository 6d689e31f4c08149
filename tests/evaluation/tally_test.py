import jax
import numpy as np
import pytest

from refinenet_jax.evaluation import tally
from refinenet_jax.evaluation.boundary import NUM_BANDS, count_boundaries
from refinenet_jax.evaluation.counting import class_counts
from refinenet_jax.inference.predictor import Buckets, Predictor
from refinenet_jax.inference.protocol import PLAIN
from refinenet_jax.models.leaves import split_network
from refinenet_jax.sharding import Layout
from tests.evaluation.stand_in import StandIn, random_examples
from tests.random_network import random_light_resnet18
from tests.several import Several

NUM_CLASSES = 7


def evaluate(predictor, examples, *, first=0, every=1, kept=(), width=0.02, seen=None):
    """One process's share, every so many from the first on."""
    share = range(first, len(examples), every)
    return tally.tally(
        predictor,
        [(index, examples[index]) for index in share],
        NUM_CLASSES,
        kept=kept,
        boundary_width=width,
        num_threads=3,
        on_image=lambda: seen.append(1) if seen is not None else None,
    )


def matrix_of(example, prediction):
    matrix = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)
    valid = example["label"] != 255
    np.add.at(matrix, (example["label"][valid], prediction[valid]), 1)
    return matrix


@pytest.mark.parametrize("batch_size", [1, 4])
def test_everything_is_counted_for_each_image(batch_size):
    examples = random_examples(23, [0, 1, 2, 4], seed=0)
    seen = []
    found = evaluate(StandIn(batch_size), examples, kept={3, 20, 1}, seen=seen)
    matrices = np.stack([matrix_of(x, x["image"][..., 0]) for x in examples])
    assert found.matrix.dtype == found.image_counts.dtype == np.int64
    assert found.matrix.tolist() == matrices.sum(axis=0).tolist()
    assert found.image_counts.tolist() == class_counts(matrices).tolist()
    boundaries = sum(
        count_boundaries(x["image"][..., 0], x["label"], NUM_CLASSES, 0.02)
        for x in examples
    )
    assert found.boundary_counts.tolist() == boundaries.tolist()
    assert found.num_images == len(seen) == 23
    assert found.ignored_pixels == sum((x["label"] == 255).sum() for x in examples)
    for row, index in zip(found.rows, (1, 3, 20), strict=True):
        image = examples[index]["image"]
        expected = (image, examples[index]["label"], image[..., 0])
        for one, other in zip(row, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_boundaries_only_when_asked_for(monkeypatch):
    monkeypatch.setattr(tally, "count_boundaries", None)
    found = evaluate(StandIn(2), random_examples(5, [0, 1], seed=1), width=0)
    assert found.boundary_counts.shape == (NUM_BANDS, NUM_CLASSES, 3)
    assert found.boundary_counts.sum() == 0


@pytest.mark.parametrize("processes", [2, 3, 12])
def test_uneven_shares_of_several_processes_add_up(monkeypatch, processes):
    examples = random_examples(11, [0, 1, 2, 3], seed=2)
    alone = evaluate(StandIn(4), examples)
    first, *others = Several(processes, monkeypatch).run(
        lambda index: evaluate(StandIn(4), examples, first=index, every=processes)
    )
    assert first.image_counts.tolist() == alone.image_counts.tolist()
    for found in (first, *others):
        for name in ("matrix", "boundary_counts"):
            one, other = getattr(alone, name), getattr(found, name)
            assert one.tolist() == other.tolist(), name
        assert found.num_images == 11
        assert found.ignored_pixels == alone.ignored_pixels
    for found in others:
        assert found.image_counts.shape == (0, NUM_CLASSES, 3)


def test_a_fault_in_a_thread_is_raised(monkeypatch):
    def fail(*_):
        raise RuntimeError("no memory")

    monkeypatch.setattr(tally, "count_boundaries", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        evaluate(StandIn(2), random_examples(5, [0, 1], seed=1))


@pytest.mark.slow
def test_the_network_is_counted_as_it_predicts():
    examples = random_examples(5, [0, 1, 2, 3], seed=3)
    predictor = Predictor(
        network := random_light_resnet18(NUM_CLASSES, seed=3),
        batch_size=2,
        buckets=Buckets((), 64),
        protocol=PLAIN,
        layout=Layout.over(jax.devices()[:2]),
    )
    _, params, batch_stats = split_network(network)
    predictor.load(params, batch_stats)
    found = evaluate(predictor, examples, kept={4})
    predictions = [predictor.predict([x["image"]])[0] for x in examples]
    matrices = [matrix_of(*pair) for pair in zip(examples, predictions, strict=True)]
    assert found.matrix.tolist() == sum(matrices).tolist()
    assert np.array_equal(found.rows[0][2], predictions[4])
    assert predictor.compilations == 1
