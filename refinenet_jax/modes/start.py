"""What several modes do first."""

import dataclasses
import sys
from pathlib import Path

import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from refinenet_jax import log
from refinenet_jax.checkpoints.metadata import Metadata
from refinenet_jax.data.datasets import (
    Dataset,
    lookup,
    open_split,
    prepare,
)
from refinenet_jax.data.request import FolderLabels, Request
from refinenet_jax.data.source import Source
from refinenet_jax.errors import UserError
from refinenet_jax.inference.predictor import Buckets
from refinenet_jax.inference.protocol import Protocol
from refinenet_jax.models import VARIANTS, Architecture
from refinenet_jax.processes import on_first_process


def request_of(
    config: ConfigDict, *, name: str = "", manual_dir: str | None = None
) -> Request:
    """The config's data set, or one that it mixes in, and where its files are."""
    data = config.data
    return Request(
        name=name or data.name,
        data_dir=data.dir,
        manual_dir=data.manual_dir if manual_dir is None else manual_dir,
        damaged=data.damaged,
        folder=FolderLabels(**data.folder),
    )


def open_data(request: Request, *splits: str) -> list[Source]:
    """Opens splits of a data set, prepared by one process for all.

    Raises:
        UserError: the data or a split is not there.
    """
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()  # in a file its bars are noise
    prepared = on_first_process(
        lambda: prepare(request, log), "process 0 could not prepare the data, see there"
    )
    prepared = prepared or prepare(request, log)
    sources = [open_split(prepared, split) for split in splits]
    left_out = sources[0].left_out
    if left_out:
        log.say(
            f"left out of {request.name}, being damaged: {len(left_out)} "
            f"({'; '.join(left_out[:3])})"
        )
    return sources


def protocol_of(config: ConfigDict) -> Protocol:
    """What is done with an image to predict it."""
    names = [field.name for field in dataclasses.fields(Protocol)]
    return Protocol(**{name: config.eval[name] for name in names})


def buckets_of(config: ConfigDict) -> Buckets:
    """The sizes that images are padded to."""
    return Buckets(tuple(config.eval.buckets), config.eval.size_multiple)


def make_folder(workdir: Path) -> None:
    """Makes the workdir.

    Raises:
        UserError: it cannot be made.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir={workdir} cannot be made: {error}") from error


def find_dataset(config: ConfigDict) -> Dataset:
    """The config's data set; fills in model.num_classes where it is 0.

    Raises:
        UserError: it is unknown, or has another number of classes than the network.
    """
    dataset = lookup(request_of(config))
    if not config.model.num_classes:
        config.model.num_classes = dataset.num_classes
    if config.model.num_classes != dataset.num_classes:
        raise UserError(
            f"config.model.num_classes={config.model.num_classes}, but "
            f"{dataset.name} has {dataset.num_classes} classes"
        )
    return dataset


def describe(config: ConfigDict, dataset: Dataset) -> Metadata:
    """All that is needed to use the network without its config.

    Raises:
        UserError: the variant is unknown.
    """
    model = config.model
    if model.variant not in VARIANTS:
        raise UserError(
            f"config.model.variant={model.variant!r} is unknown; "
            f"known: {', '.join(VARIANTS)}"
        )
    names = [field.name for field in dataclasses.fields(Architecture)]
    return Metadata(
        Architecture(**{name: model[name] for name in names}),
        dataset.class_names,
        dataset.palette,
        dataset=dataset.name,
        dtype=model.dtype,
        size_multiple=config.eval.size_multiple,
        optimizer=config.optimizer.name,
        config=config.to_dict(),
    )
