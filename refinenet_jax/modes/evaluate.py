"""Mode eval: scores a checkpoint on a whole split; training calls it as it goes."""

import contextlib
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from refinenet_jax import files, log
from refinenet_jax.data.datasets import Dataset
from refinenet_jax.data.pipeline import eval_examples
from refinenet_jax.data.source import Source
from refinenet_jax.errors import UserError
from refinenet_jax.inference import draw, evaluator, metrics
from refinenet_jax.inference.predictor import Predictor
from refinenet_jax.inference.report import class_table
from refinenet_jax.models.architecture import check_same_network
from refinenet_jax.models.build import SegmentationNetwork
from refinenet_jax.modes.start import (
    describe,
    find_dataset,
    open_data,
    request_of,
)
from refinenet_jax.provenance import provenance
from refinenet_jax.segmenter import abstract_network, shapes_of_network
from refinenet_jax.sharding import local_mesh, replicated
from refinenet_jax.training.checkpoint import (
    Metadata,
    open_checkpoints,
)

_NUM_ROWS = 6


def run(config: ConfigDict, workdir: Path) -> None:
    """Evaluates a checkpoint of a workdir, prints the classes and writes eval.json.

    Raises:
        UserError: no checkpoint, no data, or a network other than the config's.
    """
    dataset = find_dataset(config)
    wanted = describe(config, dataset)

    def shapes_of(found: Metadata) -> tuple[nnx.State, nnx.State]:
        check_same_network(workdir, found["architecture"], wanted["architecture"])
        return shapes_of_network(found)

    with contextlib.closing(open_checkpoints(workdir)) as checkpoints:
        metadata, params, batch_stats = checkpoints.load_network(
            config.eval.checkpoint, shapes_of, replicated(local_mesh())
        )
    if metadata["class_names"] != wanted["class_names"]:
        raise UserError(
            f"{workdir} was trained on the classes of {metadata['dataset']}, "
            f"config.data.name={dataset.name!r} has others: evaluate it with its own "
            "config"
        )
    metadata["dtype"] = config.model.dtype
    step = metadata["step"]
    [source] = open_data(request_of(config), config.data.eval_split)
    network = abstract_network(metadata)
    log.say(f"step {step} of {workdir} on {len(source)} images of {dataset.name}")
    scorer = Evaluator(config, metadata, network, dataset, source)
    record, _ = scorer.evaluate(step, params, batch_stats, workdir)
    log.say(class_table(record))


class Evaluator:
    """Evaluates one network on one split, as often as it is asked."""

    def __init__(
        self,
        config: ConfigDict,
        metadata: Metadata,
        network: SegmentationNetwork,
        dataset: Dataset,
        source: Source,
    ):
        self._dataset = dataset
        self._split = config.data.eval_split
        self._num_threads = config.data.num_threads
        self._source = source
        self._predictor = Predictor(
            network,
            mean=tuple(metadata["mean"]),
            std=tuple(metadata["std"]),
            batch_size=config.eval.batch_size,
            size_multiple=config.eval.size_multiple,
            mesh=local_mesh(),
        )

    def evaluate(
        self, step: int, params: nnx.State, batch_stats: nnx.State, workdir: Path
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Scores the weights and writes the files of `eval/`.

        Returns:
            What eval.json holds, and the first images beside truth and prediction,
            uint8 [H,W,3].
        """
        start = time.monotonic()
        self._predictor.load(params, batch_stats)
        share = len(range(jax.process_index(), len(self._source), jax.process_count()))
        with log.progress("evaluating", share) as on_image:
            counted = evaluator.evaluate(
                self._predictor,
                eval_examples(
                    self._source,
                    process_index=jax.process_index(),
                    process_count=jax.process_count(),
                    num_threads=self._num_threads,
                ),
                self._dataset.num_classes,
                num_rows=_NUM_ROWS,
                on_image=on_image,
            )
        record = self._record(step, counted, time.monotonic() - start)
        pictures = draw.strip(counted.rows, self._dataset.palette)
        if jax.process_index() == 0:
            files.write_bytes(
                workdir / f"eval/{step}.png", draw.encode(pictures, "PNG")
            )
            files.write_json(workdir / f"eval/{step}.json", record)
            files.write_json(workdir / "eval.json", record)
        return record, pictures

    def _record(
        self, step: int, counted: evaluator.Evaluation, seconds: float
    ) -> dict[str, Any]:
        iou = metrics.per_class_iou(counted.matrix)
        return {
            "step": step,
            "dataset": self._dataset.name,
            "split": self._split,
            "num_images": counted.num_images,
            **metrics.scores(counted.matrix),
            "per_class_iou": {
                name: None if np.isnan(value) else float(value)
                for name, value in zip(self._dataset.class_names, iou, strict=True)
            },
            "confusion_matrix": counted.matrix.tolist(),
            "ignored_pixels": counted.ignored_pixels,
            "convention": metrics.CONVENTION,
            "compilations": self._predictor.compilations,
            "seconds": seconds,
            "images_per_second": counted.num_images / seconds,
            "data_fingerprint": self._source.fingerprint,
            "provenance": provenance(),
        }
