import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch", reason="shapes are compared with torch's")

from refinenet_jax.errors import UserError
from refinenet_jax.models import (
    VARIANTS,
    FeatureMap,
    RefineNet,
    count_parameters,
    in_inference,
)
from refinenet_jax.models.layers import BatchNorm, Conv, ConvNorm
from refinenet_jax.models.leaves import named_leaves, replace_leaves
from refinenet_jax.models.resize import scaled_sizes
from refinenet_jax.weights.mapping import export_weights
from tests.architectures import abstract_network, architecture
from tests.references import weight_keys
from tests.torch_backbones import ResNet, TorchvisionMobileNetV2
from tests.torch_reference import reference

# With 21 classes. resnet101 is the number that the PyTorch port states; the other
# ResNets swap its backbone for torchvision's without the classifier.
NUM_PARAMETERS = {
    "resnet18": 76_554_325,
    "resnet34": 86_662_485,
    "resnet50": 99_060_309,
    "resnet101": 118_052_437,
    "resnet152": 133_696_085,
    "resnet50_caffe": 99_060_309,
    "resnet101_caffe": 118_052_437,
    "resnet152_caffe": 133_696_085,
    "mobilenet_v2": 83_615_061,
    "resnet50d": 99_079_541,
    "resnet101d": 118_071_669,
    "resnext50_32x4d": 98_532_181,
    "resnext101_32x8d": 162_294_613,
    "resnext101_64x4d": 156_958_549,
    "convnext_tiny": 94_892_149,
    "convnext_small": 116_526_709,
    "mobilenet_v3_large": 69_079_493,
    "efficientnet_b0": 85_637_265,
    "efficientnet_lite0": 85_000_725,
    "efficientnet_lite1": 85_765_397,
    "efficientnet_lite2": 86_676_309,
    "light_resnet18": 13_895_509,
    "light_resnet34": 24_003_669,
    "light_resnet50": 27_357_525,
    "light_resnet101": 46_349_653,
    "light_resnet152": 61_993_301,
    "light_resnet50_caffe": 27_357_525,
    "light_resnet101_caffe": 46_349_653,
    "light_resnet152_caffe": 61_993_301,
    "light_mobilenet_v2": 3_284_565,
    "light_resnet50d": 27_376_757,
    "light_resnet101d": 46_368_885,
    "light_resnext50_32x4d": 26_829_397,
    "light_resnext101_32x8d": 90_591_829,
    "light_resnext101_64x4d": 85_255_765,
    "light_convnext_tiny": 30_726_005,
    "light_convnext_small": 52_360_565,
    "light_mobilenet_v3_large": 4_216_517,
    "light_efficientnet_b0": 5_085_585,
    "light_efficientnet_lite0": 4_449_045,
    "light_efficientnet_lite1": 5_213_717,
    "light_efficientnet_lite2": 5_866_581,
}
# The same of resnet50 with other options.
NUM_PARAMETERS_OF_OPTIONS = [
    ({"cascade": "single"}, 62_488_149),
    ({"cascade": "2_cascaded"}, 68_976_981),
    ({"input_scales": (1.2, 0.6)}, 159_139_989),
    ({"void_output": True}, 99_062_614),
    ({"pooling_stages": 2}, 90_802_773),
    ({"pooling_stages": 0}, 82_545_237),
    ({"output_units": 1, "classifier_units": 2}, 84_902_485),
    ({"pooling": "improved", "fusion_resize": "bicubic"}, 99_060_309),
]
# Those that take a second or more to build twice run with the slow tests.
_LARGE = [
    name
    for name in NUM_PARAMETERS
    if any(depth in name for depth in ("101", "152", "small"))
]
NETWORKS = [
    *(
        pytest.param(
            variant, {}, count, marks=[pytest.mark.slow] if variant in _LARGE else []
        )
        for variant, count in NUM_PARAMETERS.items()
    ),
    *(("resnet50", changes, count) for changes, count in NUM_PARAMETERS_OF_OPTIONS),
]

Shapes = dict[str, tuple[int, ...]]


def reference_shapes(network: torch.nn.Module) -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


def listed_shapes(name: str) -> Shapes:
    return {key: tuple(shape) for key, shape in weight_keys(name).items()}


def test_every_variant_has_its_number():
    assert set(NUM_PARAMETERS) == set(VARIANTS)


@pytest.mark.first_cases(8)
@pytest.mark.parametrize(("variant", "changes", "count"), NETWORKS)
def test_names_shapes_and_number_of_parameters_are_those_of_the_reference(
    variant, changes, count
):
    theirs = reference(variant, **changes)
    assert sum(weight.numel() for weight in theirs.parameters()) == count
    ours = abstract_network(architecture(variant, **changes))
    assert count_parameters(ours) == count

    leaves = named_leaves(nnx.state(ours))
    # Bytes: only their shapes matter.
    arrays = {name: np.zeros(leaf.shape, np.int8) for name, leaf in leaves.items()}
    exported = export_weights(arrays, variant)
    shapes = {key: array.shape for key, array in exported.items()}
    assert shapes == reference_shapes(theirs)


