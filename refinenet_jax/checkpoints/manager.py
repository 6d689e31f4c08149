"""Orbax's manager of a folder of checkpoints: writes, rotates, and tells what failed."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from refinenet_jax import files
from refinenet_jax.errors import UserError, first_line


class Manager:
    """The numbered checkpoints in a folder; written one at a time, in the background.

    A checkpoint appears when it is whole. One that could not be written is told by
    whatever is called next, and is not there.

    Args:
        folder: that holds them.
        items: names of what a checkpoint may hold.
        scores: mean IoU of those that were evaluated, by step; the best is kept.
        keep_latest: how many are kept besides; None: to read only, nothing is made.

    Raises:
        UserError: the folder cannot be made or read; from all methods that write: a
            checkpoint cannot be written.
    """

    def __init__(
        self,
        folder: epath.Path,
        items: Sequence[str],
        scores: Mapping[int, float],
        *,
        keep_latest: int | None,
    ):
        folder = files.absolute(folder)
        atomicity = None  # a whole checkpoint is told by its name, in buckets by a file
        if files.on_mounted_bucket(folder):  # where renaming takes its time as well
            atomicity = ocp.options.AtomicityOptions(
                mode=ocp.options.AtomicityMode.COMMIT_FILE
            )
        if keep_latest is None:
            options = ocp.CheckpointManagerOptions(
                create=False, save_root_metadata=False, atomicity_options=atomicity
            )
        else:
            options = ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(
                    [policies.LatestN(keep_latest), _Best(scores)]
                ),
                # Otherwise it waits minutes for a folder that cannot be made.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
                # A killed run leaves half-written folders; Orbax never reads them.
                cleanup_tmp_directories=True,
                atomicity_options=atomicity,
            )
        self._writing: int | None = None
        try:
            self._orbax = _Orbax(folder, options=options, item_names=tuple(items))
        except OSError as error:
            raise UserError(
                f"{folder} cannot be read or written now ({first_line(error)}); start "
                "again when the storage answers"
            ) from error

    @property
    def directory(self) -> epath.Path:
        """Where they are."""
        return self._orbax.directory

    def newest_first(self) -> list[int]:
        """The steps of all that are whole."""
        return sorted(self._orbax.all_steps(), reverse=True)

    def reload(self) -> None:
        """Looks into the folder again."""
        self._orbax.reload()

    def write(self, step: int, content: ocp.args.Composite) -> None:
        """Starts to write, in the place of what is there of that step.

        Waits for the one before; the arrays may be donated as soon as this returns.
        """
        self.wait()
        with self._telling(step):
            if step in self._orbax.all_steps():
                self._orbax.delete(step)
            self._orbax.save(step, args=content, force=True)
        self._writing = step

    def is_writing(self) -> bool:
        """Whether one is still being written; waits for nothing."""
        if self._orbax.is_saving_in_progress():
            return True
        self.wait()
        return False

    def wait(self) -> None:
        """Returns when what was started is written."""
        step, self._writing = self._writing, None
        if step is not None:
            with self._telling(step):
                self._orbax.wait_until_finished()
                self._refuse_unmerged(step)

    def close(self) -> None:
        """Waits for what was started, then lets go of the folder."""
        try:
            self.wait()
        finally:
            with self._telling("that was last begun"):
                self._orbax.close()

    def _refuse_unmerged(self, step: int) -> None:
        # Orbax merges what the processes wrote into one store, and passes over it in
        # silence when it cannot list the folder.
        for part in (self.directory / str(step)).glob("*/ocdbt.process_*"):
            if not (part.parent / "manifest.ocdbt").exists():
                raise OSError(f"{part.parent} was not completed")

    @contextlib.contextmanager
    def _telling(self, which: int | str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise many kinds
            raise UserError(
                f"checkpoint {which} cannot be written into {self.directory} "
                f"({first_line(error)[:2000]}): make room or mend the storage; the same "
                "command goes on from the one before"
            ) from error


class _Orbax(ocp.CheckpointManager):
    """Is told when to save, and does not ask for itself whether to."""

    def reached_preemption(self, step: int) -> bool:
        """Never: asking would count as a question of `preemption.reached`."""
        del step
        return False


@dataclasses.dataclass(frozen=True)
class _Best(policies.PreservationPolicy):
    """Keeps the one with the highest score.

    Orbax's BestN reads metrics that it has saved itself; ours stand in the metadata.
    """

    scores: Mapping[int, float]

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: Any
    ) -> Sequence[bool]:
        del context
        return [checkpoint.step == best_of(self.scores) for checkpoint in checkpoints]


def best_of(scores: Mapping[int, float]) -> int | None:
    """The step with the highest score, the latest of equals."""
    return max(scores, key=lambda step: (scores[step], step), default=None)
