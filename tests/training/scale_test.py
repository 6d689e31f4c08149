"""What makes a step fit: it computes what the plain step does."""

import contextlib
import dataclasses
import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from refinenet_jax import main, sharding
from refinenet_jax.checkpoints.metadata import Metadata
from refinenet_jax.checkpoints.store import (
    Checkpoints,
    open_checkpoints,
    with_shardings,
)
from refinenet_jax.errors import UserError
from refinenet_jax.models import Architecture, RefineNet, add_backbone
from refinenet_jax.sharding import Layout
from refinenet_jax.training import losses
from refinenet_jax.training.state import TrainState, create_state, sha256
from refinenet_jax.training.steps import StepOptions, build_train_step
from tests.random_network import random_light_resnet18
from tests.restored import restored_tables
from tests.tiny import TINY

NUM_CLASSES = 3


def batches(count, size=8, height=32, width=32):
    """Batches whose examples have very different numbers of pixels that count."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        label = rng.integers(0, NUM_CLASSES, (size, height, width)).astype(np.uint8)
        for number, rows in enumerate(label):
            rows[: number * height // size] = 255
        image = rng.integers(0, 256, (size, height, width, 3)).astype(np.uint8)
        yield {"image": image, "label": label}


@pytest.fixture(scope="module")
def tiny():
    """A network without BatchNorm and dropout."""
    with restored_tables():
        add_backbone("tiny", TINY)
        description = Architecture(
            "light_tiny", NUM_CLASSES, cascade="single", pooling_stages=1
        )
        yield RefineNet(description, rngs=nnx.Rngs(0))


OPTIMIZER = optax.sgd(0.1, momentum=0.9)


@functools.cache
def a_step(network, devices=1, resolution="label", options=StepOptions(), **layout):  # noqa: B008
    """A step and its layout, compiled once."""
    layout = Layout.over(jax.devices()[:devices], **layout)
    step = build_train_step(
        network,
        OPTIMIZER,
        optax.constant_schedule(0.1),
        functools.partial(losses.cross_entropy, resolution=resolution),
        layout,
        options,
    )
    return step, layout


def trained(
    network, count, devices=1, *, resolution="label", layout=(), size=32, **options
):
    """The losses of so many steps of a network, which keeps its weights, and the state."""
    options = StepOptions(**options)
    step, layout = a_step(network, devices, resolution, options, **dict(layout))
    state = create_state(network, OPTIMIZER, seed=0, averages=options.ema_decay > 0)
    shardings = layout.state_shardings(state)
    state = jax.device_put(jax.tree.map(jnp.copy, state), shardings)
    found = []
    for batch in batches(count, height=size, width=size):
        state, metrics = step(state, jax.device_put(batch, layout.batch))
        found.append(float(metrics["loss"]))
    return found, state


def assert_close(found, expected, tolerance):
    """The largest difference of a leaf, as a share of the largest of its values."""
    for ours, theirs in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        theirs = np.asarray(theirs)
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale)


@pytest.mark.slow
def test_parts_are_weighted_as_their_pixels_are(tiny):
    weights = (0.2, 1.0, 7.0)
    loss = functools.partial(
        losses.cross_entropy, resolution="label", class_weights=weights
    )
    state = create_state(tiny, OPTIMIZER, seed=0)
    found = []
    for options in (
        StepOptions(),
        StepOptions(
            accumulate=4,
            weight=functools.partial(losses.valid_pixels, class_weights=weights),
        ),
    ):
        step = build_train_step(
            tiny,
            OPTIMIZER,
            optax.constant_schedule(0.1),
            loss,
            Layout.over(jax.devices()[:1]),
            options,
        )
        after, metrics = step(jax.tree.map(jnp.copy, state), next(batches(1)))
        found.append((float(metrics["loss"]), after.params))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-6)
    assert_close(found[1][1], found[0][1], 5e-6)


AT_PREDICTION = functools.partial(losses.valid_pixels, resolution="prediction")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "devices", "resolution", "weight"),
    [
        (8, 1, "label", losses.valid_pixels),
        pytest.param(2, 4, "prediction", AT_PREDICTION, marks=pytest.mark.slow),
    ],
)
def test_parts_have_the_gradient_of_the_whole_batch(
    tiny, parts, devices, resolution, weight
):
    expected = trained(tiny, 3, resolution=resolution)
    found = trained(
        tiny, 3, devices, resolution=resolution, accumulate=parts, weight=weight
    )
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    # Measured: 1.4e-6.
    assert_close(found[1].params, expected[1].params, 5e-6)


@pytest.mark.slow
def test_a_plain_mean_over_parts_would_be_another_loss(tiny):
    [expected], _ = trained(tiny, 1)
    [found], _ = trained(tiny, 1, accumulate=8, weight=lambda *_: jnp.ones(()))
    assert found != pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_a_batch_without_labels_moves_nothing(tiny):
    step, _ = a_step(tiny, options=StepOptions(accumulate=8))
    before = create_state(tiny, OPTIMIZER, seed=0)
    batch = next(batches(1))
    batch["label"] = np.full_like(batch["label"], 255)
    after, metrics = step(jax.tree.map(jnp.copy, before), batch)
    assert float(metrics["loss"]) == 0
    jax.tree.map(np.testing.assert_array_equal, before.params, after.params)


@pytest.mark.slow
def test_an_average_leaves_the_training_as_it_is(tiny):
    expected, plain = trained(tiny, 3)
    found, state = trained(tiny, 3, ema_decay=0.2)
    assert found == expected
    without = dataclasses.replace(state, average=None)
    assert sha256(without) == sha256(plain) != sha256(state)


@pytest.mark.slow
def test_an_average_is_that_of_the_steps(tiny):
    # 1/10 before the first step, then 2/11, and no more than 0.2 from then on.
    states = [trained(tiny, n)[1] for n in range(4)]
    average = jax.tree.map(np.asarray, states[0].params)
    for state, decay in zip(states[1:], (1 / 10, 2 / 11, 0.2), strict=True):
        average = jax.tree.map(
            lambda old, new, d=decay: d * old + (1 - d) * np.asarray(new),
            average,
            state.params,
        )
    _, found = trained(tiny, 3, ema_decay=0.2)
    assert_close(found.average.params, average, 1e-6)
    assert found.network == (found.average.params, found.average.batch_stats)


@pytest.mark.slow
def test_an_average_is_what_a_checkpoint_holds(tiny, tmp_path, monkeypatch):
    _, state = trained(tiny, 2, ema_decay=0.9)
    metadata = Metadata(
        tiny.architecture, ("a", "b", "c"), ((0, 0, 0),) * 3, averaged=True
    )
    with contextlib.closing(Checkpoints(tmp_path, keep_latest=1)) as checkpoints:
        checkpoints.save(2, state.items(), {"next_example": 16}, metadata)
        checkpoints.wait()
        restored = checkpoints.restore_latest(state.items(), metadata)
        with pytest.raises(UserError, match="with an average .*config.train.ema"):
            checkpoints.restore_latest(
                state.items(), dataclasses.replace(metadata, averaged=False)
            )
    assert sha256(TrainState.from_items(restored.items)) == sha256(state)
    whole = Layout.over(jax.devices()[:1]).state
    with contextlib.closing(open_checkpoints(tmp_path)) as checkpoints:
        _, params, _ = checkpoints.load_network("latest", whole)
    jax.tree.map(np.testing.assert_array_equal, params, state.average.params)


def test_other_weights_to_start_from_begin_the_average_too(tiny):
    state = create_state(tiny, OPTIMIZER, seed=0, averages=True)
    ones = jax.tree.map(jnp.ones_like, state.params)
    started = state.starting_from(ones, state.batch_stats)
    jax.tree.map(np.testing.assert_array_equal, started.average.params, ones)
    plain = create_state(tiny, OPTIMIZER, seed=0)
    assert plain.starting_from(ones, state.batch_stats).average is None


DIVIDED = {"divides_state": True}


@pytest.fixture
def divides_all(monkeypatch):
    """Arrays of a small network, too."""
    monkeypatch.setattr(sharding, "_FEWEST", 1)


@pytest.mark.slow
def test_a_divided_state_is_that_of_the_plain_run(tiny, divides_all, tmp_path):
    expected = trained(tiny, 3, ema_decay=0.5)
    found = trained(tiny, 3, 4, layout=DIVIDED, ema_decay=0.5)
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    # Measured: 1.1e-6.
    assert_close(found[1].params, expected[1].params, 5e-6)
    assert_close(found[1].average.params, expected[1].average.params, 5e-6)
    kernel = found[1].params["decoder"]["blocks"][0]["reductions"][0]["kernel"][...]
    assert {s.data.size for s in kernel.addressable_shards} == {kernel.size // 4}

    # It is restored whole, or divided among another number of devices.
    state = found[1]
    metadata = Metadata(tiny.architecture, ("a", "b", "c"), ((0, 0, 0),) * 3)
    with contextlib.closing(Checkpoints(tmp_path, keep_latest=1)) as checkpoints:
        checkpoints.save(3, state.items(), {"next_example": 24}, metadata)
        checkpoints.wait()
        for layout in (
            Layout.over(jax.devices()[:2], divides_state=True),
            Layout.over(jax.devices()[:3]),
        ):
            wanted = with_shardings(state, layout.state_shardings(state))
            restored = checkpoints.restore_latest(wanted.items(), metadata)
            there = TrainState.from_items(restored.items)
            assert sha256(there) == sha256(state)
            kinds = {leaf.sharding.mesh.size for leaf in jax.tree.leaves(there)}
            assert kinds == {layout.num_devices}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "options"), [(4, {}), (2, {"accumulate": 2}), (2, {"ema_decay": 0.5})]
)
def test_split_pictures_are_as_whole_ones(tiny, rows, options, divides_all):
    expected = trained(tiny, 2, size=64, **options)
    layout = {"row_shards": rows, "divides_state": "ema_decay" in options}
    found = trained(tiny, 2, 4, size=64, layout=layout, **options)
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    assert_close(found[1].params, expected[1].params, 5e-6)


@pytest.mark.slow
def test_split_pictures_are_never_brought_together(tiny, monkeypatch):
    # As on accelerators: on CPUs some programs are others, which rows do not suit.
    monkeypatch.setattr(
        jax.lax, "platform_dependent", lambda *given, default, **_: default(*given)
    )
    step, _ = a_step(tiny, 2, row_shards=2)
    batch = next(batches(1, size=4, height=128, width=128))
    state = create_state(tiny, OPTIMIZER, seed=0)
    text = step.lower(state, batch).compile().as_text()
    assert "collective-permute(" in text  # rows beyond a border
    found = re.findall(r"f32\[4,(\d+),(\d+),(\d+)\]\{[\d,]*\} all-gather", text)
    # The scores are, and what is on its way to be enlarged; nothing at 1/4.
    assert all(
        min(int(rows), int(columns)) < 32 or int(channels) == NUM_CLASSES
        for rows, columns, channels in found
    ), found


@pytest.mark.slow  # each compiles a step
@pytest.mark.parametrize("remat", ["blocks", "all"])
def test_what_is_computed_again_is_the_same(remat):
    # Dropout on, statistics of the batch.
    network = random_light_resnet18(NUM_CLASSES, 0, cascade="2_cascaded")
    expected = trained(network, 2)
    found = trained(network, 2, remat=remat)
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    assert_close(found[1].params, expected[1].params, 1e-5)
    assert_close(found[1].batch_stats, expected[1].batch_stats, 1e-5)


@pytest.mark.slow
def test_each_part_has_the_statistics_of_itself():
    network = random_light_resnet18(NUM_CLASSES, 0, cascade="single", pooling_stages=0)
    before = create_state(network, OPTIMIZER, 0).batch_stats
    kept = jax.tree.map(np.asarray, before)
    _, frozen = trained(network, 1, accumulate=4, frozen_statistics=True)
    jax.tree.map(np.testing.assert_array_equal, frozen.batch_stats, kept)

    # One after the other, by weights that stay as they are within the step.
    _, found = trained(network, 1, accumulate=4)
    [batch] = batches(1)
    step, _ = a_step(network)
    expected = create_state(network, OPTIMIZER, seed=0)
    for part in range(4):
        rows = {name: array[part::4] for name, array in batch.items()}
        fresh = create_state(network, OPTIMIZER, seed=0)
        stats = expected.batch_stats
        fresh = dataclasses.replace(fresh, batch_stats=stats)
        expected, _ = step(jax.tree.map(jnp.copy, fresh), rows)
    stem, theirs = (
        state.batch_stats["backbones"][0]["stem"] for state in (found, expected)
    )
    assert_close(stem, theirs, 1e-5)


CONFIG = """
from refinenet_jax.config import default
from refinenet_jax.models import VARIANTS, add_backbone
from tests.tiny import TINY


