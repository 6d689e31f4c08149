"""Writes encoded examples as ArrayRecord files: what all TFDS builders here share."""

import abc
import contextlib
import dataclasses
import functools
import io
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core import example_serializer

from refinenet_jax.data.builders.workers import Make, making
from refinenet_jax.data.channel_moments import Moments, moments_file
from refinenet_jax.data.class_counts import counts_file, parse_counts, write_counts
from refinenet_jax.data.class_table import (
    ClassTable,
    count_classes,
    read_class_table,
)
from refinenet_jax.data.images import common_kind
from refinenet_jax.data.picture_kind import RGB, PictureKind
from refinenet_jax.data.request import Request
from refinenet_jax.errors import UserError, first_line
from refinenet_jax.files import path
from refinenet_jax.pictures import encode

_EXAMPLES_PER_SHARD = 1000


class Progress(Protocol):
    """Shows how far a task is: `with progress(task, total) as on_unit: on_unit()`."""

    def __call__(
        self, task: str, total: int | None
    ) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """Opens the display of one task."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """What is remembered of a picture whose kind the files decide.

    Attributes:
      file: where it is from.
      kind: of the picture.
      has_alpha: whether it has transparency, which is dropped.
      not_finite: how many of its pixels are no finite numbers.
      moments: of its channels; None for RGB.
    """

    file: str
    kind: PictureKind
    has_alpha: bool
    not_finite: int
    moments: Moments | None


class Record(NamedTuple):
    """An example as it is stored, its `class_pixels`, and what to remember of it."""

    data: bytes
    class_pixels: str
    stored: Stored | None = None


class SegmentationBuilder(tfds.core.GeneratorBasedBuilder):
    """What the TFDS builders of this package have in common.

    Examples have the features `image` (an encoded image), `label` (an 8-bit grey PNG
    of class ids, 255 = ignore), `name`, and `class_pixels`: how many pixels each class
    has and, last, how many are ignored, as decimal numbers. The metadata records the
    folder that they came from ("" for none), a fingerprint of its files, what was
    left out, and where pictures are not RGB of 8 bits their kind: TFDS has no feature
    for all of these, so that `image` is declared as RGB.
    """

    VERSION = tfds.core.Version("1.1.0")

    # TFDS looks for checksums.tsv beside this file. Left to find the file itself,
    # TFDS 4.9.10 imports importlib_resources, which it does not install.
    code_path = pathlib.Path(__file__)

    def __init_subclass__(cls, **options: Any) -> None:
        # TFDS's own list of names is not used, and lets no file be loaded twice.
        super().__init_subclass__(skip_registration=True, **options)

    def __init__(
        self, request: Request, *, config: tfds.core.BuilderConfig | None = None
    ) -> None:
        self.request = request
        # Refuses what no path can be; TFDS opens it for itself.
        data_dir = os.fspath(path(request.data_dir)) if request.data_dir else None
        try:
            super().__init__(data_dir=data_dir, config=config)
            self._read_whole_info()
        except Exception as error:  # many kinds: TFDS reads what is there
            raise UserError(
                f"{self.data_dir} is not as it was prepared ({first_line(error)}): "
                f"delete it to have {self.name} prepared again"
            ) from error

    def _read_whole_info(self) -> None:
        """Reads what TFDS leaves for later, so that damage shows here.

        Raises:
          KeyError, TypeError, ValueError: it is damaged.
        """
        counts = self.info.metadata.get("examples", {})
        for name, split in self.info.splits.items():
            if counts and counts[name] != split.num_examples:
                raise ValueError(f"split {name} has another number of examples")
            _ = split.filepaths

    def __reduce__(self) -> tuple[Any, ...]:
        # TFDS's own pickling, which brings a builder to the data workers, knows
        # nothing of the request.
        return type(self), (self.request,)

    @property
    def class_table(self) -> ClassTable:
        """What the label values mean."""
        return read_class_table(self.name)

    @abc.abstractmethod
    def find_examples(
        self, downloads: tfds.download.DownloadManager
    ) -> Mapping[str, Sequence[Any]]:
        """What `example` makes the examples of each split from; fills the metadata."""

    @abc.abstractmethod
    def example(self, origin: Any) -> dict[str, Any] | str:
        """One example, as `encoded_example` makes it, or why it is left out.

        It may run in another process, on a builder of the same request.
        """

    def record(self, origin: Any) -> Record | str:
        """One example as it is stored, or why it is left out."""
        example = self.example(origin)
        if isinstance(example, str):
            return example
        stored_as = example.pop("stored", None)
        encoded = self.info.features.encode_example(example)
        stored = self._serializer.get_tf_example(encoded)
        # Else the order of the features is that of each process's own hashes.
        data = stored.SerializeToString(deterministic=True)
        return Record(data, example["class_pixels"], stored_as)

    @functools.cached_property
    def _serializer(self) -> example_serializer.ExampleSerializer:
        features = self.info.features.get_serialized_info()
        return example_serializer.ExampleSerializer(features)

    def prepare(self, progress: Progress) -> None:
        """Downloads and writes the data set; it appears complete or not at all.

        Raises:
          UserError: see `find_examples` and `example`; the place cannot be written to.
        """
        self._progress = progress
        self._stored: list[Stored] = []
        self._kinds: dict[PictureKind, str] = {}
        try:
            self.download_and_prepare(
                file_format="array_record",
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )
        except OSError as error:
            raise cannot_prepare(self, error) from error

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.Image(shape=(None, None, 1)),
                    "name": tfds.features.Text(),
                    "class_pixels": tfds.features.Text(),
                }
            ),
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Any:
        raise NotImplementedError("examples are written one by one, see below")

    _generate_examples = _split_generators

    def _generate_splits(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: tfds.download.DownloadConfig,
    ) -> list[tfds.core.SplitInfo]:
        """Writes every example as soon as it is made.

        TFDS's own writer gathers a whole split before: up to 1 GB of it in memory,
        and what is more with the help of TensorFlow.
        """
        del download_config
        splits = self.find_examples(dl_manager)
        number = sum(map(len, splits.values()))
        with making(self.record, number) as make:
            written = [
                self._write_split(split, origins, make)
                for split, origins in splits.items()
            ]
        # Said twice, so that a damaged digit does not pass for another number.
        self.info.metadata["examples"] = {x.name: x.num_examples for x in written}
        self.info.metadata.update(self._told_of_pictures())
        if self.kind != RGB:
            self._write_moments(written)
        return written

    @property
    def kind(self) -> PictureKind:
        """Of the pictures; of a data set that is not prepared, RGB of 8 bits."""
        told = self.info.metadata.get("pictures")
        return PictureKind(**told) if told else RGB

    def _told_of_pictures(self) -> dict[str, Any]:
        """What the metadata says; nothing where all are RGB of 8 bits and no more."""
        told: dict[str, Any] = {}
        if self._kinds and (kind := common_kind(self._kinds)) != RGB:
            told["pictures"] = dataclasses.asdict(kind)
        for name in ("has_alpha", "not_finite"):
            if number := sum(bool(getattr(x, name)) for x in self._stored):
                told[name] = number
        return told

    def _write_moments(self, written: Sequence[tfds.core.SplitInfo]) -> None:
        folder, rest = pathlib.Path(self.data_path), iter(self._stored)
        for split in written:
            moments = [
                np.broadcast_to(x.moments, (3, self.kind.channels))
                for x in itertools.islice(rest, split.num_examples)
                if x.moments is not None  # which those of RGB alone are
            ]
            write_counts(moments_file(folder, split.name), np.stack(moments))

    def _write_split(
        self, split: str, origins: Sequence[Any], make: Make
    ) -> tfds.core.SplitInfo:
        template = self._get_filename_template(split_name=split)
        starts = range(0, len(origins), _EXAMPLES_PER_SHARD)
        lengths, num_bytes = [], 0
        texts: list[str] = []
        with self._progress(f"preparing {split}", len(origins)) as on_example:
            for number, start in enumerate(starts):
                path = template.sharded_filepath(
                    shard_index=number, num_shards=len(starts)
                )
                records = make(origins[start : start + _EXAMPLES_PER_SHARD])
                sizes = self._write_shard(os.fspath(path), records, texts, on_example)
                lengths.append(len(sizes))
                num_bytes += sum(sizes)
        if not sum(lengths):
            raise UserError(f"split {split!r} of {self.name} has no readable image")
        folder = pathlib.Path(self.data_path)
        write_counts(counts_file(folder, split), parse_counts(texts))
        return tfds.core.SplitInfo(
            name=split,
            shard_lengths=lengths,
            num_bytes=num_bytes,
            filename_template=template,
        )

    def _write_shard(
        self,
        path: str,
        records: Iterable[Record | str],
        texts: list[str],
        on_example: Callable[[], None],
    ) -> list[int]:
        """Returns the sizes of the records in bytes; appends their `class_pixels`."""
        sizes = []
        with _writing(path) as write:
            for record in records:
                if isinstance(record, str):
                    self.info.metadata["left_out"].append(record)
                else:
                    write(record.data)
                    sizes.append(len(record.data))
                    texts.append(record.class_pixels)
                    if record.stored is not None:
                        self._remember(record.stored)
                on_example()
        return sizes

    def _remember(self, stored: Stored) -> None:
        """Raises DataError where it is of another kind than those before."""
        self._stored.append(stored)
        if stored.kind not in self._kinds:
            self._kinds[stored.kind] = stored.file
            common_kind(self._kinds)

    def _log_download_bytes(self) -> None:
        """Says nothing: TFDS knows no sizes beforehand, and `progress` tells more."""

    _log_download_done = _log_download_bytes


@contextlib.contextmanager
def _writing(path: str) -> Iterator[Callable[[bytes], None]]:
    """Writes records to a file; what ArrayRecord cannot write raises OSError."""

    def tried(call: Callable[..., None], *arguments: bytes) -> None:
        try:
            call(*arguments)
        except RuntimeError as error:
            raise OSError(first_line(error)) from error

    # Groups of one record can be read in any order at no cost.
    writer = ArrayRecordWriter(path, "group_size:1")
    try:
        yield lambda record: tried(writer.write, record)
    finally:
        tried(writer.close)


def cannot_prepare(builder: SegmentationBuilder, error: OSError) -> UserError:
    """The error where the place of prepared data cannot be written to, or is full."""
    return UserError(
        f"{builder.name} cannot be prepared in {builder.data_dir_root} "
        f"({error.strerror or first_line(error)}): make room there, make it writable or "
        "choose another config.data.dir"
    )


def encoded_example(
    image: bytes, label: npt.NDArray[np.uint8], name: str, num_classes: int
) -> dict[str, Any]:
    """An example as TFDS stores it without TensorFlow.

    Images are file objects, because TFDS encodes arrays with TensorFlow.

    Args:
      image: an encoded image, kept as it is.
      label: uint8 [H,W] class ids, 255 = ignore.
      name: of the example.
      num_classes: of the data set.
    """
    counts = count_classes(label, num_classes).tolist()
    return {
        "image": io.BytesIO(image),
        "label": io.BytesIO(encode(label, "PNG")),
        "name": name,
        "class_pixels": " ".join(map(str, counts)),
    }
