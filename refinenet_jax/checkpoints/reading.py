"""Reads one checkpoint, and tells a store that fails from content that is damaged.

A failure to read is tried again with growing pauses, and then ends the run: nothing is
wrong with the checkpoint. Damage is proven: every file of the checkpoint can be read,
and what they hold makes no sense, or is not what its digests say.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from refinenet_jax.checkpoints import digests
from refinenet_jax.checkpoints.metadata import Metadata
from refinenet_jax.errors import UserError, first_line, listed
from refinenet_jax.log import say

# Items of a checkpoint that are JSON; all others are trees of arrays.
METADATA, POSITION, DIGESTS = "metadata", "data", "digests"

_PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before another try
# What TensorStore says where the store is at fault and not what it holds.
_STORE_FAULTS = (
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "ABORTED",
    "INTERNAL",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "Connection",
    "timed out",
)


# Whose errors tell of a bucket that fails.
_STORE_PACKAGES = {"gcsfs", "aiohttp", "google", "requests"}


class DamagedCheckpoint(UserError):
    """A checkpoint whose content is proven to be damaged."""


class AnotherTree(UserError):
    """A checkpoint that holds other arrays than the run asks for."""


def read_metadata(folder: epath.Path) -> Metadata:
    """What the checkpoint in a folder says of itself, its digest compared.

    Raises:
        DamagedCheckpoint: it is proven to be damaged.
        UserError: it cannot be read now.
    """
    found, _ = _read_described(folder)
    return found


def read_position(folder: epath.Path) -> dict[str, Any]:
    """The position in the data, also of what was written earlier; see `read_metadata`."""
    position = _read(folder, **{POSITION: ocp.args.JsonRestore()})[POSITION]
    metadata, described = _read_described(folder)
    if described and digests.digest_json(position) != described[POSITION]:
        raise _damaged(folder, "its position in the data is not what was written")
    if "next_batch" in position:  # it was once counted in batches
        batch_size = metadata.config["train"]["batch_size"]
        return {"next_example": position["next_batch"] * batch_size}
    return position


def read_arrays(folder: epath.Path, items: Mapping[str, Any]) -> dict[str, Any]:
    """Trees of arrays, every leaf compared with its digest.

    Args:
        folder: of the checkpoint.
        items: name of an item → shapes, dtypes and shardings to read to.

    Raises:
        AnotherTree: leaves are missing, of another shape or too many.
        DamagedCheckpoint: it is proven to be damaged.
        UserError: it cannot be read now.
    """
    _, described = _read_described(folder)
    known = described.get("arrays") if described else _orbax_shapes(folder, items)
    if known is not None:
        _refuse_other_trees(folder, items, known)
    arguments = {name: ocp.args.StandardRestore(tree) for name, tree in items.items()}
    found = _read(folder, **arguments)
    trees = {name: found[name] for name in items}
    if described:
        wrong = [
            f"{name}/{path}"
            for name, tree in trees.items()
            for path in digests.differing(tree, described["arrays"][name])
        ]
        if wrong:
            raise _damaged(
                folder, f"other values than were written in {listed(wrong, 3)}"
            )
    return trees


def describe_digests(
    items: Mapping[str, Any], metadata: Metadata, position: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The item `DIGESTS` of a checkpoint, ready for JSON.

    All processes must call this. Waits for the arrays.
    """
    content: dict[str, Any] = {
        "arrays": {name: digests.digest_arrays(tree) for name, tree in items.items()},
        METADATA: digests.digest_json(metadata.to_json()),
    }
    if position is not None:
        content[POSITION] = digests.digest_json(position)
    return {**content, "self": digests.digest_json(content)}


def _read_described(folder: epath.Path) -> tuple[Metadata, dict[str, Any] | None]:
    """Metadata and digests, compared; None for digests of before they were kept."""
    names = [METADATA] + [DIGESTS] * (folder / DIGESTS).exists()
    found = _read(folder, **{name: ocp.args.JsonRestore() for name in names})
    described: dict[str, Any] | None = None
    if DIGESTS in names:
        described = dict(found[DIGESTS])
        if described.pop("self", "") != digests.digest_json(described):
            raise _damaged(folder, "its digests are not what was written")
        if digests.digest_json(found[METADATA]) != described[METADATA]:
            raise _damaged(folder, "its metadata is not what was written")
    try:
        return Metadata.from_json(found[METADATA]), described
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder, f"its metadata: {first_line(error)}") from error


