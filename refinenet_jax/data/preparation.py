"""Preparation of a data set: once, wherever it is kept, and copied to where it is read."""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator

from etils import epath

from refinenet_jax import files, lock
from refinenet_jax.data import copying
from refinenet_jax.data.builders.examples import (
    FilesBuilder,
    file_state,
    fingerprint,
    manual_folder,
)
from refinenet_jax.data.builders.records import SegmentationBuilder, cannot_prepare
from refinenet_jax.data.datasets import builder
from refinenet_jax.data.picture_kind import RGB
from refinenet_jax.data.request import Request
from refinenet_jax.data.source import Reporter
from refinenet_jax.errors import UserError

_METADATA = {"manual_dir", "fingerprint", "state", "left_out"}


def prepare(request: Request, report: Reporter) -> SegmentationBuilder:
    """Writes a data set as ArrayRecord files, unless that was done before.

    The files appear under their final name when they are complete; what a run that
    was broken off leaves is never taken for a prepared data set. Where files in
    manual_dir changed since, they are prepared again: all of them are looked at, so
    that where several processes share data_dir, process 0 calls this first and the
    others `find_prepared` behind it. Of several runs one prepares, and the others wait.

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
    folder = files.path(found.data_path)
    if not _is_up_to_date(found):
        with _alone(found, report):
            found = builder(request)  # another process may have prepared it
            if not _is_up_to_date(found):
                _prepare(found, report)
                found = builder(request)
    left_out = found.info.metadata["left_out"]
    if left_out and request.damaged == "stop":
        raise UserError(
            f"{folder} was prepared without {len(left_out)} damaged files "
            f"({left_out[0]}): set config.data.damaged='skip' to do without them, or "
            f"mend them and delete {folder}"
        )
    not_finite = found.info.metadata.get("not_finite", 0)
    if not_finite and request.not_finite == "refuse":
        raise UserError(
            f"{folder} was prepared with {not_finite} pictures that hold NaN or infinity: "
            "set config.data.not_finite='ignore' to have such pixels not count, or mend "
            f"them and delete {folder}"
        )
    return found


def copied(prepared: SegmentationBuilder, report: Reporter) -> SegmentationBuilder:
    """The same data on this host's own disk, in the request's cache_dir.

    Each host needs it, and any number of its processes may ask at once.

    Raises:
      UserError: see `copying.copy_to_disk`.
    """
    cache = files.absolute(files.path(prepared.request.cache_dir))
    folder, root = (files.path(p) for p in (prepared.data_path, prepared.data_dir_root))
    # Another data_dir may hold another copy of the data set under the same names.
    place = cache / hashlib.sha256(os.fspath(root).encode()).hexdigest()[:12]
    copying.copy_to_disk(folder, place / folder.relative_to(root), report)
    return builder(dataclasses.replace(prepared.request, data_dir=os.fspath(place)))


def _refuse_other_content(found: SegmentationBuilder) -> None:
    """Raises UserError where the prepared folder is not what was asked for."""
    if not found.is_prepared() or not _METADATA <= set(found.info.metadata):
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


def _is_there(folder: epath.Path) -> bool:
    """Whether it is prepared data, or something in the place of it."""
    if files.in_bucket(folder):  # what was broken off is written anew
        return (folder / copying.MARKER).exists()
    return folder.exists()


def _is_up_to_date(found: SegmentationBuilder) -> bool:
    if not _is_there(files.path(found.data_path)):
        return False
    _refuse_other_content(found)
    return not _has_changed(found)


@contextlib.contextmanager
def _alone(found: SegmentationBuilder, report: Reporter) -> Iterator[None]:
    """Waits for whoever prepares the same data set; none begins within the block."""
    root = files.path(found.data_dir_root)
    if not files.in_bucket(root):
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_prepare(found, error) from error
    name = files.path(found.data_path).relative_to(root).as_posix()
    with lock.hold(
        root / f".{name.replace('/', '-')}.lock",
        f"preparing {found.name} in {root}",
        remedy="",
        say=report.say,
        wait=True,
    ):
        yield


def _prepare(found: SegmentationBuilder, report: Reporter) -> None:
    request, folder = found.request, files.path(found.data_path)
    if not _is_there(folder):
        report.say(f"preparing {request.name} in {folder}")
        _write(found, report)
        if isinstance(found, FilesBuilder) and found.remark:
            report.say(found.remark)
        _say_of_pictures(builder(request), report)
        return
    report.say(f"files in {request.manual_dir} changed: preparing {request.name} again")
    _replace(found, report)


def _say_of_pictures(prepared: SegmentationBuilder, report: Reporter) -> None:
    """What a person should know of them."""
    metadata = prepared.info.metadata
    if prepared.kind != RGB:
        report.say(f"the pictures have {prepared.kind}")
    if number := metadata.get("has_alpha"):
        report.say(f"{number} pictures have transparency, which is dropped")
    if number := metadata.get("not_finite"):
        report.say(f"{number} pictures hold NaN or infinity; those pixels do not count")


def _write(found: SegmentationBuilder, report: Reporter) -> None:
    """Prepares; for a bucket on disk first, where alone ArrayRecord can be written."""
    folder, request = files.path(found.data_path), found.request
    if not files.in_bucket(folder):
        found.prepare(report.progress)
        return
    with files.scratch(request.cache_dir) as here:
        local = builder(dataclasses.replace(request, data_dir=os.fspath(here)))
        local.prepare(report.progress)
        copying.upload(files.path(local.data_path), folder, report)


def _replace(found: SegmentationBuilder, report: Reporter) -> None:
    """Prepares again; what was there before stays until the new files are complete."""
    folder = files.path(found.data_path)
    if files.in_bucket(folder):
        _write(found, report)
        return
    before = folder.with_name(f"{folder.name}.before")
    files.remove_folder(before)
    folder.rename(before)
    try:
        builder(found.request).prepare(report.progress)
    except BaseException:
        before.rename(folder)
        raise
    files.remove_folder(before)