# The names and shapes of the released PyTorch networks.
@pytest.mark.parametrize(
    ("name", "make_network"),
    [
        ("drsleep_rf101", lambda: reference("resnet101")),
        ("drsleep_rflw50", lambda: reference("light_resnet50")),
        ("drsleep_rflw101", lambda: reference("light_resnet101")),
        ("drsleep_rflw152", lambda: reference("light_resnet152")),
        ("drsleep_mbv2", lambda: reference("light_mobilenet_v2")),
        ("resnet50", lambda: ResNet(50, with_head=True)),
        ("resnet101", lambda: ResNet(101, with_head=True)),
        ("resnet152", lambda: ResNet(152, with_head=True)),
        ("torchvision_mobilenet_v2", TorchvisionMobileNetV2),
    ],
)
def test_reference_has_the_released_names_and_shapes(name, make_network):
    with torch.device("meta"):
        shapes = reference_shapes(make_network())
    assert shapes == listed_shapes(name)


def test_timm_has_the_shapes_of_torchvision_in_the_same_order():
    with torch.device("meta"):
        shapes = reference_shapes(TorchvisionMobileNetV2())
    listed = listed_shapes("timm_mobilenetv2_100")
    assert list(listed.values()) == list(shapes.values())


def test_network_has_nothing_but_parameters_and_statistics():
    state = nnx.state(abstract_network(architecture("light_resnet18")))
    kinds = {type(leaf) for _, leaf in nnx.to_flat_state(state)}
    assert kinds == {nnx.Param, nnx.BatchStat}


def test_number_of_classes_changes_the_classifier_only():
    few, many = (
        count_parameters(abstract_network(architecture("light_resnet18", classes)))
        for classes in (6, 151)
    )
    assert many - few == 145 * (256 * 9 + 1)


def test_unknown_variant_names_the_known():
    with pytest.raises(UserError) as error:
        architecture("resnet77")
    assert "'resnet77'" in str(error.value)
    for variant in VARIANTS:
        assert variant in str(error.value)


def shapes_of_scores(
    network: RefineNet, size: tuple[int, int]
) -> list[jax.ShapeDtypeStruct]:
    """Of the logits and of all outputs, for two pictures of that size."""
    graph, state = nnx.split(in_inference(network))

    def scores(state: nnx.State, image: jax.Array):
        network, features = nnx.merge(graph, state), FeatureMap(image)
        return network(image), network.forward(features, with_void=True).values

    image = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    return jax.eval_shape(scores, state, image)


@pytest.mark.first_cases(2)
@pytest.mark.parametrize(
    ("scales", "largest"),
    [((1.0,), 1.0), ((1.2,), 1.2), ((0.6,), 0.6), ((0.6, 1.2), 1.2)],
)
@pytest.mark.parametrize("size", [(97, 131), (33, 50)])
def test_logits_are_a_quarter_of_the_largest_scaled_picture(scales, largest, size):
    network = abstract_network(architecture("light_resnet18", input_scales=scales))
    logits, _ = shapes_of_scores(network, size)
    height, width = (-(round(largest * length) // -4) for length in size)
    assert logits.shape == (2, height, width, 21)
    assert logits.dtype == jnp.float32


@pytest.mark.first_cases(1)
@pytest.mark.parametrize(
    "variant",
    ["light_mobilenet_v2", "light_mobilenet_v3_large", "light_efficientnet_lite0"],
)
def test_mobile_logits_are_a_quarter_of_the_picture(variant):
    logits, _ = shapes_of_scores(abstract_network(architecture(variant)), (97, 131))
    assert logits.shape == (2, 25, 33, 21)


def test_void_is_an_output_and_no_logit():
    network = abstract_network(architecture("light_resnet18", void_output=True))
    logits, outputs = shapes_of_scores(network, (33, 50))
    assert logits.shape == (2, 9, 13, 21)
    assert outputs.shape == (2, 9, 13, 22)


def test_named_leaves_are_replaced_by_their_names():
    rngs = nnx.Rngs(0)
    conv = Conv(
        2, 3, 1, kernel_init=nnx.initializers.ones, dtype=jnp.float32, rngs=rngs
    )
    state = nnx.state(ConvNorm(conv, BatchNorm(3, rngs=rngs)))
    new = named_leaves(replace_leaves(state, {"norm.mean": jnp.arange(3.0)}))
    assert {name: leaf[...].flatten().tolist() for name, leaf in new.items()} == {
        "conv.kernel": [1] * 6,
        "norm.bias": [0] * 3,
        "norm.mean": [0, 1, 2],
        "norm.scale": [1] * 3,
        "norm.var": [1] * 3,
    }


def test_normalize_by_hand():
    described = architecture("resnet18", mean=(1.0, 50.0, 5.0), std=(0.5, 1.0, 100.0))
    image = jnp.array([0, 51, 255], jnp.uint8).reshape(1, 1, 1, 3)
    result = abstract_network(described).normalize(image)
    assert result.reshape(3).tolist() == [-2.0, 1.0, 2.5]
    assert result.dtype == jnp.float32


@pytest.mark.parametrize("scale", [0.35, 0.6, 0.7, 1.1, 1.2, 1.3, 1.75])
def test_sizes_on_the_host_and_traced_are_rounded_alike(scale):
    sizes = np.arange(1, 4000)
    on_host = scaled_sizes(sizes, scale)
    traced = jax.jit(lambda sizes: scaled_sizes(sizes, scale))(jnp.asarray(sizes))
    np.testing.assert_array_equal(on_host, traced)
    assert (np.abs(on_host - sizes * scale) < 0.5001).all()
