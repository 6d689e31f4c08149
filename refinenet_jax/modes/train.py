"""Mode train: from the data to result.json, evaluating and saving as it goes."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from refinenet_jax import files, log
from refinenet_jax.config import flatten
from refinenet_jax.data.datasets import Source
from refinenet_jax.data.pipeline import train_batches
from refinenet_jax.data.transforms import (
    ClampShortEdge,
    RandomCrop,
    RandomFlip,
    RandomScale,
)
from refinenet_jax.errors import UserError
from refinenet_jax.inference.report import class_table
from refinenet_jax.models.build import SegmentationNetwork, build, count_parameters
from refinenet_jax.modes.evaluate import Evaluator
from refinenet_jax.modes.setup import describe, find_dataset, open_data
from refinenet_jax.provenance import provenance
from refinenet_jax.segmenter import abstract_network
from refinenet_jax.sharding import (
    check_batch_size,
    global_mesh,
    replicated,
    split_batch,
    to_devices,
)
from refinenet_jax.training import optimizer as optimizers
from refinenet_jax.training.checkpoint import (
    Checkpoints,
    Metadata,
    check_same_network,
    open_checkpoints,
    with_sharding,
)
from refinenet_jax.training.state import TrainState, create_state, sha256
from refinenet_jax.training.steps import build_train_step


def run(config: ConfigDict, workdir: Path) -> None:
    """Trains until config.train.num_steps; goes on where the workdir stands.

    Raises:
        UserError: bad settings or data, another network in the workdir, or a loss that
            is no longer a number.
    """
    mesh = global_mesh()
    check_batch_size("train.batch_size", config.train.batch_size, mesh)
    dataset = find_dataset(config)
    metadata = describe(config, dataset)
    train_source = open_data(config, config.data.train_split)
    eval_source = open_data(config, config.data.eval_split)
    batches = iter(_batches(config, train_source))
    network = abstract_network(metadata)
    optimizer = optimizers.build_optimizer(config.optimizer, config.train.num_steps)

    workdir.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(workdir, keep_latest=config.train.keep_checkpoints)
    state = _starting_state(config, metadata, optimizer, mesh, checkpoints, batches)
    if jax.process_index() == 0:
        files.write_json(workdir / "config.json", config.to_dict())
    log.say(
        f"{metadata['variant']}, {count_parameters(network):,} parameters, on "
        f"{mesh.size} × {jax.devices()[0].device_kind}; {len(train_source)} images of "
        f"{dataset.name} {config.data.train_split}; files go to {workdir}"
    )
    evaluator = Evaluator(config, metadata, network, dataset, eval_source)
    train_step = _compiled_step(config, network, optimizer, state, mesh)
    state = _train(
        config,
        workdir,
        metadata,
        mesh,
        state,
        batches,
        train_step,
        evaluator,
        checkpoints,
    )
    _write_result(workdir, state, network, checkpoints)
    checkpoints.close()


def _train(
    config: ConfigDict,
    workdir: Path,
    metadata: Metadata,
    mesh: Mesh,
    state: TrainState,
    batches: grain.DatasetIterator,
    train_step: jax.stages.Compiled,
    evaluator: Evaluator,
    checkpoints: Checkpoints,
) -> TrainState:
    """The loop; returns the state after the last step."""
    first_step, num_steps = int(state.step), config.train.num_steps
    train_log = log.TrainLog(
        workdir,
        first_step=first_step,
        num_steps=num_steps,
        batch_size=config.train.batch_size,
    )
    with log.progress("training", num_steps, done=first_step) as on_step:
        for step in range(first_step + 1, num_steps + 1):
            with train_log.waiting_for_input():
                batch = next(batches)
            state, metrics = train_step(state, to_devices(batch, mesh))
            train_log.add(step, metrics)
            on_step()

            last = step == num_steps
            evaluation_due = last or _is_due(step, config.train.eval_every)
            checkpoint_due = last or _is_due(step, config.train.checkpoint_every)
            log_due = last or _is_due(step, config.train.log_every)
            if log_due or evaluation_due or checkpoint_due:
                _refuse_non_finite(train_log.non_finite_steps(), workdir)
            if log_due:
                train_log.write(step)
            mean_iou = None
            if evaluation_due:
                with train_log.paused():
                    record, pictures = evaluator.evaluate(
                        step, state.params, state.batch_stats, workdir
                    )
                mean_iou = record["mean_iou"]
                train_log.evaluation(step, record, pictures)
                log.say(class_table(record) if last else f"mean IoU {mean_iou:.4f}")
            if checkpoint_due or _is_best(mean_iou, checkpoints):
                # Before the next batch is taken: going on repeats and skips nothing.
                checkpoints.save(step, state, batches, metadata, mean_iou)
    train_log.close()
    batches.close()
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
            f"the loss is no finite number at step {', '.join(map(str, steps))}: lower "
            "config.optimizer.learning_rate, or set config.optimizer.clip_norm; the "
            f"checkpoints in {workdir} are from before"
        )


def _batches(config: ConfigDict, source: Source) -> grain.IterDataset:
    """This process's share of the batches, randomly resized, flipped and cropped."""
    data = config.data
    fill = tuple(round(value) for value in config.model.mean)
    return train_batches(
        source,
        [
            ClampShortEdge(*data.short_edge),
            RandomScale(*data.scale_range),
            RandomFlip(data.flip_probability),
            RandomCrop(data.crop_size, data.crop_size, fill),
        ],
        batch_size=config.train.batch_size // jax.process_count(),
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_workers=data.num_workers,
        num_threads=data.num_threads,
    )


