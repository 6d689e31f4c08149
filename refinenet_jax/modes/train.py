"""Mode train: from the data to result.json, evaluating and saving as it goes."""

import contextlib
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from ml_collections import ConfigDict

from refinenet_jax import files, log
from refinenet_jax.checkpoints.metadata import Metadata
from refinenet_jax.config import flatten
from refinenet_jax.errors import UserError
from refinenet_jax.evaluation.report import class_table
from refinenet_jax.models import RefineNet, count_parameters
from refinenet_jax.modes.batches import build_batches
from refinenet_jax.modes.check_data import refuse_errors
from refinenet_jax.modes.evaluate import Evaluator
from refinenet_jax.modes.initial import initial_state
from refinenet_jax.modes.start import (
    describe,
    find_dataset,
    make_folder,
    open_data,
    request_of,
)
from refinenet_jax.provenance import provenance
from refinenet_jax.segmenter import network_of
from refinenet_jax.sharding import (
    Layout,
    check_batch_size,
    global_layout,
    to_devices,
)
from refinenet_jax.training import optimizer as optimizers
from refinenet_jax.training.checkpoint import Checkpoints, with_sharding
from refinenet_jax.training.state import TrainState, create_state, sha256
from refinenet_jax.training.steps import build_train_step
from refinenet_jax.training.train_log import TrainLog


@dataclasses.dataclass(frozen=True)
class _Run:
    """What the steps of a run have in common."""

    config: ConfigDict
    workdir: Path
    metadata: Metadata
    layout: Layout
    batches: grain.DatasetIterator
    checkpoints: Checkpoints
    evaluator: Evaluator


def run(config: ConfigDict, workdir: Path) -> None:
    """Trains until config.train.num_steps; goes on where the workdir stands.

    Raises:
        UserError: bad settings or data, another network in the workdir, or a loss that
            is no longer a number.
    """
    layout = global_layout()
    check_batch_size("train.batch_size", config.train.batch_size, layout)
    dataset = find_dataset(config)
    metadata = describe(config, dataset)
    refuse_errors(config)
    train_source, eval_source = open_data(
        request_of(config), config.data.train_split, config.data.eval_split
    )
    data = build_batches(config, train_source, dataset, metadata.architecture.mean)
    network = network_of(metadata)
    optimizer = optimizers.build_optimizer(
        config.optimizer,
        config.train.num_steps,
        freezes_norms=config.model.batch_norm == "frozen",
    )
    evaluator = Evaluator(config, network, dataset, eval_source)
    make_folder(workdir)
    with (
        contextlib.closing(iter(data)) as batches,
        # Whatever ends the run, what was being saved is written first.
        contextlib.closing(
            Checkpoints(workdir, keep_latest=config.train.keep_checkpoints)
        ) as checkpoints,
    ):
        this = _Run(config, workdir, metadata, layout, batches, checkpoints, evaluator)
        state = _starting_state(this, optimizer)
        if jax.process_index() == 0:
            files.write_json(workdir / "config.json", config.to_dict())
        log.say(
            f"{config.model.variant}, {count_parameters(network):,} parameters, on "
            f"{layout.num_devices} × {jax.devices()[0].device_kind}; {len(train_source)} images "
            f"of {dataset.name} {config.data.train_split}; files go to {workdir}"
        )
        train_step = _compiled_step(this, network, optimizer, state)
        state = _train(this, state, train_step)
        checkpoints.wait()
        _write_result(
            this, state, count_parameters(network), len(train_source.left_out)
        )


