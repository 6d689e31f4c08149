"""Every loss beside a reference in NumPy or torch, and on any number of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from refinenet_jax.training import losses

WEIGHTS = (0.5, 3.0, 1.25, 0.0)
WEIGHTED = {"class_weights": WEIGHTS}
SMOOTH = {"label_smoothing": 0.1}
# Loss, its options, and the function of torch below.
CASES = {
    "weights": (losses.cross_entropy, WEIGHTED),
    "smoothing": (losses.cross_entropy, SMOOTH),
    "weights and smoothing": (losses.cross_entropy, WEIGHTED | SMOOTH),
    "focal": (losses.focal, {"gamma": 2.0}),
    "focal, weights": (losses.focal, {"gamma": 0.5} | WEIGHTED),
    "focal, 0": (losses.focal, {"gamma": 0.0}),
    "ohem": (losses.ohem, {"threshold": 0.2, "least": 0.3}),
    "ohem, threshold": (losses.ohem, {"threshold": 0.3, "least": 0.01}),
    "ohem, weights and smoothing": (losses.ohem, {"least": 0.4} | WEIGHTED | SMOOTH),
    "dice": (losses.dice, {}),
    "lovasz": (losses.lovasz_softmax, {}),
}


def example(height=37, width=21, size=4, classes=4, seed=0):
    """Logits of a quarter of the size, and labels that miss the last class but one."""
    rng = np.random.default_rng(seed)
    shape = (size, -(-height // 4), -(-width // 4), classes)
    logits = 2 * rng.normal(size=shape).astype(np.float32)
    label = rng.integers(0, classes, (size, height, width)).astype(np.uint8)
    label[label == classes - 2] = 0
    label[0, 3:9] = 255
    return logits, label


def reference(torch, loss, logits, label, options):
    """In torch, of [N,classes] and [N] that are valid."""
    cross_entropy = torch.nn.functional.cross_entropy
    weights = options.get("class_weights")
    weights = None if weights is None else torch.tensor(weights, dtype=logits.dtype)
    smoothing = options.get("label_smoothing", 0.0)
    chances = logits.softmax(1)
    chance = chances[torch.arange(len(label)), label]
    present = [c for c in range(logits.shape[1]) if (label == c).any()]
    if loss is losses.ohem:
        threshold, least = options.get("threshold", 0.7), options["least"]
        place = int(np.ceil(np.float32(least) * np.float32(len(label))))
        hard = chance <= max(torch.sort(chance).values[place - 1].item(), threshold)
        logits, label = logits[hard], label[hard]
    if loss in (losses.ohem, losses.cross_entropy):
        return cross_entropy(logits, label, weights, label_smoothing=smoothing)
    if loss is losses.focal:
        found = -((1 - chance) ** options["gamma"]) * chance.log()
        alpha = torch.ones_like(found) if weights is None else weights[label]
        return (alpha * found).sum() / alpha.sum()
    terms = []
    for number in present:
        p, y = chances[:, number], (label == number).to(chances.dtype)
        if loss is losses.dice:
            terms.append(1 - 2 * (p * y).sum() / (p.sum() + y.sum()))
        else:
            errors, order = torch.sort((y - p).abs(), descending=True)
            wrong = torch.cumsum(y[order], 0)
            left, union = y.sum() - wrong, y.sum() + torch.cumsum(1 - y[order], 0)
            jaccard = torch.cat([torch.zeros(1, dtype=p.dtype), 1 - left / union])
            terms.append((errors * jaccard.diff()).sum())
    return sum(terms) / len(terms)


@functools.cache
def on_devices(name, resolution, devices, rows=1):
    loss, options = CASES[name]
    mesh = Mesh(
        np.array(jax.devices()[:devices]).reshape(-1, rows),
        ("data", "rows"),
    )
    split = NamedSharding(mesh, PartitionSpec("data", "rows" if rows > 1 else None))
    return jax.jit(
        jax.value_and_grad(functools.partial(loss, resolution=resolution, **options)),
        in_shardings=(split, split),
    )


@pytest.mark.first_cases(8)
@pytest.mark.parametrize("resolution", ["label", "prediction"])
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_a_reference(name, resolution):
    torch = pytest.importorskip("torch")
    logits, label = example()
    scores = torch.from_numpy(logits.astype(np.float64)).requires_grad_()
    if resolution == "label":
        enlarged = torch.nn.functional.interpolate(
            scores.permute(0, 3, 1, 2),
            size=label.shape[1:],
            mode="bilinear",
            align_corners=False,
        ).permute(0, 2, 3, 1)
        truth = label
    else:
        enlarged = scores
        truth = np.asarray(losses.nearest(jnp.asarray(label), logits.shape[1:3]))
    truth = torch.from_numpy(truth.astype(np.int64))
    valid = truth != 255
    loss, options = CASES[name]
    expected = reference(torch, loss, enlarged[valid], truth[valid], options)
    expected.backward()
    value, gradient = on_devices(name, resolution, 1)(logits, label)
    assert float(value) == pytest.approx(expected.item(), rel=2e-6)
    wanted = scores.grad.numpy()
    largest = np.abs(wanted).max()
    np.testing.assert_allclose(gradient, wanted, rtol=0, atol=5e-6 * largest)


@pytest.mark.first_cases(4)
@pytest.mark.parametrize(("devices", "rows"), [(2, 1), (4, 1), (4, 2)])
@pytest.mark.parametrize("name", ["weights", "ohem", "dice", "lovasz"])
def test_any_number_of_devices_gives_the_loss_of_the_whole_batch(name, devices, rows):
    logits, label = example(height=48, width=20)
    expected = on_devices(name, "label", 1)(logits, label)
    found = on_devices(name, "label", devices, rows)(logits, label)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    largest = np.abs(expected[1]).max()
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-6 * largest)


@pytest.mark.first_cases(3)
@pytest.mark.parametrize("name", CASES)
def test_nothing_valid_gives_zero_and_no_gradient(name):
    logits, label = example()
    value, gradient = on_devices(name, "label", 1)(logits, np.full_like(label, 255))
    assert float(value) == 0
    assert not np.any(gradient)


def test_focal_by_hand():
    # Log-odds log(3): a chance of 3/4 and of 1/4 for the true class.
    logits = jnp.asarray([[[[0.0, np.log(3.0)], [0.0, np.log(3.0)]]]])
    label = jnp.asarray([[[1, 0]]], jnp.uint8)
    expected = (np.log(4 / 3) / 16 + np.log(4) * 9 / 16) / 2
    assert float(losses.focal(logits, label, "prediction")) == pytest.approx(expected)


def test_ohem_keeps_the_share_of_all_that_is_hardest_by_hand():
    # Chances of the true class: 1/2, 2/3, 3/4, 4/5, and one that does not count.
    odds = np.log([[[1.0, 2.0, 3.0, 4.0, 0.001]]])
    logits = jnp.stack([jnp.zeros((1, 1, 5)), jnp.asarray(odds)], -1)
    label = jnp.asarray([[[1, 1, 1, 1, 255]]], jnp.uint8)
    half = losses.ohem(logits, label, "prediction", threshold=0.1, least=0.5)
    assert float(half) == pytest.approx((np.log(2) + np.log(3 / 2)) / 2, rel=1e-6)
    below = losses.ohem(logits, label, "prediction", threshold=0.78, least=0.01)
    three = (np.log(2) + np.log(3 / 2) + np.log(4 / 3)) / 3
    assert float(below) == pytest.approx(three, rel=1e-6)


def test_dice_by_hand():
    # One half everywhere; two pixels of class 0, one of class 1, none of class 2.
    logits = jnp.asarray([[[[0.0, 0.0, -50.0]] * 3]])
    label = jnp.asarray([[[0, 0, 1]]], jnp.uint8)
    expected = ((1 - 2 * 1 / (1.5 + 2)) + (1 - 2 * 0.5 / (1.5 + 1))) / 2
    assert float(losses.dice(logits, label, "prediction")) == pytest.approx(expected)


@pytest.mark.slow
def test_lovasz_of_sure_predictions_is_what_the_iou_lacks():
    # On the corners of the cube the extension is the set function itself.
    rng = np.random.default_rng(0)
    predicted, label = rng.integers(0, 3, (2, 2, 5, 7))
    logits = jnp.asarray(200.0 * np.eye(3)[predicted], jnp.float32)
    ious = [
        ((predicted == c) & (label == c)).sum()
        / ((predicted == c) | (label == c)).sum()
        for c in range(3)
    ]
    found = losses.lovasz_softmax(logits, label.astype(np.uint8), "prediction")
    assert float(found) == pytest.approx(1 - np.mean(ious), rel=1e-6)


@pytest.mark.slow
def test_lovasz_is_exact_among_many_pixels():
    # The gains are about 1/N², far below what float32 tells apart from 1.
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 512, 512, 2)).astype(np.float32)
    label = (rng.random((1, 512, 512)) < 0.01).astype(np.uint8)
    chance = 1 / (1 + np.exp((logits[..., 0] - logits[..., 1]).astype(np.float64)))
    expected = []
    for p, y in ((1 - chance, label == 0), (chance, label == 1)):
        errors = np.where(y, 1 - p, p).ravel()
        order = np.argsort(-errors)
        y = y.ravel()[order].astype(np.float64)
        jaccard = 1 - (y.sum() - y.cumsum()) / (y.sum() + (1 - y).cumsum())
        expected.append((errors[order] * np.diff(jaccard, prepend=0)).sum())
    found = losses.lovasz_softmax(logits, label, "prediction")
    assert float(found) == pytest.approx(np.mean(expected), rel=2e-6)


def test_a_weighted_sum_adds_values_and_gradients():
    logits, label = example()
    entropy = functools.partial(losses.cross_entropy, resolution="label")
    overlap = functools.partial(losses.dice, resolution="label")
    both = losses.weighted_sum((2.0, entropy), (0.5, overlap))
    found = jax.value_and_grad(both)(logits, label)
    one, two = (jax.value_and_grad(f)(logits, label) for f in (entropy, overlap))
    for at in (0, 1):
        np.testing.assert_allclose(
            found[at], 2 * one[at] + two[at] / 2, rtol=1e-5, atol=1e-8
        )


def test_weights_of_pixels_add_up_to_what_the_mean_is_over():
    logits, label = example()
    expected = np.take([*WEIGHTS, 0], np.minimum(label, 4)).sum()
    found = losses.valid_pixels(logits, label, class_weights=WEIGHTS)
    assert float(found) == pytest.approx(expected)
    # An output beyond the classes, as void's, weighs nothing.
    wider = np.pad(logits, [(0, 0)] * 3 + [(0, 1)])
    assert losses.valid_pixels(wider, label, class_weights=WEIGHTS) == found


def temporaries(loss, **options):
    """Bytes that the compiled value and gradient need besides their arguments."""
    shapes = (4, 64, 64, 150), (4, 256, 256)
    arguments = (
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in zip(shapes, (jnp.float32, jnp.uint8), strict=True)
    )
    function = jax.value_and_grad(
        functools.partial(loss, resolution="label", **options)
    )
    return (
        jax.jit(function)
        .lower(*arguments)
        .compile()
        .memory_analysis()
        .temp_size_in_bytes
    )


@pytest.mark.first_cases(3)
@pytest.mark.parametrize("name", CASES)
def test_nothing_of_the_size_of_the_enlarged_scores_is_kept(name):
    loss, options = CASES[name]
    if "class_weights" in options:
        options = options | {"class_weights": np.ones(150)}
    whole = 4 * 256 * 256 * 150 * 4
    band = whole * 64 / 256
    # A band has its scores, their softmax and its gradient.
    assert temporaries(loss, **options) < 4.5 * band, (
        temporaries(loss, **options) / band
    )
