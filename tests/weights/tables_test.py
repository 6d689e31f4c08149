import numpy as np
import pytest

from refinenet_jax.weights import tables
from refinenet_jax.weights.mapping import import_weights
from refinenet_jax.weights.tables import Rule
from tests.references import weight_key_lists, weight_keys
from tests.weights.networks import shapes_of

NAMINGS = [
    *(naming for namings in tables.BACKBONES.values() for naming in namings),
    *tables.DECODERS,
]
# The key lists of published checkpoints and the network that each is for.
LISTS = [
    ("resnet50", "resnet50"),
    ("resnet50", "light_resnet50"),
    ("resnet101", "resnet101"),
    ("resnet101", "light_resnet101_caffe"),
    ("resnet152", "light_resnet152"),
    ("torchvision_mobilenet_v2", "light_mobilenet_v2"),
    ("timm_mobilenetv2_100", "mobilenet_v2"),
    ("drsleep_rf101", "resnet101"),
    ("drsleep_rflw50", "light_resnet50"),
    ("drsleep_rflw101", "light_resnet101"),
    ("drsleep_rflw152", "light_resnet152"),
    ("drsleep_mbv2", "light_mobilenet_v2"),
]


def test_a_rule_translates_both_ways():
    rule = Rule("layer{stage+1}.{block}.conv", "stages.{stage}.{block}.conv")
    assert rule.our_leaf("layer3.22.conv.weight") == "stages.2.22.conv.kernel"
    assert rule.torch_key("stages.2.22.conv.kernel") == "layer3.22.conv.weight"
    assert rule.our_leaf("layer0.22.conv.weight") is None
    assert rule.our_leaf("layer1.22.conv.running_mean") is None
    assert rule.our_leaf("xlayer1.22.conv.weight") is None
    assert rule.torch_key("stages.2.22.conv.scale") is None


def test_more_is_a_number_above_zero():
    rule = Rule("tap{more+1}", "taps.{more}")
    assert rule.our_leaf("tap2.weight") == "taps.1.kernel"
    assert rule.our_leaf("tap1.weight") is None
    assert rule.torch_key("taps.0.kernel") is None


def test_numbers_may_change_their_order():
    rule = Rule("a{x}.b{y+2}", "b{y}.a{x}", is_norm=True)
    assert rule.our_leaf("a1.b5.running_var") == "b3.a1.var"
    assert rule.torch_key("b3.a1.var") == "a1.b5.running_var"
    assert rule.step_counter("a1.b5.num_batches_tracked")
    assert not rule.step_counter("a1.b1.num_batches_tracked")


@pytest.mark.parametrize("naming", NAMINGS, ids=lambda naming: naming.title)
def test_signatures_are_known_to_their_own_naming_alone(naming):
    others = [other for other in NAMINGS if other is not naming]
    assert any(rule.our_leaf(naming.signature) for rule in naming.rules)
    for other in others:
        assert not any(rule.our_leaf(naming.signature) for rule in other.rules)


@pytest.mark.parametrize(("name", "variant"), LISTS)
def test_every_published_key_has_one_place(name, variant):
    listed = weight_keys(name)
    # No memory: every tensor is one zero, seen everywhere.
    tensors = {
        key: np.broadcast_to(np.float32(0), shape) for key, shape in listed.items()
    }
    shapes = shapes_of(variant)
    found = import_weights(tensors, shapes, variant, with_classifier=True, origin=name)
    if "drsleep" in name:
        assert found.whole
        assert not found.left_out
        assert found.arrays.keys() == shapes.keys()
    else:
        assert not found.whole
        assert found.arrays.keys() == {
            leaf for leaf in shapes if leaf.startswith("backbones.")
        }
        # Only the classifier of ImageNet, and the convolution before it, stay behind.
        assert 0 < len(found.left_out) <= 8
    counters = {key for key in listed if key.endswith(tables.STEP_COUNTER)}
    # MobileNet-v2 has five leaves that no list but the port's fills.
    added = 5 if "mobilenet" in name else 0
    taken = listed.keys() - counters - set(found.left_out)
    assert len(taken) == len(found.arrays) - added


def test_every_list_is_tried():
    assert weight_key_lists() == {name for name, _ in LISTS} | {"matlab_decoder"}


def port_key(official: str) -> str:
    """The PyTorch ports' key for a parameter of the authors' MATLAB decoder."""
    name, _, leaf = official.rpartition("_")
    for block in "123":
        name = name.replace(f"_b{block}_conv", f"_b.0.{block}_conv")
    for stage in "1234":
        name = name.replace(f"_pool{stage}_outvar", f"_pool.0.{stage}_outvar")
    return f"{name}.{ {'filter': 'weight', 'bias': 'bias'}[leaf] }"


def test_our_decoder_is_the_authors_tensor_by_tensor():
    shapes = shapes_of("resnet101")
    rules = [rule.below("", "decoder.") for rule in tables.DECODER.rules]
    seen = set()
    for official, theirs in weight_keys("matlab_decoder").items():
        (leaf,) = filter(None, (rule.our_leaf(port_key(official)) for rule in rules))
        assert list(shapes[leaf]) == (theirs[1:] if theirs[0] == 1 else theirs), leaf
        seen.add(leaf)
    classifier = {"decoder.classifier.kernel", "decoder.classifier.bias"}
    assert seen == {leaf for leaf in shapes if leaf.startswith("decoder.")} - classifier
