"""Prepared data copied whole: up into a bucket, and down to a host's own disk."""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed

import xxhash
from etils import epath

from refinenet_jax import files
from refinenet_jax.data.source import Reporter
from refinenet_jax.errors import UserError, first_line

# TFDS takes a folder for prepared data by this file.
MARKER = "dataset_info.json"

_RECORD = "copied.json"  # of each file that was copied: size and time at its origin
_BLOCK = 1 << 20
_NUM_THREADS = 8  # one stream from a bucket is slower than a disk


def upload(folder: epath.Path, target: epath.Path, report: Reporter) -> None:
    """Puts prepared data into a bucket, in the place of what is there.

    What is broken off has no `MARKER`, which is removed first and written last.

    Raises:
        UserError: the store does not take it.
    """
    files.remove_folder(target, first=MARKER)
    found = files.files_below(folder)
    found.sort(key=lambda file: file == folder / MARKER)
    with report.progress("uploading files", len(found)) as on_file:
        for file in found:
            files.upload(file, target / file.relative_to(folder))
            on_file()


def copy_to_disk(source: epath.Path, target: epath.Path, report: Reporter) -> None:
    """Makes a folder hold what prepared data holds; what it has already stays.

    Several processes of a host may ask at once: one copies, the others wait. Of each
    file the size is compared with that of the origin, and the digest of what lies on
    the disk with that of what was read.

    Raises:
        UserError: the disk is full or garbles what is written, or a file cannot be read.
    """
    files.make_folder(target, "config.data.cache_dir")
    with _locked(target.with_name(f".{target.name}.lock")):
        found = files.states(files.files_below(source))
        wanted = {
            file.relative_to(source).as_posix(): (state.size, state.modified)
            for file, state in found.items()
        }
        record = _read_record(target)
        for name in record.keys() - wanted.keys():
            (target / name).unlink(missing_ok=True)
        there = {
            file.relative_to(target).as_posix(): state.size
            for file, state in files.states(files.files_below(target)).items()
        }
        missing = {
            name: size
            for name, (size, modified) in wanted.items()
            if record.get(name) != [size, modified] or there.get(name) != size
        }
        if missing:
            _refuse_full_disk(target, sum(missing.values()))
            report.say(f"copying {source} to {target}")
            kept = {name: record[name] for name in wanted.keys() - missing.keys()}
            _copy_all(source, target, missing, wanted, kept, report)


def _copy_all(
    source: epath.Path,
    target: epath.Path,
    missing: Mapping[str, int],
    wanted: Mapping[str, tuple[int, int]],
    kept: dict[str, list[int]],
    report: Reporter,
) -> None:
    """kept: the record of what needs no copying, which grows."""
    blocks = sum(-(-size // _BLOCK) for size in missing.values())
    with (
        report.progress("copying MiB", blocks) as on_block,
        ThreadPoolExecutor(_NUM_THREADS) as pool,
    ):
        jobs = {
            pool.submit(_copy, source / name, target / name, size, on_block): name
            for name, size in missing.items()
        }
        try:
            for job in as_completed(jobs):
                job.result()
                kept[jobs[job]] = list(wanted[jobs[job]])
                files.write_json(target / _RECORD, kept)
        finally:
            pool.shutdown(cancel_futures=True)


def _copy(
    source: epath.Path, target: epath.Path, size: int, on_block: Callable[[], None]
) -> None:
    digest = xxhash.xxh3_128()
    with files.replacing(target) as partial:
        with partial.open("wb") as copy:
            for block in _blocks(source):
                digest.update(block)
                copy.write(block)
                on_block()
        written = xxhash.xxh3_128()
        for block in _blocks(partial):
            written.update(block)
        if (partial.stat().st_size, written.digest()) != (size, digest.digest()):
            raise UserError(
                f"the copy of {source} in {target.parent} is not what was read: start "
                "again, or choose a config.data.cache_dir on another disk"
            )


def _blocks(file: epath.Path) -> Iterator[bytes]:
    try:
        with file.open("rb") as content:
            while block := content.read(_BLOCK):
                yield block
    except Exception as error:  # gcsfs, aiohttp and google.auth each raise their own
        raise UserError(
            f"{file} cannot be read now ({first_line(error)}): start again when the "
            "storage answers"
        ) from error


def _read_record(target: epath.Path) -> dict[str, list[int]]:
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((target / _RECORD).read_text()))
    return {}


def _refuse_full_disk(target: epath.Path, needed: int) -> None:
    free = _free_bytes(target)
    if needed > free:
        raise UserError(
            f"config.data.cache_dir: the data needs {needed / 1e9:.1f} GB, and "
            f"{target} has room for {free / 1e9:.1f}: make room or choose another disk"
        )


def _free_bytes(folder: epath.Path) -> int:
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize


@contextlib.contextmanager
def _locked(path: epath.Path) -> Iterator[None]:
    """Waits until no other process of this host holds the lock file, and holds it."""
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # ends with the process, whatever ends that
        yield
