"""Checkpoints, with Orbax: the latest few and the best by mean IoU.

Each holds five items: `network` (parameters and BatchNorm statistics), `training`
(optimiser, step, random key), `data` (the position in the data), `metadata` (what the
network is, and its score) and `digests` of all these. Whoever only predicts reads the
network, its metadata and digests.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx
from jax.sharding import Sharding

from refinenet_jax import files
from refinenet_jax.checkpoints.manager import Manager, best_of
from refinenet_jax.checkpoints.metadata import Metadata
from refinenet_jax.checkpoints.reading import (
    DIGESTS,
    METADATA,
    POSITION,
    DamagedCheckpoint,
    describe_digests,
    read_arrays,
    read_metadata,
    read_position,
)
from refinenet_jax.errors import UserError, unknown
from refinenet_jax.log import say
from refinenet_jax.models import abstract_network
from refinenet_jax.models.architecture import check_same_network
from refinenet_jax.models.leaves import split_network
from refinenet_jax.processes import together, wait_for_all

FOLDER = "checkpoints"
_ITEMS = ("network", "training", POSITION, METADATA, DIGESTS)
_CHOICES = ("best", "latest")


@dataclasses.dataclass(frozen=True)
class Score:
    """The evaluation of a checkpoint."""

    step: int
    mean_iou: float


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a run goes on from.

    Attributes:
        step: how many were done.
        items: trees of arrays, as they were saved.
        position: in the data.
    """

    step: int
    items: Mapping[str, Any]
    position: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one workdir."""

    def __init__(self, workdir: epath.Path, *, keep_latest: int | None = None):
        """Opens the folder; keep_latest None: to read only, nothing is made."""
        self._workdir = workdir
        self._scores: dict[int, float] = {}
        self._manager = Manager(
            workdir / FOLDER, _ITEMS, self._scores, keep_latest=keep_latest
        )
        for step in self._manager.newest_first():
            try:
                mean_iou = read_metadata(self._folder(step)).mean_iou
            except DamagedCheckpoint:
                continue  # said by whoever wants to restore it
            if mean_iou is not None:
                self._scores[step] = mean_iou

    def save(
        self,
        step: int,
        items: Mapping[str, Any],
        position: Mapping[str, Any],
        metadata: Metadata,
    ) -> None:
        """Starts to write; the arrays may be donated as soon as this returns.

        Waits where an earlier one is still being written; see `is_writing`.

        Args:
            step: how many were done; what was saved there before is replaced.
            items: trees of arrays: "network", {"params", "batch_stats"}, and
                "training", whatever else the trainer needs to go on.
            position: in the data, ready for JSON.
            metadata: of the network; with the mean IoU where it was evaluated.

        Raises:
            UserError: this one or an earlier one cannot be written.
        """
        if metadata.mean_iou is not None:
            self._scores[step] = metadata.mean_iou
        described = dataclasses.replace(metadata, step=step)
        self._write(step, items, described, position)

    def save_network(
        self, params: nnx.State, batch_stats: nnx.State, metadata: Metadata
    ) -> None:
        """Writes a network that was not trained here, as step 0.

        Raises:
            UserError: there are checkpoints already.
        """
        if self._manager.newest_first():
            raise UserError(
                f"{self._workdir} already holds checkpoints: choose another --workdir"
            )
        network = {"params": params, "batch_stats": batch_stats}
        described = dataclasses.replace(metadata, step=0, mean_iou=None)
        self._write(0, {"network": network}, described, None)

    def _write(
        self,
        step: int,
        items: Mapping[str, Any],
        metadata: Metadata,
        position: Mapping[str, Any] | None,
    ) -> None:
        # Not Grain's own handler for the position: it writes a file for each process,
        # and this position is the same for any number of them.
        content = {
            METADATA: metadata.to_json(),
            DIGESTS: describe_digests(items, metadata, position),
        }
        if position is not None:
            content[POSITION] = dict(position)
        arrays = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        texts = {name: ocp.args.JsonSave(value) for name, value in content.items()}
        self._manager.write(step, ocp.args.Composite(**arrays, **texts))

    def restore_latest(
        self, items: Mapping[str, Any], wanted: Metadata
    ) -> Restored | None:
        """The newest checkpoint that can be read, or None where there is none.

        Passes over damaged checkpoints, says so, and moves them aside once an older
        one is restored.

        Args:
            items: as `save` takes them: shapes, dtypes and shardings to restore to.
            wanted: of the network that the run asks for.

        Raises:
            UserError: the workdir holds another network or optimiser, or only damaged
                checkpoints.
        """
        damaged = []
        for step in self._manager.newest_first():
            restored = together(
                functools.partial(self._restore, step, items, wanted), DamagedCheckpoint
            )
            if isinstance(restored, DamagedCheckpoint):
                say(f"{restored}; taking the one before it")
                damaged.append(step)
                continue
            for step_aside in damaged:
                self._move_aside(step_aside)
            return restored
        if damaged:
            self._refuse_all_damaged()
        return None

    def _restore(
        self, step: int, items: Mapping[str, Any], wanted: Metadata
    ) -> Restored:
        folder = self._folder(step)
        found = read_metadata(folder)
        if found.weights is not None:
            raise UserError(
                f"{self._workdir} holds converted weights: train in another --workdir "
                f"with --config.init_from={self._workdir}"
            )
        check_same_network(self._workdir, found.architecture, wanted.architecture)
        if found.optimizer != wanted.optimizer:
            raise UserError(
                f"{self._workdir} holds a run with {found.optimizer}, the config "
                f"asks for config.optimizer.name={wanted.optimizer!r}: choose "
                "another workdir, with config.init_from to start from this network"
            )
        if found.averaged != wanted.averaged:
            kept, wish = ("with", "without")[:: 1 if found.averaged else -1]
            raise UserError(
                f"{self._workdir} holds a run {kept} an average of its network, the "
                f"config asks for one {wish}: choose another config.train.ema, or "
                "another workdir, with config.init_from to start from this network"
            )
        return Restored(step, read_arrays(folder, items), read_position(folder))

    def load_network(
        self,
        which: str,
        sharding: Sharding,
        check: Callable[[Metadata], None] = lambda found: None,
    ) -> tuple[Metadata, nnx.State, nnx.State]:
        """Metadata, parameters and BatchNorm statistics alone.

        Args:
            which: "best" by mean IoU, or "latest"; where that one is damaged, the
                newest that can be read, which is said.
            sharding: how to lay them out.
            check: may refuse a checkpoint for its metadata, before more is read.

        Raises:
            UserError: there is no checkpoint, or none that can be read; `which` is
                unknown.
        """
        if which not in _CHOICES:
            raise unknown(f"which={which!r}", which, _CHOICES)
        steps = self._manager.newest_first()
        if not steps:
            raise UserError(
                f"{self._manager.directory} holds no checkpoint: name the workdir of a "
                "run that saved one"
            )
        best = self.best()
        if which == "best" and best is not None:
            steps = [best.step, *(step for step in steps if step != best.step)]
        for step in steps:
            try:
                folder = self._folder(step)
                metadata = read_metadata(folder)
                check(metadata)
                params, batch_stats = _abstract_weights(metadata)
                wanted = {"params": params, "batch_stats": batch_stats}
                network = with_sharding(wanted, sharding)
                found = read_arrays(folder, {"network": network})["network"]
            except DamagedCheckpoint as error:
                say(f"{error}; taking another")
                continue
            return metadata, found["params"], found["batch_stats"]
        self._refuse_all_damaged()
        raise AssertionError  # not reached

    def _folder(self, step: int) -> epath.Path:
        return self._manager.directory / str(step)

    def _refuse_all_damaged(self) -> None:
        raise UserError(
            f"{self._manager.directory}: none of the checkpoints can be read; "
            "choose another --workdir"
        )

    def _move_aside(self, step: int) -> None:
        """Out of Orbax's sight, so that the step can be written again."""
        folder = self._workdir / "damaged_checkpoints"
        if jax.process_index() == 0:
            number = len(list(folder.iterdir())) if folder.is_dir() else 0
            damaged = folder / f"{step}_{number}"
            files.rename_folder(self._folder(step), damaged)
            say(f"checkpoint {step} was moved to {damaged}")
        wait_for_all("moved aside")
        self._scores.pop(step, None)
        self._manager.reload()

    def best(self) -> Score | None:
        """The highest mean IoU, the latest of equals; None before any evaluation."""
        step = best_of(self._scores)
        return None if step is None else self.score(step)

    def score(self, step: int) -> Score | None:
        """The evaluation of a checkpoint; None where it was not evaluated."""
        return Score(step, self._scores[step]) if step in self._scores else None

    def is_writing(self) -> bool:
        """Whether a checkpoint is still being written; waits for nothing.

        Raises:
            UserError: it could not be written.
        """
        return self._manager.is_writing()

    def wait(self) -> None:
        """Returns when all that was started is written.

        Raises:
            UserError: it could not be.
        """
        self._manager.wait()

    def close(self) -> None:
        """Waits for what was started, then lets go of the folder.

        Raises:
            UserError: what was started could not be written.
        """
        self._manager.close()


def open_checkpoints(workdir: epath.Path) -> Checkpoints:
    """To read only.

    Raises:
        UserError: the folder is not a workdir.
    """
    if not files.is_folder(workdir / FOLDER):
        raise UserError(
            f"{workdir} holds no {FOLDER}/: name the workdir of a run that saved one"
        )
    return Checkpoints(workdir)


def with_sharding(tree: Any, sharding: Sharding) -> Any:
    """Shapes and dtypes of a tree of arrays, to be restored laid out as `sharding`."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )


def with_shardings(tree: Any, shardings: Any) -> Any:
    """As `with_sharding`, each array laid out as a tree of shardings has it."""
    return jax.tree.map(
        lambda x, own: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=own),
        tree,
        shardings,
    )


def _abstract_weights(metadata: Metadata) -> tuple[nnx.State, nnx.State]:
    """Parameters and BatchNorm statistics of a network, without values."""
    network = abstract_network(metadata.architecture)
    _, params, batch_stats = split_network(network)
    return params, batch_stats
