import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from refinenet_jax.models.leaves import named_leaves
from refinenet_jax.sharding import Layout
from refinenet_jax.training.losses import cross_entropy
from refinenet_jax.training.optimizer import build_optimizer
from refinenet_jax.training.state import TrainState, create_state, sha256
from refinenet_jax.training.steps import StepOptions, build_train_step
from tests.architectures import abstract_network, architecture
from tests.random_network import random_light_resnet18

NUM_CLASSES = 5
# Of ImageNet.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def batches(count, size=4, height=48, width=65):
    rng = np.random.default_rng(0)
    for _ in range(count):
        label = rng.integers(0, NUM_CLASSES, (size, height, width)).astype(np.uint8)
        label[0, :10] = 255
        yield {
            "image": rng.integers(0, 256, (size, height, width, 3)).astype(np.uint8),
            "label": label,
        }


def layout_over(count):
    return Layout.over(jax.devices()[:count])


def without_dropout(network):
    for module in (network.decoder.tap_dropout, network.decoder.classifier_dropout):
        module.dropout.rate = 0.0
    return network


def an_optimizer(rate=0.01, **options):
    return build_optimizer(
        "sgd", rate, weight_decay=5e-4, encoder_multiplier=0.1, **options
    )


def a_step(network, optimizer, layout, **options):
    return build_train_step(
        network,
        optimizer,
        optax.constant_schedule(0.01),
        functools.partial(cross_entropy, resolution="label"),
        layout,
        StepOptions(**options),
    )


def losses(network, optimizer, layout, count, *, frozen_statistics=False, **shape):
    """Trains `count` steps on `layout`; the losses and the last state."""
    step = a_step(network, optimizer, layout, frozen_statistics=frozen_statistics)
    state = create_state(network, optimizer, seed=0)
    return trained_by(step, state, layout, count, **shape)


def trained_by(step, state, layout, count, **shape):
    """The losses of `count` steps from a state, which is kept, and the last state."""
    state = jax.device_put(jax.tree.map(jnp.copy, state), layout.state)
    found = []
    for batch in batches(count, **shape):
        state, metrics = step(state, jax.device_put(batch, layout.batch))
        found.append(float(metrics["loss"]))
    return found, state


@pytest.fixture(scope="module")
def network():
    return random_light_resnet18(NUM_CLASSES, seed=0)


@pytest.mark.slow  # each number of devices compiles its own step
@pytest.mark.parametrize("count", [2, 4])
def test_several_devices_see_what_one_sees(network, count):
    # BatchNorm statistics over the global batch, dropout on.
    optimizer = an_optimizer()
    expected, one = losses(network, optimizer, layout_over(1), 4)
    found, several = losses(network, optimizer, layout_over(count), 4)
    assert found == pytest.approx(expected, rel=1e-6)  # measured: 1.5e-7
    for theirs, ours in zip(
        *(jax.tree.leaves(jax.device_get(s.batch_stats)) for s in (one, several)),
        strict=True,
    ):
        # Sums that are split in another way, after four steps; measured: at most a
        # fifth of this.
        np.testing.assert_allclose(ours, theirs, rtol=5e-6, atol=5e-7)


@pytest.mark.slow
@pytest.mark.parametrize("regime", ["frozen_statistics", "frozen"])
def test_hundred_steps_of_frozen_statistics_leave_every_bit(network, regime):
    optimizer = an_optimizer(1e-3, freezes_norms=regime == "frozen")
    before = create_state(network, optimizer, 0)
    kept = jax.tree.map(np.asarray, before.batch_stats)
    params = {k: np.array(v[...]) for k, v in named_leaves(before.params).items()}
    # The first convolution sees 2 × 16 × 17 pixels: small, so that it is quick.
    small = {"size": 2, "height": 32, "width": 33}
    _, after = losses(
        network, optimizer, layout_over(1), 100, frozen_statistics=True, **small
    )
    assert int(after.step) == 100
    same = jax.tree.map(lambda a, b: np.array_equal(a, b), kept, after.batch_stats)
    assert all(jax.tree.leaves(same))
    unchanged = {
        name
        for name, leaf in named_leaves(after.params).items()
        if np.array_equal(leaf[...], params[name])
    }
    norms = {name for name in params if ".norm." in name}
    assert norms
    assert unchanged == (norms if regime == "frozen" else set())


