"""The splits of a data set as a survey reads them: from the files, or prepared."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet_jax.data import images
from refinenet_jax.data.builders.examples import (
    FilesBuilder,
    Pair,
    fingerprint,
    manual_folder,
)
from refinenet_jax.data.class_table import ClassTable
from refinenet_jax.data.datasets import builder, split_parts
from refinenet_jax.data.doctor.survey import Labelled, Split
from refinenet_jax.data.pipeline import decode
from refinenet_jax.data.request import Request
from refinenet_jax.data.source import Source
from refinenet_jax.errors import UserError
from refinenet_jax.labels import IGNORE_LABEL


@dataclasses.dataclass(frozen=True)
class Originals:
    """What there is to look through.

    Attributes:
      splits: the examples.
      table: what their label values mean.
      fingerprint: gives what differs when the files do; raises DataError where one is
        missing.
      remark: what a person should know of the splits; "" for nothing.
    """

    splits: Sequence[Split]
    table: ClassTable
    fingerprint: Callable[[], str]
    remark: str = ""


def open_files(request: Request, names: Sequence[str]) -> Originals:
    """The files in manual_dir, nothing prepared.

    Raises:
      DataError: a split lists files that are not there.
      UserError: manual_dir does not hold the data set, or not all of a split; a name
        that cannot be stored.
    """
    found = builder(request)
    assert isinstance(found, FilesBuilder)
    located = found.locate()
    splits = []
    for name in names:
        pairs: list[Pair] = []
        for part, remedy in split_parts(request.name, name, located).items():
            if part not in located:
                raise UserError(
                    f"config.data.manual_dir={request.manual_dir!r} does not hold all "
                    f"of split {name!r}: put {remedy} there"
                )
            pairs += located[part]
        published = found.class_table.split_sizes.get(name)
        splits.append(_split_of_files(name, found, pairs, published))
    return Originals(
        splits, found.class_table, lambda: fingerprint(located), found.remark
    )


def open_prepared(request: Request, sources: Mapping[str, Source]) -> Originals:
    """The prepared examples of splits, whose label values are class ids."""
    table = builder(request).class_table
    ids = {class_id: class_id for class_id in range(len(table.class_names))}
    return Originals(
        [
            _split_of_source(name, source, table.split_sizes.get(name))
            for name, source in sources.items()
        ],
        dataclasses.replace(table, raw_to_class={**ids, IGNORE_LABEL: IGNORE_LABEL}),
        lambda: " ".join(source.fingerprint for source in sources.values()),
    )


def _split_of_files(
    name: str, found: FilesBuilder, pairs: Sequence[Pair], published: int | None
) -> Split:
    def read(index: int) -> Labelled:
        example = found.read(pairs[index])
        hidden = example.not_finite
        return Labelled(
            example.image,
            example.raw,
            example.turned,
            example.label_turned,
            example.has_alpha,
            0 if hidden is None else int(np.count_nonzero(hidden)),
        )

    def read_image(index: int) -> npt.NDArray[Any]:
        data = found.read_image(pairs[index])
        path = str(pairs[index].image)
        image = images.decode_picture(data, path, found.pictures)
        return images.turn_upright(image, images.orientation(data))

    for pair in pairs:
        _refuse_strange_name(pair)
    folder = manual_folder(found.request.manual_dir)
    if len({pair.label for pair in pairs}) == len(pairs):
        files = [os.path.relpath(pair.label, folder) for pair in pairs]
    else:  # one file holds many labels
        files = [pair.name for pair in pairs]
    return Split(name, files, read, read_image, published)


def _refuse_strange_name(pair: Pair) -> None:
    for path in (pair.image, pair.label):
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{str(path)!a} has no UTF-8 name: rename it") from error


def _split_of_source(name: str, source: Source, published: int | None) -> Split:
    def read(index: int) -> Labelled:
        example = decode(source[index], source.kind)
        return Labelled(example["image"], example["label"], turned=False)

    return Split(
        name,
        [f"{name} {index}" for index in range(len(source))],
        read,
        lambda index: read(index).image,
        published,
    )