def get_config(variant=None):
    if "tiny" not in VARIANTS:
        add_backbone("tiny", TINY)
    config = default()
    config.model.variant = "light_tiny"
    config.train.batch_size = 8
    config.data.crop_size = 32
    return config
"""


@pytest.mark.slow  # runs the program four times
def test_a_run_that_goes_on_in_another_layout(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sharding, "_FEWEST", 1)
    (tmp_path / "tiny_config.py").write_text(CONFIG)

    def run(name, steps, *options):
        with restored_tables():
            main.main(
                [
                    "refinenet",
                    f"--config={tmp_path / 'tiny_config.py'}",
                    f"--workdir={tmp_path / name}",
                    f"--config.train.num_steps={steps}",
                    *options,
                ]
            )
        return json.loads((tmp_path / name / "eval.json").read_text())

    plain = run("plain", 4, "--config.train.ema=0.5")
    average = "--config.train.ema=0.5"
    rows = ("--config.train.row_shards=2", "--config.eval.row_shards=4")
    run("other", 2, average, "--config.train.shard_state=True")
    found = run("other", 4, average, "--config.train.accumulate=2", *rows)
    assert "going on after step 2" in capsys.readouterr().out
    assert found["mean_iou"] == pytest.approx(plain["mean_iou"], rel=1e-3)
    with pytest.raises(UserError, match="with an average"):
        run("plain", 6)
