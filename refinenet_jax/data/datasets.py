"""The data sets by name: classes, splits, preparation, random access to examples."""

import dataclasses
import hashlib
import importlib
from collections.abc import Mapping
from typing import Any, SupportsIndex

import tensorflow_datasets as tfds

from refinenet_jax.data.builders.examples import fingerprint, manual_folder
from refinenet_jax.data.class_table import read_class_table
from refinenet_jax.errors import UserError

_BUILDERS = "refinenet_jax.data.builders"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set this package knows.

    Attributes:
      name: what `config.data.name` calls it.
      class_names: one name for each class id, in order.
      palette: one RGB colour (0..255) for each class id, in order.
      splits: our name of a split -> the TFDS splits that make it up.
      optional: TFDS split that not every copy has -> what to add to have it.
      source: where names and colours were taken from.
      builder: module and class of the TFDS builder, imported on first use.
    """

    name: str
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    splits: Mapping[str, str]
    optional: Mapping[str, str]
    source: str
    builder: str

    @property
    def num_classes(self) -> int:
        """How many classes there are, the ignored one not counted."""
        return len(self.class_names)

    def builder_class(self) -> type[tfds.core.GeneratorBasedBuilder]:
        """The TFDS builder; it takes data_dir (None = TFDS's own) and manual_dir."""
        module, _, name = self.builder.rpartition(".")
        return getattr(importlib.import_module(f"{_BUILDERS}.{module}"), name)


class Source:
    """The examples of one split by number, encoded as they are stored.

    Can be pickled: a data worker opens the files anew.

    Attributes:
      fingerprint: a sha256 that differs when the data set, the split or the files
        that it was prepared from differ.
    """

    def __init__(self, records: Any, fingerprint: str) -> None:
        self._records = records
        self.fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """{"image": bytes, "label": bytes, "name": str}, see `builders.examples`."""
        record = self._records[index]
        return {**record, "name": record["name"].decode("utf-8")}


def _dataset(
    name: str,
    builder: str,
    splits: Mapping[str, str],
    optional: Mapping[str, str],
) -> Dataset:
    table = read_class_table(name)
    return Dataset(
        name=name,
        class_names=table.class_names,
        palette=table.palette,
        splits=splits,
        optional=optional,
        source=table.source,
        builder=builder,
    )


_DATASETS = {
    dataset.name: dataset
    for dataset in (
        _dataset("shapes", "shapes.Shapes", {"train": "train", "val": "val"}, {}),
        _dataset(
            "voc2012",
            "voc2012.Voc2012",
            {
                "train": "train",
                "val": "val",
                "trainval": "train+val",
                "train_aug": "train+sbd",
            },
            {
                "sbd": "SBD's benchmark.tgz (www2.eecs.berkeley.edu/Research/Projects/"
                "CS/vision/grouping/semantic_contours/benchmark.tgz) or its folder "
                "benchmark_RELEASE/ beside VOCdevkit/"
            },
        ),
        _dataset(
            "camvid",
            "camvid.CamVid",
            {
                "train": "train",
                "val": "val",
                "trainval": "train+val",
                "test": "test",
            },
            {"test": "test/, testannot/ and test.txt"},
        ),
    )
}


def lookup(name: str) -> Dataset:
    """The data set of that name.

    Raises:
      UserError: there is none; the known names are listed.
    """
    if name not in _DATASETS:
        known = ", ".join(sorted(_DATASETS))
        raise UserError(f"config.data.name={name!r}; known: {known}")
    return _DATASETS[name]


def prepare(
    name: str, *, data_dir: str, manual_dir: str
) -> tfds.core.GeneratorBasedBuilder:
    """Writes a data set as ArrayRecord files, unless that was done before.

    The files appear under their final name when they are complete; what a run that
    was broken off leaves is never taken for a prepared data set. Several processes
    that share data_dir must not prepare at the same time: let process 0 call this
    first, pass a barrier, then let the others call it and find the files.

    Args:
      name: see `lookup`.
      data_dir: where prepared data lives; "" for TFDS's own place.
      manual_dir: the data set as its authors distribute it; "" to download it.

    Returns:
      The TFDS builder, prepared.

    Raises:
      UserError: unknown name; manual_dir does not hold the data set, or another
        copy than the one that was prepared; a damaged file; a failed download.
    """
    builder_class = lookup(name).builder_class()
    builder = builder_class(data_dir=data_dir or None, manual_dir=manual_dir)
    if not builder.data_path.exists():
        builder.download_and_prepare(
            file_format="array_record",
            download_config=tfds.download.DownloadConfig(try_download_gcs=False),
        )
        return builder
    if not builder.is_prepared() or "fingerprint" not in builder.info.metadata:
        # TFDS would take any folder of that name for prepared data; another package
        # may have a data set of the same name.
        raise UserError(
            f"{builder.data_dir} is no prepared {name}: delete that folder or choose "
            "another config.data.dir"
        )
    _refuse_missing_files(builder)
    _refuse_other_origin(builder)
    return builder


def open_split(name: str, split: str, *, data_dir: str, manual_dir: str) -> Source:
    """Opens a split for random access; prepares the data set if need be.

    Args:
      name: see `lookup`.
      split: a key of `Dataset.splits`.
      data_dir: see `prepare`.
      manual_dir: see `prepare`.

    Raises:
      UserError: unknown split, or one that the prepared copy lacks; see `prepare`.
    """
    dataset = lookup(name)
    if split not in dataset.splits:
        known = ", ".join(dataset.splits)
        raise UserError(f"split {split!r} of {name}; known: {known}")
    builder = prepare(name, data_dir=data_dir, manual_dir=manual_dir)
    expression = dataset.splits[split]
    for part in expression.split("+"):
        if part not in builder.info.splits:
            raise UserError(
                f"split {split!r} of {name} is not in {builder.data_dir}: put "
                f"{dataset.optional[part]} into config.data.manual_dir, then delete "
                f"{builder.data_dir} to have it prepared again"
            )
    # Decoding waits for the data workers, which choose when and how.
    encoded = {key: tfds.decode.SkipDecoding() for key in ("image", "label")}
    records = builder.as_data_source(split=expression, decoders=encoded)
    origin = builder.info.metadata["fingerprint"]
    identity = f"{builder.info.full_name} {expression} {origin}"
    return Source(records, hashlib.sha256(identity.encode()).hexdigest())


def _refuse_missing_files(builder: tfds.core.GeneratorBasedBuilder) -> None:
    for split in builder.info.splits.values():
        for path in split.filepaths:
            if not path.exists():
                raise UserError(
                    f"{path} is missing: delete {builder.data_dir} to have "
                    f"{builder.name} prepared again"
                )


def _refuse_other_origin(builder: tfds.core.GeneratorBasedBuilder) -> None:
    """Raises UserError where manual_dir holds other files than were prepared.

    Only the members of the splits and the sizes of their files are compared, and
    only when manual_dir is not the folder they came from.
    """
    if not builder.manual_dir:
        return
    folder = manual_folder(builder.manual_dir)
    recorded = builder.info.metadata["manual_dir"]
    if str(folder) == recorded:
        return
    if fingerprint(builder.find_pairs(folder)) != builder.info.metadata["fingerprint"]:
        raise UserError(
            f"{builder.data_dir} was prepared from {recorded or 'a download'}, and "
            f"config.data.manual_dir={str(folder)!r} holds other files: choose another "
            f"config.data.dir or delete {builder.data_dir}"
        )