def _starting_state(
    config: ConfigDict,
    metadata: Metadata,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    checkpoints: Checkpoints,
    batches: grain.DatasetIterator,
) -> TrainState:
    """The newest checkpoint of the workdir, else init_from, else random weights."""

    def create() -> TrainState:
        network = build(
            metadata["variant"],
            metadata["num_classes"],
            input_scale=metadata["input_scale"],
            dtype=jnp.dtype(metadata["dtype"]),
            # Compiles in a third of the time that JAX's own generator takes.
            rngs=nnx.Rngs(params=jax.random.key(config.seed, impl="rbg")),
        )
        return create_state(network, optimizer, config.seed)

    whole = replicated(mesh)
    abstract = with_sharding(jax.eval_shape(create), whole)
    state = checkpoints.restore_latest(abstract, batches, metadata)
    if state is not None:
        _tell_going_on(int(state.step), checkpoints, config)
        return state
    state = jax.jit(create, out_shardings=whole)()
    if config.init_from:
        return _with_network_of(Path(config.init_from), state, metadata, mesh)
    if config.model.batch_norm == "frozen":
        log.say(
            "frozen BatchNorm statistics with random weights train badly: set "
            "config.init_from, or config.model.batch_norm='trained'"
        )
    return state


def _tell_going_on(step: int, checkpoints: Checkpoints, config: ConfigDict) -> None:
    before = flatten(ConfigDict(checkpoints.read_metadata(step)["config"]))
    after = flatten(ConfigDict(config.to_dict()))
    changes = [
        f"{name} {before.get(name)} → {value}"
        for name, value in after.items()
        if before.get(name) != (list(value) if isinstance(value, tuple) else value)
    ]
    log.say(f"going on after step {step}")
    if changes:
        log.say(f"settings that changed since: {', '.join(changes)}")


def _with_network_of(
    workdir: Path, state: TrainState, metadata: Metadata, mesh: Mesh
) -> TrainState:
    """Parameters and BatchNorm statistics of another run; all else starts anew."""
    checkpoints = open_checkpoints(workdir)
    step = checkpoints.choose("best")
    check_same_network(workdir, checkpoints.read_metadata(step), metadata)
    params, batch_stats = checkpoints.read_network(
        step, state.params, state.batch_stats, replicated(mesh)
    )
    checkpoints.close()
    log.say(f"starting from the network of {workdir}, step {step}")
    return dataclasses.replace(state, params=params, batch_stats=batch_stats)


def _compiled_step(
    config: ConfigDict,
    network: SegmentationNetwork,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    mesh: Mesh,
) -> jax.stages.Compiled:
    """The training step, compiled before the first batch is asked for."""
    schedule = optimizers.schedule(config.optimizer, config.train.num_steps)
    train_step = build_train_step(network, optimizer, schedule, config, mesh)
    size, crop = config.train.batch_size, config.data.crop_size
    shapes = {"image": (size, crop, crop, 3), "label": (size, crop, crop)}
    batch = {
        name: jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=split_batch(mesh))
        for name, shape in shapes.items()
    }
    start = time.monotonic()
    compiled = train_step.lower(state, batch).compile()
    log.say(f"compiled the training step in {time.monotonic() - start:.0f} s")
    return compiled


def _write_result(
    workdir: Path, state: TrainState, network: nnx.Module, checkpoints: Checkpoints
) -> None:
    step = int(state.step)
    best, last = checkpoints.best(), checkpoints.score(step)
    result: dict[str, Any] = {
        "step": step,
        "parameters": count_parameters(network),
        "state_sha256": sha256(state),
        "best": None if best is None else vars(best),
        "last": None if last is None else vars(last),
        "provenance": provenance(),
    }
    if jax.process_index() == 0:
        files.write_json(workdir / "result.json", result)
    if best and last:
        log.say(
            f"mean IoU {last.mean_iou:.4f} after step {last.step}; best "
            f"{best.mean_iou:.4f} after step {best.step}; pictures in {workdir / 'eval'}"
        )
