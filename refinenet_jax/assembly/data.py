"""The data that a config names: opened, and looked at before it costs a training."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence

import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from refinenet_jax import buckets, log, processes
from refinenet_jax.data.builders.records import SegmentationBuilder
from refinenet_jax.data.class_counts import ClassCounts
from refinenet_jax.data.datasets import (
    Dataset,
    find_prepared,
    fingerprint_of,
    lookup,
    open_split,
)
from refinenet_jax.data.doctor.diagnosis import diagnose, unlisted
from refinenet_jax.data.doctor.findings import Finding
from refinenet_jax.data.doctor.originals import Originals, open_files, open_prepared
from refinenet_jax.data.doctor.survey import Survey, look_through
from refinenet_jax.data.images import DataError
from refinenet_jax.data.preparation import copied, prepare
from refinenet_jax.data.request import FolderLabels, Request
from refinenet_jax.data.source import Source
from refinenet_jax.errors import UserError, listed
from refinenet_jax.pictures import Shown
from refinenet_jax.processes import on_first_process

OTHERS_END = "process 0 found errors in the data, see there"
_NUM_TOLD = 3  # errors in one line


@dataclasses.dataclass(frozen=True)
class JobData:
    """The data of a job.

    Attributes:
        request: which data set, and where its files are.
        dataset: its classes and splits.
        sources: the examples of the splits that were asked for, by name.
    """

    request: Request
    dataset: Dataset
    sources: Mapping[str, Source]


def request_of(
    config: ConfigDict,
    *,
    name: str = "",
    manual_dir: str | None = None,
    channels: int = 0,
) -> Request:
    """The config's data set, or one that it mixes in, and where its files are.

    channels: of a network that is there already; 0: what config.model.channels asks for.
    """
    data = config.data
    return Request(
        name=name or data.name,
        data_dir=data.dir,
        manual_dir=data.manual_dir if manual_dir is None else manual_dir,
        damaged=data.damaged,
        folder=FolderLabels(**data.folder),
        cache_dir=data.cache_dir,
        channels=channels or config.model.channels,
        not_finite=data.not_finite,
    )


def find_dataset(config: ConfigDict) -> Dataset:
    """The config's data set.

    Raises:
        UserError: it is unknown, or has another number of classes than the network.
    """
    dataset = lookup(request_of(config))
    if config.model.num_classes not in (0, dataset.num_classes):
        raise UserError(
            f"config.model.num_classes={config.model.num_classes}, but "
            f"{dataset.name} has {dataset.num_classes} classes"
        )
    return dataset


def open_data(
    config: ConfigDict, *splits: str, look: bool = False, channels: int = 0
) -> JobData:
    """Opens splits of the config's data set, prepared by one process for all.

    Args:
        config: the whole configuration.
        splits: their names.
        look: whether config.data.check_images examples of each are looked at first.
        channels: see `request_of`.

    Raises:
        UserError: the data or a split is not there, or the look found an error.
    """
    dataset = find_dataset(config)
    if look and config.data.check_images:
        refuse_errors(config)
    request = request_of(config, channels=channels)
    if request.data_dir.startswith(buckets.PREFIX) and not request.cache_dir:
        log.say(
            f"reading {request.data_dir} over the network, image by image: with a folder "
            "on this host's disk as config.data.cache_dir it is copied there, once"
        )
    sources = open_request(request, *splits)
    return JobData(request, dataset, dict(zip(splits, sources, strict=True)))


def open_request(request: Request, *splits: str) -> list[Source]:
    """Opens splits of any data set, prepared by one process for all.

    Raises:
        UserError: the data or a split is not there.
    """
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()  # in a file its bars are noise
    checked = on_first_process(
        lambda: prepare(request, log), "process 0 could not prepare the data, see there"
    )
    [fingerprint, *_] = processes.gather(fingerprint_of(checked) if checked else "")
    prepared = checked or _trusting(request, fingerprint)
    if request.cache_dir:
        prepared = copied(prepared, log)
    sources = [open_split(prepared, split) for split in splits]
    left_out = sources[0].left_out
    if left_out:
        log.say(
            f"left out of {request.name}, being damaged: {len(left_out)} "
            f"({listed(left_out, 3, '; ')})"
        )
    return sources


def _trusting(request: Request, fingerprint: str) -> SegmentationBuilder:
    """What process 0 has checked, or the same on a disk of this host's own.

    Raises:
        UserError: this host's own disk has other files.
    """
    found = find_prepared(request, fingerprint)
    if found is None:
        found = prepare(request, log)
        if fingerprint_of(found) != fingerprint:
            raise UserError(
                f"{found.data_path} was prepared from other files than process 0 has: "
                "give all processes the same config.data.manual_dir"
            )
    return found


def class_pixels(source: Source) -> ClassCounts:
    """int64 [N,C+1]: pixels of each class and, last, ignored ones, by example.

    All processes must call this: where they were not counted yet, one of them does so.
    """
    counts = on_first_process(
        lambda: source.class_pixels(log),
        "process 0 could not count the classes, see there",
    )
    return source.class_pixels(log) if counts is None else counts


def mean_and_std(source: Source) -> tuple[list[float], list[float]]:
    """Of each channel of pictures that are not RGB, in their own units.

    All processes must call this: where they were not measured yet, one of them does so.
    """
    found = on_first_process(
        lambda: source.mean_and_std(log),
        "process 0 could not measure the pictures, see there",
    )
    return source.mean_and_std(log) if found is None else found


def shown_of(config: ConfigDict) -> Shown:
    """How pictures that are not RGB are shown."""
    return Shown(
        tuple(config.data.shown_channels), tuple(config.data.shown_percentiles)
    )


def open_originals(config: ConfigDict, sources: Mapping[str, Source]) -> Originals:
    """What there is to look at: the files as they are, else what was prepared.

    sources: what `prepared_sources` gave.

    Raises:
        DataError: not even the lists of files are whole.
    """
    if sources:
        return open_prepared(request_of(config), sources)
    return open_files(request_of(config), splits_of(config))


def prepared_sources(config: ConfigDict) -> dict[str, Source]:
    """The prepared examples, where the files themselves are not at hand; else none.

    All processes must call this: one of them may have to prepare the data.
    """
    if config.data.manual_dir:
        return {}
    names = splits_of(config)
    return dict(zip(names, open_request(request_of(config), *names), strict=True))


def splits_of(config: ConfigDict) -> list[str]:
    """The splits to train and to evaluate on, each once."""
    return list(dict.fromkeys([config.data.train_split, config.data.eval_split]))


def survey(
    config: ConfigDict, data: Originals, *, num_images: int, num_pictures: int
) -> list[Survey]:
    """Looks through the splits, with a bar.

    num_images: of each split, evenly spread; num_pictures: that are kept to be shown.
    """
    total = sum(min(num_images, len(split.files)) for split in data.splits)
    with log.progress("checking data", total) as on_image:
        return [
            look_through(
                split,
                data.table,
                num_images=num_images,
                num_pictures=num_pictures,
                num_threads=config.data.num_threads,
                on_image=on_image,
                shown=shown_of(config),
            )
            for split in data.splits
        ]


def refuse_errors(config: ConfigDict) -> None:
    """Looks at config.data.check_images examples of each split, evenly spread.

    Says nothing when all is well.

    Raises:
        UserError: there is something in them that training must not start on.
    """
    sources = prepared_sources(config)
    on_first_process(lambda: _look(config, sources), OTHERS_END)


def _look(config: ConfigDict, sources: Mapping[str, Source]) -> None:
    number = config.data.check_images
    try:
        data = open_originals(config, sources)
        surveys = survey(config, data, num_images=number, num_pictures=0)
        findings = diagnose(surveys, request_of(config))
    except DataError as error:
        findings = [unlisted(error, splits_of(config), request_of(config))]
    for finding in findings:
        if finding.level == "warning":
            log.say(finding_line(finding))
    refuse(findings, "--mode=check_data shows more")


def finding_line(finding: Finding) -> str:
    """A finding for the terminal."""
    named = f" ({', '.join(finding.files)})" if finding.files else ""
    return f"{finding.level} {finding.code}, {finding.split}: {finding.message}{named}"


def told_when_refused(findings: Sequence[Finding]) -> list[Finding]:
    """The errors that the line of `refuse` spells out."""
    return [finding for finding in findings if finding.level == "error"][:_NUM_TOLD]


def refuse(findings: Sequence[Finding], more: str) -> None:
    """Raises UserError where errors are among the findings; `more` says where to look."""
    count = sum(finding.level == "error" for finding in findings)
    if count:
        first = "; ".join(
            f"{error.code}: {error.message} (split {error.split}"
            + (f", {error.files[0]})" if error.files else ")")
            for error in told_when_refused(findings)
        )
        number = "1 error" if count == 1 else f"{count} errors"
        raise UserError(f"{number} in the data: {first}; {more}")
