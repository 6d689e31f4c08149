"""Mode train: from the data to result.json, evaluating and saving as it goes."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from typing import Any, NoReturn, TypeVar

import grain
import jax
import jax.numpy as jnp
from etils import epath
from flax import nnx
from ml_collections import ConfigDict

from refinenet_jax import compiling, files, lock, log, memory, preemption, watchdog
from refinenet_jax.assembly.batches import build_batches
from refinenet_jax.assembly.data import open_data
from refinenet_jax.assembly.evaluation import build_evaluator
from refinenet_jax.assembly.losses import class_weights
from refinenet_jax.assembly.network import (
    Pictures,
    describe,
    refuse_missing_weights,
    weights_to_start_from,
)
from refinenet_jax.assembly.training import (
    Step,
    build_step,
    layout_of,
    refuse_large_step,
)
from refinenet_jax.checkpoints.metadata import Metadata
from refinenet_jax.checkpoints.store import Checkpoints
from refinenet_jax.config import flatten
from refinenet_jax.errors import UserError
from refinenet_jax.evaluation.evaluator import Evaluator
from refinenet_jax.evaluation.report import class_table
from refinenet_jax.models import RefineNet, abstract_network, count_parameters
from refinenet_jax.processes import (
    TO_WORK,
    any_process,
    on_first_process,
    wait_for_all,
)
from refinenet_jax.provenance import provenance
from refinenet_jax.sharding import Layout, placed, to_devices
from refinenet_jax.training.profiling import Profile
from refinenet_jax.training.state import TrainState, create_state, sha256
from refinenet_jax.training.train_log import TrainLog

_Arrays = TypeVar("_Arrays")

_SMALLER = (
    "set config.model.remat='blocks', raise config.train.accumulate, or lower "
    "config.train.batch_size or config.data.crop_size"
)


@dataclasses.dataclass(frozen=True)
class _Run:
    """What the steps of a run have in common."""

    config: ConfigDict
    workdir: epath.Path
    metadata: Metadata
    layout: Layout
    batches: grain.DatasetIterator
    checkpoints: Checkpoints
    evaluator: Evaluator


def run(config: ConfigDict, workdir: epath.Path) -> None:
    """Trains until config.train.num_steps; goes on where the workdir stands.

    Raises:
        UserError: bad settings or data, another network in the workdir, a checkpoint
            that cannot be written, or a loss that is no longer a number.
        Preempted: the program was asked to end; all that was done is saved.
    """
    layout = layout_of(config, jax.devices())
    refuse_missing_weights(config)
    files.make_folder(workdir, "--workdir")
    with _alone_in(workdir):
        _run(config, workdir, layout)


def _run(config: ConfigDict, workdir: epath.Path, layout: Layout) -> None:
    data = open_data(config, config.data.train_split, config.data.eval_split, look=True)
    train_source = data.sources[config.data.train_split]
    metadata = describe(config, data.dataset, Pictures.of(train_source))
    batches_of_run = build_batches(config, data, metadata.architecture.mean)
    network = abstract_network(metadata.architecture, jnp.dtype(metadata.dtype))
    refuse_large_step(config, layout)
    step = build_step(config, network, layout, class_weights(config, data))
    evaluator = build_evaluator(config, network, data)
    with (
        contextlib.closing(iter(batches_of_run)) as batches,
        # Whatever ends the run, what was being saved is written first.
        contextlib.closing(
            Checkpoints(workdir, keep_latest=config.train.keep_checkpoints)
        ) as checkpoints,
    ):
        this = _Run(config, workdir, metadata, layout, batches, checkpoints, evaluator)
        state = _starting_state(this, step)
        if jax.process_index() == 0:
            files.write_json(workdir / "config.json", config.to_dict())
        log.say(
            f"{config.model.variant}, {count_parameters(network):,} parameters, on "
            f"{layout.num_devices} × {jax.devices()[0].device_kind}; "
            f"{len(train_source)} images of {data.dataset.name} "
            f"{config.data.train_split}; files go to {workdir}"
        )
        with memory.telling("training", _SMALLER):
            train_step = _compiled(step, config)
            # Compiling takes one process seconds and another minutes, and what connects
            # them in the first step waits for half a minute only.
            wait_for_all("the first step", TO_WORK)
            with preemption.deferred(), watchdog.watching(config.train.hang_timeout):
                state = _train(this, state, train_step)
                checkpoints.wait()
        _write_result(
            this, state, count_parameters(network), len(train_source.left_out)
        )


@contextlib.contextmanager
def _alone_in(workdir: epath.Path) -> Iterator[None]:
    """No other run trains in the workdir within the block; all processes come here.

    Raises:
        UserError: another one does.
    """
    with contextlib.ExitStack() as held:
        on_first_process(
            lambda: held.enter_context(
                lock.hold(
                    workdir / ".lock",
                    f"a training in {workdir}",
                    remedy="wait for its end, or choose another --workdir",
                    say=log.say,
                )
            ),
            "process 0 could not have the workdir for itself, see there",
        )
        yield


def _train(
    this: _Run, state: TrainState, train_step: jax.stages.Compiled
) -> TrainState:
    """The loop; returns the state after the last step."""
    config, checkpoints = this.config.train, this.checkpoints
    first_step, num_steps = int(state.step), config.num_steps
    checkpoint_due = False
    with (
        contextlib.closing(
            TrainLog(
                this.workdir,
                first_step=first_step,
                num_steps=num_steps,
                batch_size=config.batch_size,
                eval_every=config.eval_every,
                title=f"{this.metadata.dataset}, {this.config.model.variant}",
                made_with=provenance(),
            )
        ) as train_log,
        contextlib.closing(
            Profile(this.workdir / "profile", config.profile, log.say)
        ) as profile,
        log.progress(
            "training", num_steps, first_step, left=train_log.seconds_left
        ) as on_step,
    ):
        if _owes_evaluation(this, first_step):
            mean_iou = _evaluate(this, first_step, state, train_log)
            if mean_iou is not None:
                _save(this, first_step, state, mean_iou)
            else:
                _end(this, first_step)
        for step in range(first_step + 1, num_steps + 1):
            profile.before(step)
            with train_log.waiting_for_input():
                batch = to_devices(next(this.batches), this.layout)
            with jax.transfer_guard("disallow"):  # a step never waits for the host
                state, metrics = train_step(state, batch)
            profile.after(step, metrics)
            train_log.add(step, metrics)
            watchdog.moved_on()
            on_step()

            last = step == num_steps
            preempted = preemption.reached()
            writing = checkpoints.is_writing()
            log_due = last or _is_due(step, config.log_every)
            evaluation_due = last or _is_due(step, config.eval_every)
            checkpoint_due |= _is_due(step, config.checkpoint_every)
            if preempted or log_due or evaluation_due or checkpoint_due:
                _refuse_non_finite(train_log.non_finite_steps(), this.workdir)
            if log_due:
                train_log.write(step)
            mean_iou = None
            if evaluation_due and not preempted:
                mean_iou = _evaluate(this, step, state, train_log)
                preempted = preemption.reached()
            if (
                last
                or preempted
                or _is_best(mean_iou, checkpoints)
                # Rather late than waiting for the one before to be written.
                or (checkpoint_due and not any_process(writing))
            ):
                # Before the next batch is taken: going on repeats and skips nothing.
                _save(this, step, state, mean_iou)
                checkpoint_due = False
            if preempted:
                _end(this, step)
    return state


def _owes_evaluation(this: _Run, step: int) -> bool:
    """Whether the run goes on from a step where it was ended while evaluating."""
    config = this.config.train
    due = step == config.num_steps or _is_due(step, config.eval_every)
    return step > 0 and due and this.checkpoints.score(step) is None


def _evaluate(
    this: _Run, step: int, state: TrainState, train_log: TrainLog
) -> float | None:
    """The mean IoU; None where the run was asked to end meanwhile."""
    try:
        with train_log.paused():
            record, pictures = this.evaluator.evaluate(
                step, *_whole(this.layout, state.network), this.workdir
            )
    except preemption.Preempted:
        return None
    train_log.evaluation(step, record, pictures)
    mean_iou = record["mean_iou"]
    last = step == this.config.train.num_steps
    log.say(class_table(record) if last else f"mean IoU {mean_iou:.4f}")
    return mean_iou


def _whole(layout: Layout, arrays: _Arrays) -> _Arrays:
    """With a full copy on each device; all processes must call this."""
    return placed(arrays, layout.state) if layout.divides_state else arrays


def _save(this: _Run, step: int, state: TrainState, mean_iou: float | None) -> None:
    this.checkpoints.save(
        step,
        state.items(),
        this.batches.get_state(),
        dataclasses.replace(this.metadata, mean_iou=mean_iou),
    )


def _end(this: _Run, step: int) -> NoReturn:
    """Once all is written."""
    this.checkpoints.wait()
    raise preemption.Preempted(f"stopped after step {step}, saved in {this.workdir}")


def _is_best(mean_iou: float | None, checkpoints: Checkpoints) -> bool:
    if mean_iou is None:
        return False
    best = checkpoints.best()
    return best is None or mean_iou > best.mean_iou


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _refuse_non_finite(steps: list[int], workdir: epath.Path) -> None:
    if steps:
        raise UserError(
            f"loss or gradient is no finite number at step {', '.join(map(str, steps))}: lower "
            "config.optimizer.learning_rate, or set config.optimizer.clip_norm; the "
            f"checkpoints in {workdir} are from before"
        )


def _starting_state(this: _Run, step: Step) -> TrainState:
    """The newest checkpoint of the workdir, else init_from, else random weights."""
    config, metadata = this.config, this.metadata
    restored = this.checkpoints.restore_latest(step.abstract_state.items(), metadata)
    if restored is not None:
        this.batches.set_state(dict(restored.position))
        _tell_going_on(restored.step, this.workdir, config)
        return TrainState.from_items(restored.items)

    def create() -> TrainState:
        # This generator's programs compile in a third of the time of JAX's own.
        rngs = nnx.Rngs(params=jax.random.key(config.seed, impl="rbg"))
        dtype = jnp.dtype(metadata.dtype)
        network = RefineNet(metadata.architecture, dtype=dtype, rngs=rngs)
        return create_state(
            network, step.optimizer, config.seed, averages=config.train.ema > 0
        )

    with compiling.told("the starting weights", f"of {config.model.variant}"):
        state = jax.jit(create, out_shardings=this.layout.state)()
    if config.init_from:
        params, batch_stats = weights_to_start_from(
            config, state.params, state.batch_stats, metadata, this.layout.state
        )
        state = state.starting_from(params, batch_stats)
    elif config.model.batch_norm != "trained":
        log.say(
            "frozen BatchNorm statistics with random weights train badly: set "
            "config.init_from, or config.model.batch_norm='trained'"
        )
    if this.layout.divides_state:
        return placed(state, this.layout.state_shardings(state))
    return state


def _tell_going_on(step: int, workdir: epath.Path, config: ConfigDict) -> None:
    log.say(f"going on after step {step}")
    path = workdir / "config.json"
    if not path.exists():
        return
    try:
        before = flatten(ConfigDict(json.loads(path.read_text())))
    except (AttributeError, OSError, TypeError, ValueError):
        log.say(f"{path} cannot be read: what changed since is not known")
        return
    after = flatten(ConfigDict(json.loads(config.to_json())))
    changes = [
        f"{name} {before.get(name)} → {value}"
        for name, value in after.items()
        if before.get(name) != value
    ]
    if changes:
        log.say(f"settings that changed since: {', '.join(changes)}")


def _compiled(step: Step, config: ConfigDict) -> jax.stages.Compiled:
    """The training step, compiled before the first batch is asked for."""
    crop = config.data.crop_size
    about = f"of {config.model.variant}, {config.train.batch_size} × {crop} × {crop}"
    with compiling.told("the training step", about):
        compiled = step.function.lower(
            step.abstract_state, step.abstract_batch
        ).compile()
    memory.refuse_large_program(compiled, "a training step", _SMALLER)
    return compiled


def _write_result(
    this: _Run, state: TrainState, parameters: int, damaged_files: int
) -> None:
    step = int(state.step)
    best, last = this.checkpoints.best(), this.checkpoints.score(step)
    result: dict[str, Any] = {
        "step": step,
        "parameters": parameters,
        "state_sha256": sha256(state),
        "damaged_files": damaged_files,  # left out of the data
        "best": None if best is None else vars(best),
        "last": None if last is None else vars(last),
        "provenance": provenance(),
    }
    if jax.process_index() == 0:
        files.write_json(this.workdir / "result.json", result)
    if best and last:
        log.say(
            f"mean IoU {last.mean_iou:.4f} after step {last.step}; best "
            f"{best.mean_iou:.4f} after step {best.step}; "
            f"pictures in {this.workdir / 'eval'}"
        )
