"""Checkpoints, with Orbax: the latest few and the best by mean IoU.

Each holds four items: `network` (parameters and BatchNorm statistics), `training`
(optimiser, step, random key), `data` (the position in the data of each process) and
`metadata` (JSON: what the network is). Whoever only predicts reads the first and last.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import Sharding
from orbax.checkpoint import checkpoint_managers as policies

from refinenet_jax.errors import UserError
from refinenet_jax.log import say
from refinenet_jax.training.state import TrainState

FOLDER = "checkpoints"
_ITEMS = ("network", "training", "data", "metadata")

Metadata = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Score:
    """An evaluation that a checkpoint was kept for."""

    step: int
    mean_iou: float


class Checkpoints:
    """The checkpoints of one workdir."""

    def __init__(self, workdir: Path, *, keep_latest: int | None = None):
        """Opens the folder; keep_latest None: to read only, nothing is made."""
        options = (
            ocp.CheckpointManagerOptions(
                create=False, read_only=True, best_fn=_mean_iou
            )
            if keep_latest is None
            else ocp.CheckpointManagerOptions(
                best_fn=_mean_iou,
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(keep_latest),
                        policies.BestN(
                            get_metric_fn=_mean_iou,
                            n=1,
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
                # A killed run leaves half-written folders; Orbax never reads them.
                cleanup_tmp_directories=True,
            )
        )
        self._workdir = workdir
        self._manager = ocp.CheckpointManager(
            (workdir / FOLDER).absolute(), options=options, item_names=_ITEMS
        )
        # Orbax reads metrics from the disk, where those of a save that is still under
        # way are not yet.
        self._scores: dict[int, float] = {}
        for step in self._manager.all_steps():
            metrics = self._manager.metrics(step)
            if metrics is not None:
                self._scores[step] = _mean_iou(metrics)

    def save(
        self,
        step: int,
        state: TrainState,
        batches: grain.DatasetIterator,
        metadata: Metadata,
        mean_iou: float | None,
    ) -> None:
        """Starts to write; the state may be donated as soon as this returns.

        batches: has given out the batches of `step` steps and no more.
        mean_iou: of this state, where it was evaluated.
        """
        self._manager.save(
            step,
            args=ocp.args.Composite(
                network=ocp.args.StandardSave(_network_item(state)),
                training=ocp.args.StandardSave(_training_item(state)),
                data=grain.checkpoint.CheckpointSave(batches),
                metadata=ocp.args.JsonSave({**metadata, "step": step}),
            ),
            metrics=None if mean_iou is None else {"mean_iou": mean_iou},
        )
        if mean_iou is not None:
            self._scores[step] = mean_iou

    def restore_latest(
        self, state: TrainState, batches: grain.DatasetIterator, metadata: Metadata
    ) -> TrainState | None:
        """The newest state that can be read, or None where there is no checkpoint.

        Moves a damaged checkpoint aside, says so, and takes the one before it.

        Args:
            state: shapes, dtypes and shardings to restore to.
            batches: is set to the position of the checkpoint.
            metadata: of the network that the run asks for.

        Raises:
            UserError: the workdir holds another network, or only damaged checkpoints.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                return self._restore(step, state, batches, metadata)
            except UserError:
                raise
            except Exception as error:  # noqa: BLE001 - Orbax and TensorStore raise many
                self._move_aside(step, error)
        if steps:
            raise UserError(
                f"{self._manager.directory}: none of the checkpoints can be read; "
                "they were moved beside it; start in another --workdir"
            )
        return None

    def _restore(
        self,
        step: int,
        state: TrainState,
        batches: grain.DatasetIterator,
        metadata: Metadata,
    ) -> TrainState:
        items = self._manager.restore(
            step, args=ocp.args.Composite(metadata=ocp.args.JsonRestore())
        )
        check_same_network(self._workdir, items.metadata, metadata)
        items = self._manager.restore(
            step,
            args=ocp.args.Composite(
                network=ocp.args.StandardRestore(_network_item(state)),
                training=ocp.args.StandardRestore(_training_item(state)),
                data=grain.checkpoint.CheckpointRestore(batches),
            ),
        )
        return dataclasses.replace(state, **items.network, **items.training)

    def _move_aside(self, step: int, error: Exception) -> None:
        """Out of Orbax's sight, so that the step can be written again; nothing is lost."""
        damaged = self._workdir / f"damaged_checkpoints/{step}"
        reason = str(error).partition("\n")[0][:200]
        say(
            f"checkpoint {step} in {self._manager.directory} cannot be read ({reason}); "
            f"moved to {damaged}; taking the one before it"
        )
        if jax.process_index() == 0:
            damaged.parent.mkdir(exist_ok=True)
            (Path(self._manager.directory) / str(step)).rename(damaged)
        self._scores.pop(step, None)
        self._manager.reload()

    def best(self) -> Score | None:
        """The highest mean IoU, the latest of equals; None before any evaluation."""
        if not self._scores:
            return None
        return self.score(max(self._scores, key=lambda s: (self._scores[s], s)))

    def score(self, step: int) -> Score | None:
        """The evaluation of a checkpoint; None where it was not evaluated."""
        return Score(step, self._scores[step]) if step in self._scores else None

    def choose(self, which: str) -> int:
        """The step of the "best" checkpoint, or of the "latest" where none was evaluated.

        Raises:
            UserError: there is no checkpoint.
        """
        best = self.best()
        step = best.step if which == "best" and best else self._manager.latest_step()
        if step is None:
            raise UserError(
                f"{self._manager.directory} holds no checkpoint; train with this "
                "--workdir first, or name the workdir of a run"
            )
        return step

    def read_metadata(self, step: int) -> Metadata:
        """What the network of a checkpoint is."""
        args = ocp.args.Composite(metadata=ocp.args.JsonRestore())
        return self._manager.restore(step, args=args).metadata

    def read_network(
        self,
        step: int,
        params: nnx.State,
        batch_stats: nnx.State,
        sharding: Sharding,
    ) -> tuple[nnx.State, nnx.State]:
        """Parameters and BatchNorm statistics alone, laid out as `sharding` says.

        params, batch_stats: shapes and dtypes.

        Raises:
            UserError: the checkpoint is damaged.
        """
        wanted = with_sharding({"params": params, "batch_stats": batch_stats}, sharding)
        try:
            items = self._manager.restore(
                step,
                args=ocp.args.Composite(network=ocp.args.StandardRestore(wanted)),
            )
        except Exception as error:  # Orbax and TensorStore raise many kinds
            reason = str(error).partition("\n")[0][:200]
            raise UserError(
                f"checkpoint {step} in {self._manager.directory} cannot be read "
                f"({reason}); choose another with config.eval.checkpoint"
            ) from error
        return items.network["params"], items.network["batch_stats"]

    def close(self) -> None:
        """Returns when all that was started is written."""
        self._manager.wait_until_finished()
        self._manager.close()


