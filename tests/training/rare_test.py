"""A class on one in a hundred pixels is found where the loss asks for it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from refinenet_jax.assembly.losses import build_loss
from refinenet_jax.config import default
from refinenet_jax.data.class_counts import inverse_frequency
from refinenet_jax.models import Architecture, RefineNet, add_backbone
from refinenet_jax.models.leaves import split_network
from refinenet_jax.sharding import one_device_layout
from refinenet_jax.training import build_train_step, create_state
from tests.restored import restored_tables
from tests.tiny import TINY

SIZE = 64
STEPS = 120


@pytest.fixture(scope="module")
def tiny():
    with restored_tables():
        add_backbone("tiny", TINY)
        description = Architecture("light_tiny", 2, cascade="single", pooling_stages=1)
        yield RefineNet(description, rngs=nnx.Rngs(0))


def scenes(count, rng):
    """Noise, in which a disc of 1% of the pixels is a little brighter."""
    rows, columns = np.indices((SIZE, SIZE))
    y, x = rng.uniform(6, SIZE - 6, (2, count, 1, 1))
    label = (rows - y) ** 2 + (columns - x) ** 2 < SIZE * SIZE * 0.01 / np.pi
    images = rng.normal(110, 25, (count, SIZE, SIZE, 3)) + 30 * label[..., None]
    return images.clip(0, 255).astype(np.uint8), label.astype(np.uint8)


def trained(network, balanced, **terms):
    """The share of the pixels that are called the object, and its IoU, on new scenes."""
    config = default()
    config.loss.update(terms)
    rng = np.random.default_rng(0)
    images, label = scenes(128, rng)
    assert label.mean() == pytest.approx(0.01, rel=0.05)
    counts = np.array([[(each == 0).sum(), each.sum(), 0] for each in label])
    rate = 1e-3
    optimizer = optax.adam(rate)
    step = build_train_step(
        network,
        optimizer,
        optax.constant_schedule(rate),
        build_loss(config, inverse_frequency(counts) if balanced else None),
        one_device_layout(),
    )
    state = jax.tree.map(jnp.copy, create_state(network, optimizer, seed=0))
    for _ in range(STEPS):
        chosen = rng.integers(0, len(images), 8)
        state, _ = step(state, {"image": images[chosen], "label": label[chosen]})
    images, label = scenes(64, rng)
    structure, _, _ = split_network(network)
    learnt = structure.merge(state.params, state.batch_stats)
    scores = jax.jit(lambda x: learnt(learnt.normalize(x)))(images)
    enlarged = jax.image.resize(scores, (*label.shape, 2), "bilinear")
    found = np.asarray(enlarged.argmax(-1))
    both = (found & label).sum()
    return found.mean(), both / max((found | label).sum(), 1)


@pytest.mark.every_network  # eight trainings
@pytest.mark.slow
@pytest.mark.parametrize(
    ("terms", "balanced", "least", "most"),
    [
        # As docs/rare_classes.md has them.
        ({"cross_entropy": 1.0}, False, 0.0, 0.0),
        ({"cross_entropy": 1.0}, True, 0.1, 0.3),
        ({"cross_entropy": 0.0, "focal": 1.0}, False, 0.0, 0.0),
        ({"cross_entropy": 0.0, "ohem": 1.0}, False, 0.0, 0.0),
        ({"cross_entropy": 0.0, "dice": 1.0}, False, 0.0, 0.1),
        ({"cross_entropy": 1.0, "lovasz": 1.0}, False, 0.0, 0.1),
        ({"cross_entropy": 0.0, "lovasz": 1.0}, False, 0.5, 1.0),
        ({"cross_entropy": 1.0, "lovasz": 1.0}, True, 0.3, 0.5),
    ],
)
def test_what_finds_an_object_on_one_pixel_in_a_hundred(
    tiny, terms, balanced, least, most
):
    share, iou = trained(tiny, balanced, **terms)
    print(f"{terms}, balanced {balanced}: {share:.1%} of the pixels, IoU {iou:.2f}")
    assert least <= iou <= most
