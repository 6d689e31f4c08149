"""What a person writes who knows JAX: no config, no flags, a loop of one's own."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from refinenet_jax import Segmenter
from refinenet_jax.checkpoints.metadata import Metadata
from refinenet_jax.checkpoints.store import Checkpoints
from refinenet_jax.models import (
    Architecture,
    RefineNet,
    add_backbone,
    in_inference,
    in_training,
)
from refinenet_jax.models.leaves import split_network
from refinenet_jax.training import losses
from tests.restored import restored_tables
from tests.tiny import TINY

COLOURS = np.array([(20, 40, 60), (200, 180, 90), (90, 220, 200)], np.uint8)


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    with restored_tables():
        add_backbone("tiny", TINY)
        yield


def pictures(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Coarse areas in the colours of their classes: uint8 [B,64,48,3], [B,64,48]."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, len(COLOURS), (count, 4, 3))
    labels = coarse.repeat(16, axis=1).repeat(16, axis=2).astype(np.uint8)
    return COLOURS[labels], labels


@nnx.jit
def train_step(
    network: RefineNet,
    optimizer: nnx.Optimizer[RefineNet],
    images: jax.Array,
    labels: jax.Array,
) -> jax.Array:
    """One step on a batch; returns the loss before it."""

    def loss_of(network: RefineNet) -> jax.Array:
        logits = network(network.normalize(images))
        return losses.cross_entropy(logits, labels, "label")

    loss: jax.Array
    loss, gradient = nnx.value_and_grad(loss_of)(network)
    optimizer.update(network, gradient)
    return loss


@nnx.jit
def classes(network: RefineNet, images: jax.Array) -> jax.Array:
    """uint8 [B,H,W,3] → class ids, integer [B,H/4,W/4]."""
    return network(network.normalize(images)).argmax(axis=-1)


def trained(network: RefineNet, num_steps: int, rate: float = 1e-3) -> list[float]:
    """The losses of a few steps on two pictures."""
    optimizer = nnx.Optimizer(network, optax.adamw(rate), wrt=nnx.Param)
    images, labels = (jnp.asarray(array) for array in pictures(2))
    return [
        float(train_step(network, optimizer, images, labels)) for _ in range(num_steps)
    ]


def falls(history: list[float]) -> bool:
    return bool(np.isfinite(history).all() and np.mean(history[-3:]) < 0.7 * history[0])


@pytest.mark.slow  # compiles a step of its own; docs/extending.md runs such a loop
def test_a_network_learns_in_a_plain_loop() -> None:
    with jax.default_prng_impl("rbg"):
        network = RefineNet(Architecture("light_resnet18", 3), rngs=nnx.Rngs(0))
    before = jax.tree.map(np.array, nnx.state(network, nnx.BatchStat))
    assert falls(trained(network, 10))
    # The statistics of its BatchNorms moved along.
    after = jax.tree.map(np.array, nnx.state(network, nnx.BatchStat))
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
    assert all(jax.tree.leaves(moved))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "rate"), [("resnet18", 1e-4), ("light_mobilenet_v2", 3e-4)]
)
def test_other_networks_learn_in_the_same_loop(variant: str, rate: float) -> None:
    with jax.default_prng_impl("rbg"):
        network = RefineNet(Architecture(variant, 3), rngs=nnx.Rngs(0))
    assert falls(trained(network, 10, rate))


def own_network(variant: str) -> RefineNet:
    return RefineNet(Architecture(variant, 3, pooling_stages=1), rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def own(tiny: None) -> RefineNet:
    """A network over one's own backbone, trained."""
    network = own_network("light_tiny")
    assert falls(trained(network, 60, rate=1e-2))
    return network


@pytest.mark.slow
def test_a_backbone_of_ones_own_has_neither_statistics_nor_dropout(
    own: RefineNet,
) -> None:
    assert not jax.tree.leaves(nnx.state(own, nnx.BatchStat))
    assert not jax.tree.leaves(nnx.state(own, nnx.RngState))
    images, _ = pictures(2)
    logits = own(own.normalize(jnp.asarray(images)))
    for view in (in_inference(own), in_training(own, frozen_statistics=True)):
        np.testing.assert_array_equal(view(view.normalize(images)), logits)


@pytest.mark.slow
def test_ones_own_network_becomes_a_checkpoint_and_a_segmenter(
    own: RefineNet, tmp_path: Path
) -> None:
    metadata = Metadata(
        own.architecture,
        ("a", "b", "c"),
        tuple((r, g, b) for r, g, b in COLOURS.tolist()),
    )
    with contextlib.closing(Checkpoints(tmp_path, keep_latest=1)) as checkpoints:
        _, params, batch_stats = split_network(own)
        checkpoints.save_network(params, batch_stats, metadata)
    segmenter = Segmenter.from_checkpoint(tmp_path)
    assert segmenter.class_names == ("a", "b", "c")
    images, labels = pictures(2)
    predicted = segmenter.predict(images[1])
    assert (predicted == labels[1]).mean() > 0.8
    coarse = np.asarray(classes(in_inference(own), jnp.asarray(images)))[1]
    assert (predicted[2::4, 2::4] == coarse).mean() > 0.9


@pytest.mark.slow
def test_the_network_draws_its_own_dropout_in_training_alone(tiny: None) -> None:
    with_dropout = dataclasses.replace(TINY.light_weight, tap_dropout=0.5)
    add_backbone("dropping", dataclasses.replace(TINY, light_weight=with_dropout))
    network = own_network("light_dropping")
    images = jnp.asarray(pictures(2)[0])

    @nnx.jit
    def logits(network: RefineNet) -> jax.Array:
        return network(network.normalize(images))

    assert not np.array_equal(logits(network), logits(network))
    view = in_inference(network)
    np.testing.assert_array_equal(logits(view), logits(view))