def open_checkpoints(workdir: Path) -> Checkpoints:
    """To read only.

    Raises:
        UserError: the folder is not a workdir.
    """
    if not (workdir / FOLDER).is_dir():
        raise UserError(
            f"{workdir} holds no {FOLDER}/; train with this --workdir first, or name "
            "the workdir of a run"
        )
    return Checkpoints(workdir)


def check_same_network(workdir: Path, found: Metadata, wanted: Metadata) -> None:
    """Raises UserError where a checkpoint's network is not the one asked for."""
    fields = ("variant", "num_classes", "input_scale")
    if any(found[name] != wanted[name] for name in fields):
        raise UserError(
            f"{workdir} holds {_described(found)}, the config asks for "
            f"{_described(wanted)}: choose another workdir or change config.model"
        )


def with_sharding(tree: Any, sharding: Sharding) -> Any:
    """Shapes and dtypes of a tree of arrays, to be restored laid out as `sharding`."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )


def _described(metadata: Metadata) -> str:
    return (
        f"{metadata['variant']} with {metadata['num_classes']} classes and input scale "
        f"{metadata['input_scale']:g}"
    )


def _network_item(state: TrainState) -> dict[str, Any]:
    return {"params": state.params, "batch_stats": state.batch_stats}


def _training_item(state: TrainState) -> dict[str, Any]:
    return {"step": state.step, "opt_state": state.opt_state, "key": state.key}


def _mean_iou(metrics: Mapping[str, float]) -> float:
    return metrics["mean_iou"]
