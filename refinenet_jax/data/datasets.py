"""The data sets by name: classes, splits, preparation, random access to examples."""

import dataclasses
import hashlib
import importlib
from collections.abc import Collection, Mapping

import tensorflow_datasets as tfds

from refinenet_jax import files
from refinenet_jax.data.builders.records import SegmentationBuilder
from refinenet_jax.data.channel_moments import moments_file
from refinenet_jax.data.class_counts import counts_file
from refinenet_jax.data.class_table import read_class_table
from refinenet_jax.data.picture_kind import PictureKind
from refinenet_jax.data.request import Request
from refinenet_jax.data.source import Source, StoredRecords
from refinenet_jax.errors import UserError

_BUILDERS = "refinenet_jax.data.builders"
_FOLDER = "folder"
# What every builder here records.


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


def find_prepared(request: Request, fingerprint: str) -> SegmentationBuilder | None:
    """The prepared data set that another process has checked, if it is here too.

    Costs the same for any number of files: nothing in manual_dir is looked at.

    Args:
      request: see `Request`.
      fingerprint: of what the other process found, see `fingerprint_of`.
    """
    found = builder(request)
    if not found.is_prepared() or fingerprint_of(found) != fingerprint:
        return None
    return found


def fingerprint_of(prepared: SegmentationBuilder) -> str:
    """A sha256 that differs when the files differ that a data set was prepared from."""
    return prepared.info.metadata.get("fingerprint", "")


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
        hint = ""
        if name == _FOLDER:
            hint = (
                f"; write the names of its images into {split}.txt in config.data."
                "manual_dir, or set config.data.train_split and eval_split to what is "
                "there"
            )
        raise UserError(f"split {split!r} of {name}; known: {', '.join(known)}{hint}")
    parts = entry.splits.get(split, split).split("+")
    return {part: entry.optional.get(part, "") for part in parts}


def open_split(prepared: SegmentationBuilder, split: str) -> Source:
    """Opens a split of a prepared data set for random access.

    Args:
      prepared: what `prepare` returned.
      split: one of `Dataset.splits`.

    Raises:
      UserError: unknown split, one that the prepared copy lacks, or pictures of other
        channels than the request asks for.
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
    records = StoredRecords(
        prepared.as_data_source(split=expression, decoders=encoded),
        [
            (str(file), length)
            for split in map(prepared.info.splits.get, parts)
            for file, length in zip(split.filepaths, split.shard_lengths, strict=True)
        ],
    )
    metadata = prepared.info.metadata
    identity = f"{prepared.info.full_name} {expression} {metadata['fingerprint']}"
    key = hashlib.sha256(identity.encode()).hexdigest()
    folder = files.path(prepared.data_path)
    counts = {
        counts_file(folder, part): prepared.info.splits[part].num_examples
        for part in parts
    }
    moments = {
        moments_file(folder, part): prepared.info.splits[part].num_examples
        for part in parts
    }
    kind = kind_for(prepared)
    return Source(records, key, list(metadata["left_out"]), counts, kind, moments)


def kind_for(prepared: SegmentationBuilder) -> PictureKind:
    """What pictures are decoded as for the channels that the request asks for.

    Raises:
      UserError: the pictures have other channels.
    """
    stored, asked = prepared.kind, prepared.request.channels
    if asked in (0, stored.channels):
        return stored
    wanted = PictureKind(asked, stored.dtype)
    if stored.together(wanted) != wanted:
        raise UserError(
            f"the pictures of {prepared.name} have {stored}, but the network sees "
            f"{asked}: set config.model.channels=0, or take other data"
        )
    return wanted


def _entry(name: str) -> _Entry:
    if name not in DATASETS:
        known = ", ".join(sorted(DATASETS))
        raise UserError(f"config.data.name={name!r}; known: {known}")
    return DATASETS[name]
