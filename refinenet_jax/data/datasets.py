"""The data sets by name: classes, splits, preparation, random access to examples."""

import dataclasses
import hashlib
import importlib
import pathlib
import shutil
from collections.abc import Collection, Mapping

import tensorflow_datasets as tfds

from refinenet_jax.data.builders.examples import (
    FilesBuilder,
    file_state,
    fingerprint,
    manual_folder,
)
from refinenet_jax.data.builders.records import SegmentationBuilder
from refinenet_jax.data.class_table import read_class_table
from refinenet_jax.data.request import Request
from refinenet_jax.data.source import Reporter, Source
from refinenet_jax.errors import UserError

_BUILDERS = "refinenet_jax.data.builders"
_FOLDER = "folder"


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A data set this package knows.

    Attributes:
      builder: module and class of the TFDS builder, imported on first use, or the
        class.
      splits: our name of a split -> the TFDS splits that make it up.
      optional: TFDS split that not every copy has -> what to add to have it.
    """

    builder: str | type[SegmentationBuilder]
    splits: Mapping[str, str]
    optional: Mapping[str, str] = dataclasses.field(default_factory=dict)


_TRAIN_VAL = {"train": "train", "val": "val", "trainval": "train+val"}
_TRAIN_TEST = {"train": "train", "test": "test"}
DATASETS = {
    "shapes": _Entry("shapes.Shapes", {"train": "train", "val": "val"}),
    "voc2012": _Entry(
        "voc2012.Voc2012",
        {**_TRAIN_VAL, "train_aug": "train+sbd"},
        {"sbd": "SBD's benchmark.tgz or its folder benchmark_RELEASE/"},
    ),
    "cityscapes": _Entry("cityscapes.Cityscapes", _TRAIN_VAL),
    "ade20k": _Entry("ade20k.Ade20k", _TRAIN_VAL),
    "pascal_context": _Entry("pascal_context.PascalContext", _TRAIN_VAL),
    "pascal_context_59": _Entry("pascal_context.PascalContext59", _TRAIN_VAL),
    "person_part": _Entry("person_part.PersonPart", _TRAIN_VAL),
    "nyudv2": _Entry("nyudv2.NyuDv2", _TRAIN_TEST),
    "sunrgbd": _Entry("sunrgbd.SunRgbd", _TRAIN_TEST),
    "coco_stuff_10k": _Entry("coco_stuff.CocoStuff10k", _TRAIN_TEST),
    "coco_stuff_164k": _Entry("coco_stuff.CocoStuff164k", _TRAIN_VAL),
    "camvid": _Entry(
        "camvid.CamVid",
        {**_TRAIN_VAL, "test": "test"},
        {"test": "test/, testannot/ and test.txt"},
    ),
    _FOLDER: _Entry("folder.Folder", {}),
}


def add_dataset(builder: type[SegmentationBuilder], splits: Mapping[str, str]) -> None:
    """Adds a data set of one's own, after which config.data.name may name it.

    docs/extending.md shows one in full.

    Args:
      builder: its name is the data set's, its class_table has the classes.
      splits: name of a split -> the builder's splits that make it up, such as
        {"trainval": "train+val"}.

    Raises:
      ValueError: there is one of that name.
    """
    if builder.name in DATASETS:
        raise ValueError(
            f"there is a data set {builder.name!r} already: choose another name"
        )
    DATASETS[builder.name] = _Entry(builder, splits)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What a data set is made of.

    Attributes:
      name: what `config.data.name` calls it.
      class_names: one name for each class id, in order.
      palette: one RGB colour (0..255) for each class id, in order.
      splits: the names of its splits; empty where the folder decides.
      source: where names and colours were taken from.
    """

    name: str
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    splits: tuple[str, ...]
    source: str

    @property
    def num_classes(self) -> int:
        """How many classes there are, the ignored one not counted."""
        return len(self.class_names)


def builder(request: Request) -> SegmentationBuilder:
    """The TFDS builder of a data set.

    Raises:
      UserError: there is none of that name; the known names are listed.
    """
    found = _entry(request.name).builder
    if isinstance(found, str):
        module, _, name = found.rpartition(".")
        found = getattr(importlib.import_module(f"{_BUILDERS}.{module}"), name)
    return found(request)


def lookup(request: Request) -> Dataset:
    """Classes and splits of a data set.

    Raises:
      UserError: there is none of that name; a folder that lists no classes.
    """
    entry = _entry(request.name)
    if request.name == _FOLDER or not isinstance(entry.builder, str):
        table = builder(request).class_table
    else:
        table = read_class_table(request.name)
    return Dataset(
        name=request.name,
        class_names=table.class_names,
        palette=table.palette,
        splits=tuple(entry.splits),
        source=table.source,
    )