def _read(folder: epath.Path, **items: ocp.args.CheckpointArgs) -> Any:
    """Items of a checkpoint, as they are.

    By this process alone: where one of several fails, no other waits for it in Orbax.
    """
    for pause in (*_PAUSES, None):
        try:
            with _reader() as reader:
                return reader.restore(folder, args=ocp.args.Composite(**items))
        except Exception as error:  # Orbax and TensorStore raise many kinds
            if not _is_store_fault(error):
                _refuse_unreadable(folder)
                raise _damaged(folder, first_line(error)) from error
            if pause is None:
                raise _unread(folder, error) from error
            say(f"{folder}: {first_line(error)[:200]}; trying again in {pause:g} s")
            time.sleep(pause)
    raise AssertionError  # not reached


def _reader() -> ocp.Checkpointer:
    alone = ocp.options.MultiprocessingOptions(
        primary_host=None,
        active_processes={jax.process_index()},
        barrier_sync_key_prefix=f"reader{jax.process_index()}",
    )
    handler = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=alone)
    )
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _orbax_shapes(
    folder: epath.Path, items: Mapping[str, Any]
) -> dict[str, dict[str, Any]] | None:
    """What Orbax's own metadata says of the arrays, for checkpoints without digests."""
    found = {}
    for name in items:
        try:
            tree = ocp.StandardCheckpointHandler().metadata(folder / name).tree
        except (OSError, ValueError, KeyError):  # told by whoever reads the arrays
            return None
        leaves = digests.leaves_by_path(tree).items()
        found[name] = {
            path: {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
            for path, leaf in leaves
        }
    return found


def _refuse_other_trees(
    folder: epath.Path, items: Mapping[str, Any], known: Mapping[str, Any]
) -> None:
    """Before anything large is read."""
    faults = []
    for name, tree in items.items():
        wanted = {
            path: list(leaf.shape)
            for path, leaf in digests.leaves_by_path(tree).items()
        }
        found = {path: list(leaf["shape"]) for path, leaf in known[name].items()}
        for path in sorted(wanted.keys() | found.keys()):
            if wanted.get(path) != found.get(path):
                theirs = found.get(path, "nothing")
                ours = wanted.get(path, "nothing")
                faults.append(f"{name}/{path}: {theirs} there, {ours} here")
    if faults:
        raise AnotherTree(
            f"{folder} holds another run than the config asks for: {listed(faults, 3)}; "
            "go on with its settings, or choose another --workdir with --config.init_from"
        )


def _refuse_unreadable(folder: epath.Path) -> None:
    """Raises UserError where some file cannot be read: then nothing is proven."""
    try:
        for file in _files_in(folder):
            file.read_bytes()
    except Exception as error:  # of the disk, or of gcsfs
        raise _unread(folder, error) from error


def _files_in(folder: epath.Path) -> Iterator[epath.Path]:
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files_in(path)
        else:
            yield path


def _is_store_fault(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is of the store and not of the content."""
    seen = []
    while error is not None and error not in seen:
        seen.append(error)
        absent = isinstance(error, FileNotFoundError | NotADirectoryError)
        package = type(error).__module__.partition(".")[0]
        if (isinstance(error, OSError) and not absent) or package in _STORE_PACKAGES:
            return True
        if any(fault in str(error) for fault in _STORE_FAULTS):
            return True
        several = isinstance(error, BaseExceptionGroup) and error.exceptions
        if any(map(_is_store_fault, several or ())):
            return True
        error = error.__cause__ or error.__context__
    return False


def _damaged(folder: epath.Path, reason: str) -> DamagedCheckpoint:
    return DamagedCheckpoint(f"checkpoint {folder} is damaged ({reason[:200]})")


def _unread(folder: epath.Path, error: BaseException) -> UserError:
    return UserError(
        f"checkpoint {folder} cannot be read now ({first_line(error)[:200]}); nothing was "
        "changed: start again when the storage answers"
    )