@pytest.mark.slow  # compiles a step of its own
def test_a_bfloat16_step_computes_in_bfloat16_and_keeps_float32():
    layout, shape = layout_over(1), (2, 32, 33)
    small = {"cascade": "single", "pooling_stages": 0}  # quick to compile
    network = random_light_resnet18(NUM_CLASSES, seed=0, **small)
    described = architecture("light_resnet18", NUM_CLASSES, **small)
    steps = {
        dtype: a_step(abstract_network(described, dtype), an_optimizer(), layout)
        for dtype in ("float32", "bfloat16")
    }
    state = create_state(network, an_optimizer(), 0)
    batch = {
        "image": np.zeros((*shape, 3), np.uint8),
        "label": np.zeros(shape, np.uint8),
    }
    assert "bf16" not in steps["float32"].lower(state, batch).as_text()
    text = steps["bfloat16"].lower(state, batch).as_text()
    convolutions = [line for line in text.splitlines() if "convolution(" in line]
    in_bfloat16 = [line for line in convolutions if "bf16" in line]
    assert len(in_bfloat16) / len(convolutions) > 0.9

    images = dict(zip(("size", "height", "width"), shape, strict=True))
    found = trained_by(steps["bfloat16"], state, layout, 2, **images)
    expected = trained_by(steps["float32"], state, layout, 2, **images)
    # Eight bits of mantissa through some twenty layers.
    assert found[0] == pytest.approx(expected[0], rel=0.02)
    assert found[0] != expected[0]
    leaves = jax.tree.leaves((found[1].params, found[1].opt_state))
    kinds = {leaf.dtype for leaf in leaves}
    assert kinds == {np.dtype("float32"), np.dtype("int32")}  # the latter counts steps


@pytest.mark.slow
def test_ten_sgd_steps_as_torch(network):
    torch = pytest.importorskip("torch")
    from tests import torch_reference

    reference = torch_reference.reference("light_resnet18", NUM_CLASSES)
    torch_reference.fill(reference, seed=0)
    reference.eval()  # frozen statistics, no dropout
    ours = without_dropout(nnx.clone(network))
    torch_reference.copy_to_network(reference.state_dict(), ours, "light_resnet18")
    rate = 5e-5  # larger ones let the losses of this random network leap

    backbone, decoder = [], []
    for name, parameter in reference.named_parameters():
        is_backbone = name.startswith(("conv1", "bn1", "layer"))
        (backbone if is_backbone else decoder).append(parameter)
    optimizer = torch.optim.SGD(
        [{"params": decoder, "lr": rate}, {"params": backbone, "lr": 0.1 * rate}],
        momentum=0.9,
        weight_decay=5e-4,
    )
    expected = []
    for batch in batches(10):
        image = torch.from_numpy(batch["image"]).float()
        image = (image - torch.tensor(MEAN)) / torch.tensor(STD)
        logits = reference(image.permute(0, 3, 1, 2))
        enlarged = torch.nn.functional.interpolate(
            logits, size=batch["label"].shape[1:], mode="bilinear", align_corners=False
        )
        label = torch.from_numpy(batch["label"]).long()
        loss = torch.nn.functional.cross_entropy(enlarged, label, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(float(loss.detach()))
    found, _ = losses(
        ours, an_optimizer(rate), layout_over(1), 10, frozen_statistics=True
    )
    # The losses move by far more than the tolerance, so that agreement means something.
    assert max(expected) - min(expected) > 0.5
    # Measured: 1.2e-7.
    assert found == pytest.approx(expected, rel=1e-6)


def test_fingerprint_follows_every_bit():
    def state(value):
        array = jnp.asarray([value], jnp.float32)
        return TrainState(jnp.zeros(()), {"w": array}, {}, (array,), jnp.zeros(2))

    assert sha256(state(1.0)) == sha256(state(1.0))
    assert sha256(state(1.0)) != sha256(state(np.nextafter(np.float32(1), 2)))
