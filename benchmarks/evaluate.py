"""Prints how many images a second an evaluation scores, beside its network alone.

    python benchmarks/evaluate.py --variant=light_efficientnet_lite0 --height=360 --width=480

JPEGs and labels of that size, from memory, are decoded, predicted and counted, as mode eval
does it. The network alone predicts batches of pictures that are decoded already.
"""

import os
from collections.abc import Callable

import jax
import numpy as np
from absl import app, flags
from flax import nnx
from parts.photographs import record
from parts.tables import interleaved, machine, table

from refinenet_jax.data.mixture import decode
from refinenet_jax.data.pipeline import eval_examples
from refinenet_jax.data.source import Source
from refinenet_jax.evaluation.tally import tally
from refinenet_jax.inference.predictor import Buckets, Predictor
from refinenet_jax.inference.protocol import PLAIN
from refinenet_jax.models import VARIANTS, Architecture, RefineNet, in_inference
from refinenet_jax.models.leaves import split_network
from refinenet_jax.sharding import one_device_layout
from refinenet_jax.tuning import tune

_VARIANT = flags.DEFINE_enum(
    "variant", "light_efficientnet_lite0", list(VARIANTS), "Network"
)
_HEIGHT = flags.DEFINE_integer("height", 360, "Of the images")
_WIDTH = flags.DEFINE_integer("width", 480, "Of the images")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 4, "Images that run together")
_IMAGES = flags.DEFINE_integer("images", 32, "In the split")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Evaluations to time")

_NUM_CLASSES = 11


def main(argv: list[str]) -> None:
    """Times and prints."""
    del argv
    tune()
    print(f"{machine()}\n")
    predictor = network()
    records = [
        record(seed, _HEIGHT.value, _WIDTH.value, _NUM_CLASSES)
        for seed in range(_IMAGES.value)
    ]
    source = Source(records, "in memory", [], {})
    seconds = interleaved(
        {
            "read to score": evaluating(predictor, source),
            "the network alone": predicting(predictor, source),
        },
        _ROUNDS.value,
    )
    head = f"{_VARIANT.value}, {_HEIGHT.value}×{_WIDTH.value}"
    print(table(head, seconds, "read to score", len(source)))


def network() -> Predictor:
    """With random weights."""
    built = in_inference(
        RefineNet(Architecture(_VARIANT.value, _NUM_CLASSES), rngs=nnx.Rngs(0))
    )
    predictor = Predictor(
        built,
        batch_size=_BATCH_SIZE.value,
        buckets=Buckets((), 32),
        protocol=PLAIN,
        layout=one_device_layout(),
    )
    _, *variables = split_network(built)
    predictor.load(*variables)
    return predictor


def evaluating(predictor: Predictor, source: Source) -> Callable[[], object]:
    """All of an evaluation but what it writes."""
    threads = len(os.sched_getaffinity(0))

    def evaluate() -> None:
        examples = eval_examples(
            source, process_index=0, process_count=1, num_threads=threads
        )
        tally(
            predictor,
            enumerate(examples),
            _NUM_CLASSES,
            kept=(),
            boundary_width=0,
            num_threads=threads,
            on_image=lambda: None,
        )

    return evaluate


def predicting(predictor: Predictor, source: Source) -> Callable[[], object]:
    """The same images, decoded before."""
    images = [decode(source[index])["image"] for index in range(len(source))]
    size = predictor.batch_size

    def predict() -> None:
        found = [
            predictor.start(images[first : first + size])
            for first in range(0, len(images), size)
        ]
        jax.block_until_ready(found)
        assert np.asarray(found[-1]).size

    return predict


if __name__ == "__main__":
    app.run(main)
