import numpy as np
import pytest

from refinenet_jax.models import VARIANTS
from refinenet_jax.weights import tables
from refinenet_jax.weights.mapping import import_weights
from refinenet_jax.weights.rules import STEP_COUNTER, Rule
from tests.references import weight_key_lists, weight_keys
from tests.weights.networks import shapes_of

# The key lists of published checkpoints and the network that each is for.
LISTS = [
    ("resnet50", "resnet50"),
    ("resnet50", "light_resnet50"),
    ("resnet101", "resnet101"),
    ("resnet101", "light_resnet101_caffe"),
    ("resnet152", "light_resnet152"),
    ("torchvision_mobilenet_v2", "light_mobilenet_v2"),
    ("timm_mobilenetv2_100", "mobilenet_v2"),
    ("resnext50_32x4d", "light_resnext50_32x4d"),
    ("timm_resnet50d", "light_resnet50d"),
    ("torchvision_convnext_tiny", "light_convnext_tiny"),
    ("timm_convnext_tiny", "light_convnext_tiny"),
    ("torchvision_mobilenet_v3_large", "light_mobilenet_v3_large"),
    ("timm_mobilenetv3_large_100", "light_mobilenet_v3_large"),
    ("torchvision_efficientnet_b0", "light_efficientnet_b0"),
    ("timm_efficientnet_b0", "light_efficientnet_b0"),
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
    rule = Rule("a{x}.b{y+2}", "b{y}.a{x}", "norm")
    assert rule.our_leaf("a1.b5.running_var") == "b3.a1.var"
    assert rule.torch_key("b3.a1.var") == "a1.b5.running_var"
    assert rule.step_counter("a1.b5.num_batches_tracked")
    assert not rule.step_counter("a1.b1.num_batches_tracked")


@pytest.mark.first_cases(5)
@pytest.mark.parametrize(
    ("family", "naming"),
    [(family, n) for family, namings in tables.BACKBONES.items() for n in namings],
    ids=lambda value: getattr(value, "title", value),
)
def test_a_checkpoint_is_known_by_its_own_naming_alone(family, naming):
    variant = next(v for v, (b, _) in VARIANTS.items() if b.family == family)
    leaves = [leaf.removeprefix("backbones.0.") for leaf in shapes_of(variant)]
    keys = {rule.torch_key(leaf) for rule in naming.rules for leaf in leaves} - {None}
    namings = {n for ns in tables.BACKBONES.values() for n in ns}
    assert [n for n in namings if n.knows(keys)] == [naming]
    assert naming.lacks not in keys


@pytest.mark.parametrize("naming", tables.DECODERS, ids=lambda naming: naming.title)
def test_no_backbone_has_a_key_of_a_decoder(naming):
    for namings in tables.BACKBONES.values():
        for other in namings:
            assert not any(rule.our_leaf(naming.signature) for rule in other.rules)


@pytest.mark.first_cases(8)
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
        assert 0 < len(found.left_out) <= 10
    counters = {key for key in listed if key.endswith(STEP_COUNTER)}
    # MobileNet-v2 has five leaves that no list but the port's fills.
    added = 5 if "mobilenet" in name and "v2" in name else 0
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
