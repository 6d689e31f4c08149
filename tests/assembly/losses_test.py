"""What the config asks for is what is minimised."""

import numpy as np
import pytest

from refinenet_jax import log
from refinenet_jax.assembly.data import open_data
from refinenet_jax.assembly.losses import build_loss, class_weights
from refinenet_jax.config import default
from refinenet_jax.data.class_counts import inverse_frequency, median_frequency
from refinenet_jax.errors import UserError
from refinenet_jax.training import losses
from tests.own_folder import CLASSES, write_folder

FUNCTIONS = {
    "cross_entropy": losses.cross_entropy,
    "focal": losses.focal,
    "ohem": losses.ohem,
    "dice": losses.dice,
    "lovasz": losses.lovasz_softmax,
}
WEIGHTS = (1.0, 2.0, 0.5)


def example():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 4, 5, 3)).astype(np.float32)
    return logits, rng.integers(0, 3, (2, 8, 10)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    config = default()
    config.model.num_classes = 0
    config.data.name = "folder"
    config.data.manual_dir = str(write_folder(tmp_path / "own"))
    config.data.dir = str(tmp_path / "prepared")
    return config


def test_the_default_is_the_cross_entropy():
    found = build_loss(default(), None)
    assert found.func is losses.cross_entropy
    expected = losses.cross_entropy(*example(), "label")
    assert float(found(*example())) == float(expected)


@pytest.mark.slow
def test_every_setting_arrives():
    config = default()
    config.loss.update(
        cross_entropy=0.5,
        focal=2.0,
        ohem=3.0,
        dice=4.0,
        lovasz=5.0,
        label_smoothing=0.2,
        focal_gamma=1.5,
        ohem_threshold=0.3,
        ohem_least=0.4,
        resolution="prediction",
    )
    options = {
        "cross_entropy": {"class_weights": WEIGHTS, "label_smoothing": 0.2},
        "focal": {"class_weights": WEIGHTS, "gamma": 1.5},
        "ohem": {
            "class_weights": WEIGHTS,
            "label_smoothing": 0.2,
            "threshold": 0.3,
            "least": 0.4,
        },
    }
    expected = sum(
        config.loss[name] * function(*example(), "prediction", **options.get(name, {}))
        for name, function in FUNCTIONS.items()
    )
    found = build_loss(config, WEIGHTS)(*example())
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_nothing_to_minimise_is_refused():
    config = default()
    config.loss.cross_entropy = 0.0
    with pytest.raises(UserError, match=r"config\.loss: all weights are 0.*lovasz"):
        build_loss(config, None)


@pytest.mark.parametrize(
    ("asked", "function"),
    [("inverse", inverse_frequency), ("median_frequency", median_frequency)],
)
def test_weights_come_from_the_counts_of_what_is_trained_on(folder, asked, function):
    folder.loss.balance = asked
    data = open_data(folder, "train")
    counts = data.sources["train"].class_pixels(log)
    np.testing.assert_allclose(
        class_weights(folder, data), function(counts), atol=5.1e-5
    )


def test_given_weights(folder):
    data = open_data(folder, "train")
    assert class_weights(folder, data) is None
    folder.loss.class_weights = (1, 0.5, 3, 2)
    assert class_weights(folder, data) == (1.0, 0.5, 3.0, 2.0)
    folder.loss.balance = "inverse"
    with pytest.raises(UserError, match=r"loss\.balance='inverse' and .* set one"):
        class_weights(folder, data)
    folder.loss.balance = "none"
    folder.loss.class_weights = (1.0, 2.0)
    names = ", ".join(CLASSES)
    with pytest.raises(UserError, match=f"has 2 numbers, but .* 4 classes.*{names}"):
        class_weights(folder, data)
    folder.loss.class_weights = (0, 0, 0, 0)
    with pytest.raises(UserError, match="are all 0"):
        class_weights(folder, data)