def _train(
    this: _Run, state: TrainState, train_step: jax.stages.Compiled
) -> TrainState:
    """The loop; returns the state after the last step."""
    config, checkpoints = this.config.train, this.checkpoints
    first_step, num_steps = int(state.step), config.num_steps
    with (
        contextlib.closing(
            TrainLog(
                this.workdir,
                first_step=first_step,
                num_steps=num_steps,
                batch_size=config.batch_size,
            )
        ) as train_log,
        log.progress("training", num_steps, done=first_step) as on_step,
    ):
        for step in range(first_step + 1, num_steps + 1):
            with train_log.waiting_for_input():
                batch = next(this.batches)
            state, metrics = train_step(state, to_devices(batch, this.layout))
            train_log.add(step, metrics)
            on_step()

            last = step == num_steps
            log_due = last or _is_due(step, config.log_every)
            evaluation_due = last or _is_due(step, config.eval_every)
            checkpoint_due = last or _is_due(step, config.checkpoint_every)
            if log_due or evaluation_due or checkpoint_due:
                _refuse_non_finite(train_log.non_finite_steps(), this.workdir)
            if log_due:
                train_log.write(step)
            mean_iou = None
            if evaluation_due:
                with train_log.paused():
                    record, pictures = this.evaluator.evaluate(
                        step, state.params, state.batch_stats, this.workdir
                    )
                mean_iou = record["mean_iou"]
                train_log.evaluation(step, record, pictures)
                log.say(class_table(record) if last else f"mean IoU {mean_iou:.4f}")
            if checkpoint_due or _is_best(mean_iou, checkpoints):
                # Before the next batch is taken: going on repeats and skips nothing.
                checkpoints.save(step, state, this.batches, this.metadata, mean_iou)
    return state


def _is_best(mean_iou: float | None, checkpoints: Checkpoints) -> bool:
    if mean_iou is None:
        return False
    best = checkpoints.best()
    return best is None or mean_iou > best.mean_iou


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _refuse_non_finite(steps: list[int], workdir: Path) -> None:
    if steps:
        raise UserError(
            f"loss or gradient is no finite number at step {', '.join(map(str, steps))}: lower "
            "config.optimizer.learning_rate, or set config.optimizer.clip_norm; the "
            f"checkpoints in {workdir} are from before"
        )


def _starting_state(this: _Run, optimizer: optax.GradientTransformation) -> TrainState:
    """The newest checkpoint of the workdir, else init_from, else random weights."""
    config = this.config

    def create() -> TrainState:
        # This generator's programs compile in a third of the time of JAX's own.
        rngs = nnx.Rngs(params=jax.random.key(config.seed, impl="rbg"))
        dtype = jnp.dtype(this.metadata.dtype)
        network = RefineNet(this.metadata.architecture, dtype=dtype, rngs=rngs)
        return create_state(network, optimizer, config.seed)

    whole = this.layout.state
    abstract = with_sharding(jax.eval_shape(create), whole)
    state = this.checkpoints.restore_latest(abstract, this.batches, this.metadata)
    if state is not None:
        _tell_going_on(int(state.step), this.workdir, config)
        return state
    state = jax.jit(create, out_shardings=whole)()
    if config.init_from:
        return initial_state(config, state, this.metadata, whole)
    if config.model.batch_norm != "trained":
        log.say(
            "frozen BatchNorm statistics with random weights train badly: set "
            "config.init_from, or config.model.batch_norm='trained'"
        )
    return state


def _tell_going_on(step: int, workdir: Path, config: ConfigDict) -> None:
    log.say(f"going on after step {step}")
    path = workdir / "config.json"
    if not path.exists():
        return
    before = flatten(ConfigDict(json.loads(path.read_text())))
    after = flatten(ConfigDict(json.loads(config.to_json())))
    changes = [
        f"{name} {before.get(name)} → {value}"
        for name, value in after.items()
        if before.get(name) != value
    ]
    if changes:
        log.say(f"settings that changed since: {', '.join(changes)}")


def _compiled_step(
    this: _Run,
    network: RefineNet,
    optimizer: optax.GradientTransformation,
    state: TrainState,
) -> jax.stages.Compiled:
    """The training step, compiled before the first batch is asked for."""
    config = this.config
    schedule = optimizers.schedule(config.optimizer, config.train.num_steps)
    train_step = build_train_step(network, optimizer, schedule, config, this.layout)
    size, crop = config.train.batch_size, config.data.crop_size
    shapes = {"image": (size, crop, crop, 3), "label": (size, crop, crop)}
    batch = {
        name: jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=this.layout.batch)
        for name, shape in shapes.items()
    }
    start = time.monotonic()
    compiled = train_step.lower(state, batch).compile()
    log.say(f"compiled the training step in {time.monotonic() - start:.0f} s")
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
