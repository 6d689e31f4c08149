"""What several modes do first."""

import dataclasses
import sys
from pathlib import Path

import jax
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from refinenet_jax.data.datasets import Dataset, Source, lookup, open_split, prepare
from refinenet_jax.errors import UserError
from refinenet_jax.models.architecture import Architecture
from refinenet_jax.models.build import VARIANTS
from refinenet_jax.sharding import any_process
from refinenet_jax.training.checkpoint import Metadata


def open_data(config: ConfigDict, split: str) -> Source:
    """Opens a split of the config's data set, prepared by one process for all.

    Raises:
        UserError: the data or the split is not there.
    """
    folders = {"data_dir": config.data.dir, "manual_dir": config.data.manual_dir}
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()  # in a file its bars are noise
    fault = None
    if jax.process_index() == 0:
        try:
            prepare(config.data.name, **folders)
        except UserError as error:
            fault = error
    if any_process(fault is not None):
        raise fault or UserError("process 0 could not prepare the data, see there")
    return open_split(config.data.name, split, **folders)


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
    """The config's data set.

    Raises:
        UserError: it is unknown, or has another number of classes than the network.
    """
    dataset = lookup(config.data.name)
    if config.model.num_classes != dataset.num_classes:
        raise UserError(
            f"config.model.num_classes={config.model.num_classes}, but "
            f"{dataset.name} has {dataset.num_classes} classes"
        )
    return dataset


def describe(config: ConfigDict, dataset: Dataset) -> Metadata:
    """All that is needed to use the network without its config, ready for JSON.

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
    architecture = Architecture(**{name: model[name] for name in names})
    backbone, _ = VARIANTS[model.variant]
    return {
        "architecture": architecture.to_json(),
        "dtype": model.dtype,
        "optimizer": config.optimizer.name,
        "mean": list(model.mean or backbone.mean),
        "std": list(model.std or backbone.std),
        "size_multiple": config.eval.size_multiple,
        "dataset": dataset.name,
        "class_names": list(dataset.class_names),
        "palette": [list(colour) for colour in dataset.palette],
        "config": config.to_dict(),
    }