def prepare(request: Request, report: Reporter) -> SegmentationBuilder:
    """Writes a data set as ArrayRecord files, unless that was done before.

    The files appear under their final name when they are complete; what a run that
    was broken off leaves is never taken for a prepared data set. Where files in
    manual_dir changed since, they are prepared again. Several processes that share
    data_dir must not prepare at the same time: let process 0 call this first, pass a
    barrier, then let the others call it and find the files.

    Args:
      request: see `Request`.
      report: told of every step.

    Returns:
      The TFDS builder, prepared.

    Raises:
      UserError: unknown name; manual_dir does not hold the data set, or another
        copy than the one that was prepared; a damaged file; a failed download.
    """
    found = builder(request)
    folder = pathlib.Path(found.data_path)
    if not folder.exists():
        report.say(f"preparing {request.name} in {folder}")
        found.prepare(report.progress)
    else:
        _refuse_other_content(found)
        if _has_changed(found):
            report.say(
                f"files in {request.manual_dir} changed: preparing {request.name} again"
            )
            _replace(found, request, report)
            found = builder(request)
    left_out = found.info.metadata["left_out"]
    if left_out and request.damaged == "stop":
        raise UserError(
            f"{folder} was prepared without {len(left_out)} damaged files "
            f"({left_out[0]}): set config.data.damaged='skip' to do without them, or "
            f"mend them and delete {folder}"
        )
    return found


def split_parts(name: str, split: str, at_hand: Collection[str]) -> dict[str, str]:
    """The TFDS splits that make up a split.

    Args:
      name: the data set.
      split: one of `Dataset.splits`.
      at_hand: the TFDS splits that a copy of the data set has.

    Returns:
      Each TFDS split, and what to add to a copy that lacks it.

    Raises:
      UserError: unknown split.
    """
    entry = _entry(name)
    known = list(entry.splits or at_hand)
    if split not in known:
        raise UserError(f"split {split!r} of {name}; known: {', '.join(known)}")
    parts = entry.splits.get(split, split).split("+")
    return {part: entry.optional.get(part, "") for part in parts}


def open_split(prepared: SegmentationBuilder, split: str) -> Source:
    """Opens a split of a prepared data set for random access.

    Args:
      prepared: what `prepare` returned.
      split: one of `Dataset.splits`.

    Raises:
      UserError: unknown split, or one that the prepared copy lacks.
    """
    parts = split_parts(prepared.name, split, prepared.info.splits)
    for part, remedy in parts.items():
        if part not in prepared.info.splits:
            raise UserError(
                f"split {split!r} of {prepared.name} is not in {prepared.data_dir}: put "
                f"{remedy} into config.data.manual_dir, then delete "
                f"{prepared.data_dir} to have it prepared again"
            )
    expression = "+".join(parts)
    # Decoding waits for the data workers, which choose when and how.
    encoded = {key: tfds.decode.SkipDecoding() for key in ("image", "label")}
    records = prepared.as_data_source(split=expression, decoders=encoded)
    metadata = prepared.info.metadata
    identity = f"{prepared.info.full_name} {expression} {metadata['fingerprint']}"
    key = hashlib.sha256(identity.encode()).hexdigest()
    cache = pathlib.Path(prepared.data_path) / f"class_pixels-{key[:16]}.npy"
    return Source(records, key, list(metadata["left_out"]), cache)


def _entry(name: str) -> _Entry:
    if name not in DATASETS:
        known = ", ".join(sorted(DATASETS))
        raise UserError(f"config.data.name={name!r}; known: {known}")
    return DATASETS[name]


def _refuse_other_content(found: SegmentationBuilder) -> None:
    """Raises UserError where the prepared folder is not what was asked for."""
    if not found.is_prepared() or "left_out" not in found.info.metadata:
        # TFDS would take any folder of that name for prepared data; another package
        # may have a data set of the same name.
        raise UserError(
            f"{found.data_dir} is no prepared {found.name}: delete that folder or "
            "choose another config.data.dir"
        )
    for split in found.info.splits.values():
        for path in split.filepaths:
            if not path.exists():
                raise UserError(
                    f"{path} is missing: delete {found.data_dir} to have "
                    f"{found.name} prepared again"
                )
    if not isinstance(found, FilesBuilder) or not found.request.manual_dir:
        return
    folder, recorded = _folders(found)
    if folder == recorded:
        return
    if fingerprint(found.locate()) != found.info.metadata["fingerprint"]:
        raise UserError(
            f"{found.data_dir} was prepared from {recorded or 'a download'}, and "
            f"config.data.manual_dir={folder!r} holds other files: choose another "
            f"config.data.dir or delete {found.data_dir}"
        )


def _has_changed(found: SegmentationBuilder) -> bool:
    """Whether files in manual_dir were edited since they were prepared."""
    if not isinstance(found, FilesBuilder) or not found.request.manual_dir:
        return False
    folder, recorded = _folders(found)
    return (
        folder == recorded
        and file_state(found.locate()) != found.info.metadata["state"]
    )


def _folders(found: FilesBuilder) -> tuple[str, str]:
    """The folder that was asked for, and the one that was prepared."""
    asked = str(manual_folder(found.request.manual_dir))
    return asked, found.info.metadata["manual_dir"]


def _replace(found: SegmentationBuilder, request: Request, report: Reporter) -> None:
    """Prepares again; what was there before stays until the new files are complete."""
    folder = pathlib.Path(found.data_path)
    before = folder.with_name(f"{folder.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    folder.rename(before)
    try:
        builder(request).prepare(report.progress)
    except BaseException:
        before.rename(folder)
        raise
    shutil.rmtree(before)
