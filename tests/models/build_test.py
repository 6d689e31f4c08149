import functools
import json
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from refinenet_jax.models.build import VARIANTS, build, count_parameters, normalize
from tests.torch_reference import UNUSED_LEAF, copy_to_network, reference

# With 21 classes. resnet101 is the number that the PyTorch port states; resnet50 and
# resnet152 swap its backbone for torchvision's without the classifier.
NUM_PARAMETERS = {
    "resnet50": 99_060_309,
    "resnet101": 118_052_437,
    "resnet152": 133_696_085,
    "light_resnet18": 13_895_509,
    "light_resnet50": 27_357_525,
    "light_resnet101": 46_349_653,
    "light_resnet152": 61_993_301,
}
# The names and shapes of the released PyTorch networks.
KEY_LISTS = {
    "resnet101": "keys_drsleep_rf101.json",
    "light_resnet50": "keys_drsleep_rflw50.json",
    "light_resnet101": "keys_drsleep_rflw101.json",
    "light_resnet152": "keys_drsleep_rflw152.json",
}
# The backbones of the PyTorch networks are torchvision's.
TORCHVISION_LISTS = {
    "resnet50": "keys_tv_resnet50.json",
    "resnet101": "keys_tv_resnet101.json",
    "resnet152": "keys_tv_resnet152.json",
}

Shapes = dict[str, tuple[int, ...]]


@functools.cache
def abstract(variant: str, input_scale: float = 1.0) -> nnx.Module:
    """Shapes without values; shared by the tests, so none may change it."""
    return nnx.eval_shape(
        lambda: build(
            variant, 21, input_scale=input_scale, dtype="float32", rngs=nnx.Rngs(0)
        )
    )


def reference_shapes(variant: str) -> Shapes:
    state = reference(variant, 21).state_dict()
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def listed_shapes(shared_dir: Path, name: str) -> Shapes:
    text = (shared_dir / "reference" / "weight_keys" / name).read_text()
    return {key: tuple(shape) for key, shape in json.loads(text).items()}


def torch_layout(network: nnx.Module, kind: type[nnx.Variable]) -> Counter:
    """How often each shape occurs among the variables, kernels as torch lays them."""
    shapes = (leaf.shape for _, leaf in nnx.to_flat_state(nnx.state(network, kind)))
    return Counter((s[3], s[2], s[0], s[1]) if len(s) == 4 else s for s in shapes)


@pytest.mark.parametrize("variant", VARIANTS)
def test_number_of_parameters(variant):
    assert count_parameters(abstract(variant)) == NUM_PARAMETERS[variant]


def test_every_variant_has_its_number():
    assert set(NUM_PARAMETERS) == set(VARIANTS)


@pytest.mark.parametrize("variant", KEY_LISTS)
def test_reference_has_the_released_names_and_shapes(variant, shared_dir):
    assert reference_shapes(variant) == listed_shapes(shared_dir, KEY_LISTS[variant])


@pytest.mark.parametrize("backbone", TORCHVISION_LISTS)
def test_reference_backbone_has_torchvision_names_and_shapes(backbone, shared_dir):
    listed = listed_shapes(shared_dir, TORCHVISION_LISTS[backbone])
    without_classifier = {k: v for k, v in listed.items() if not k.startswith("fc.")}
    ours = reference_shapes(backbone)
    assert {k: ours[k] for k in without_classifier} == without_classifier


@pytest.mark.parametrize("variant", VARIANTS)
def test_shapes_are_those_of_the_reference(variant):
    parameters: Counter = Counter()
    statistics: Counter = Counter()
    for key, shape in reference_shapes(variant).items():
        if key.endswith(("running_mean", "running_var")):
            statistics[shape] += 1
        elif not key.endswith(UNUSED_LEAF):
            parameters[shape] += 1
    network = abstract(variant)
    assert torch_layout(network, nnx.Param) == parameters
    assert torch_layout(network, nnx.BatchStat) == statistics


def test_network_has_nothing_but_parameters_and_statistics():
    state = nnx.state(abstract("light_resnet18"))
    kinds = {type(leaf) for _, leaf in nnx.to_flat_state(state)}
    assert kinds == {nnx.Param, nnx.BatchStat}


def test_number_of_classes_changes_the_classifier_only():
    few, many = (
        nnx.eval_shape(
            lambda n=n: build(
                "light_resnet18", n, input_scale=1.0, dtype="float32", rngs=nnx.Rngs(0)
            )
        )
        for n in (6, 151)
    )
    assert count_parameters(many) - count_parameters(few) == 145 * (256 * 9 + 1)


def test_unknown_variant_names_the_known():
    with pytest.raises(ValueError) as error:
        build("resnet77", 21, input_scale=1.0, dtype="float32", rngs=nnx.Rngs(0))
    assert "'resnet77'" in str(error.value)
    for variant in VARIANTS:
        assert variant in str(error.value)


@pytest.mark.parametrize("scale", [1.0, 1.2, 0.6])
@pytest.mark.parametrize("size", [(97, 131), (64, 96), (33, 50)])
def test_logits_are_a_quarter_of_the_scaled_picture(scale, size):
    network = abstract("light_resnet18", input_scale=scale)
    network = nnx.view(network, deterministic=True, use_running_average=True)
    graph, state = nnx.split(network)
    image = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    logits = jax.eval_shape(lambda s, x: nnx.merge(graph, s)(x), state, image)
    height, width = (-(round(scale * length) // -4) for length in size)
    assert logits.shape == (2, height, width, 21)
    assert logits.dtype == jnp.float32


def test_normalize_by_hand():
    image = jnp.array([0, 51, 255], jnp.uint8).reshape(1, 1, 1, 3)
    result = normalize(image, (1.0, 50.0, 5.0), (0.5, 1.0, 100.0))
    assert result.reshape(3).tolist() == [-2.0, 1.0, 2.5]
    assert result.dtype == jnp.float32


def test_incomplete_weights_are_listed_together():
    state = reference("light_resnet18", 21).to_empty(device="cpu").state_dict()
    del state["clf_conv.bias"]
    state["fc.weight"] = state["bn1.bias"]
    state["bn1.weight"] = state["bn1.weight"][:7]
    with pytest.raises(ValueError) as error:
        copy_to_network(state, abstract("light_resnet18"))
    faults = str(error.value).splitlines()[1:]
    assert faults == [
        "bn1.weight: (7,), but backbone.stem.norm.scale is (64,)",
        "fc.weight: 0 rules match, not one",
        "decoder.classifier.bias: no key fills it",
    ]
