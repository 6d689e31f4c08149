import numpy as np
import pytest

from refinenet_jax.errors import UserError
from refinenet_jax.weights.mapping import export_weights, import_weights
from refinenet_jax.weights.rules import STEP_COUNTER
from tests.weights.networks import checkpoint_of, random_arrays, shapes_of


def imported(tensors, variant, *, with_classifier=True, **changes):
    return import_weights(
        tensors,
        shapes_of(variant, **changes),
        variant,
        with_classifier=with_classifier,
        origin="file.pth",
    )


def refused(tensors, variant, **options):
    with pytest.raises(UserError) as error:
        imported(tensors, variant, **options)
    message = str(error.value)
    assert message.startswith("file.pth")
    assert "\n" not in message
    return message


@pytest.mark.first_cases(5)
@pytest.mark.parametrize(
    ("variant", "changes"),
    [
        ("light_resnet18", {}),
        ("light_resnet50_caffe", {}),
        ("light_mobilenet_v2", {}),
        ("light_efficientnet_lite0", {}),
        ("light_efficientnet_lite2", {}),
        ("light_resnet50d", {}),
        ("light_resnext50_32x4d", {}),
        ("light_convnext_tiny", {}),
        ("light_efficientnet_b0", {}),
        ("light_mobilenet_v3_large", {}),
        pytest.param(
            "light_efficientnet_lite0", {"cascade": "single"}, marks=pytest.mark.slow
        ),
        pytest.param(
            "light_mobilenet_v2",
            {"cascade": "2_cascaded", "pooling_stages": 0},
            marks=pytest.mark.slow,
        ),
        ("light_resnet18", {"cascade": "2_cascaded", "void_output": True}),
        pytest.param(
            "light_resnet18",
            {"cascade": "single", "input_scales": (1.2, 0.6)},
            marks=pytest.mark.slow,
        ),
        ("mobilenet_v2", {"cascade": "4_cascaded"}),
        ("resnet18", {"classifier_units": 2, "output_units": 1}),
        pytest.param(
            "resnet18",
            {"input_scales": (1.2, 0.6), "cascade": "2_cascaded"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_export_and_import_give_every_bit_back(variant, changes):
    arrays = random_arrays(shapes_of(variant, **changes))
    tensors = export_weights(arrays, variant)
    found = imported(tensors, variant, **changes)
    assert found.whole
    assert found.left_out == ()
    assert found.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
    # One key for each leaf, and the counter of each BatchNorm.
    counters = [key for key in tensors if key.endswith(STEP_COUNTER)]
    assert len(tensors) - len(counters) == len(arrays)
    assert len(counters) == sum(name.endswith(".var") for name in arrays)


def test_a_kernel_by_hand():
    arrays = random_arrays(shapes_of("light_resnet18"))
    kernel = arrays["backbones.0.stem.conv.kernel"]
    exported = export_weights(arrays, "light_resnet18")["conv1.weight"]
    assert exported.shape == (64, 3, 7, 7)
    assert exported[5, 2, 1, 6] == kernel[1, 6, 2, 5]


def without_decoder(tensors):
    return {
        key: tensor
        for key, tensor in tensors.items()
        if key.startswith(("conv1", "bn1", "layer"))
    }


def test_an_imagenet_checkpoint_fills_every_backbone_and_no_more():
    tensors = without_decoder(checkpoint_of("light_resnet18"))
    tensors |= {"fc.weight": np.zeros((1000, 512)), "fc.bias": np.zeros(1000)}
    found = imported(tensors, "light_resnet18", input_scales=(1.2, 0.6))
    assert not found.whole
    assert found.left_out == ("fc.weight", "fc.bias")
    shapes = shapes_of("light_resnet18", input_scales=(1.2, 0.6))
    assert found.arrays.keys() == {n for n in shapes if n.startswith("backbones.")}
    for index in (0, 1):
        np.testing.assert_array_equal(
            found.arrays[f"backbones.{index}.stem.norm.var"], tensors["bn1.running_var"]
        )


def test_another_number_of_classes_is_refused_until_one_says_so():
    tensors = checkpoint_of("light_resnet18", num_classes=6)
    message = refused(tensors, "light_resnet18")
    assert "a classifier of 6 outputs, this network has 21" in message
    assert "config.init_classifier=False" in message
    found = imported(tensors, "light_resnet18", with_classifier=False)
    assert set(found.left_out) == {"clf_conv.weight", "clf_conv.bias"}
    missing = shapes_of("light_resnet18").keys() - found.arrays.keys()
    assert missing == {"decoder.classifier.kernel", "decoder.classifier.bias"}


def test_faults_are_listed_together():
    tensors = checkpoint_of("light_resnet18")
    del tensors["clf_conv.bias"]
    del tensors["layer4.1.bn2.running_mean"]
    tensors["surplus.weight"] = tensors["bn1.bias"]
    tensors["fc.weight"] = tensors["bn1.bias"]
    tensors["bn1.weight"] = tensors["bn1.weight"][:7]
    message = refused(tensors, "light_resnet18")
    assert "2 not of this network: fc.weight, surplus.weight" in message
    assert "2 missing: clf_conv.bias, layer4.1.bn2.running_mean" in message
    assert "1 of another shape: bn1.weight [7] for backbones.0.stem" in message


def test_a_truncated_list_tells_how_many_more():
    tensors = checkpoint_of("light_resnet18")
    tensors |= {f"surplus{i}": np.zeros(1) for i in range(20)}
    message = refused(tensors, "light_resnet18")
    assert "20 not of this network: surplus0, surplus1" in message
    assert message.endswith(" and 12 more")


@pytest.mark.parametrize(
    ("file", "asked", "message"),
    [
        (
            "light_resnet101",
            "light_resnet50",
            "has layer3.22, resnet50 has 6 blocks in layer3: is it resnet101?",
        ),
        (
            "light_resnet50",
            "resnet152_caffe",
            "has layer3.5, resnet152 has 36 blocks in layer3: is it resnet50?",
        ),
        (
            "light_resnet34",
            "light_resnet50",
            "has blocks of another form than resnet50's: is it resnet34?",
        ),
    ],
)
def test_another_depth_is_recognised(file, asked, message):
    shapes = {
        name: np.broadcast_to(np.float32(0), shape)
        for name, shape in shapes_of(file).items()
    }
    assert message in refused(export_weights(shapes, file), asked)


def test_another_backbone_is_recognised():
    message = refused(checkpoint_of("light_mobilenet_v2"), "light_resnet50")
    assert "holds the MobileNet-v2 of Light-Weight RefineNet" in message
    assert "choose one of mobilenet_v2, light_mobilenet_v2" in message


def test_no_known_network():
    message = refused({"encoder.weight": np.zeros(3)}, "light_resnet50")
    assert "encoder.weight" in message
    assert "ResNet of torchvision or timm" in message


def test_a_full_network_is_not_a_light_weight_one():
    message = refused(checkpoint_of("light_resnet18"), "resnet18")
    # Twenty residual units of three tensors each, and 3×3 kernels.
    assert "60 missing: adapt_stage1_b.0.1_conv" in message
    assert "[256, 256, 1, 1] for decoder.blocks." in message


def test_the_missing_expansion_of_mobilenet_v2_passes_everything():
    port = checkpoint_of("light_mobilenet_v2")
    tensors = {}
    names = {"layer1.0": "features.0.0", "layer1.1": "features.0.1"}
    index = 1
    for stage, repeats in enumerate((1, 2, 3, 4, 3, 3, 1), start=2):
        for block in range(repeats):
            ours, theirs = f"layer{stage}.{block}.output", f"features.{index}.conv"
            places = ["0.0", "0.1", "1.0", "1.1", "2", "3"]
            if index == 1:
                places = [None, None, "0.0", "0.1", "1", "2"]
            for place, part in zip(
                places, ("0.0", "0.1", "1.0", "1.1", "2.0", "2.1"), strict=True
            ):
                if place:
                    names[f"{ours}.{part}"] = f"{theirs}.{place}"
            index += 1
    for key, tensor in port.items():
        name, _, leaf = key.rpartition(".")
        if name in names:
            tensors[f"{names[name]}.{leaf}"] = tensor
    found = imported(tensors, "light_mobilenet_v2")
    prefix = "backbones.0.stages.0.0.layers.0"
    np.testing.assert_array_equal(
        found.arrays[f"{prefix}.conv.kernel"][0, 0], np.eye(32)
    )
    norm = {
        leaf: found.arrays[f"{prefix}.norm.{leaf}"]
        for leaf in ("scale", "bias", "mean", "var")
    }
    assert (norm["var"] + np.float32(1e-5) == 1).all()
    assert (norm["scale"] == 1).all()
    assert not norm["bias"].any()
    assert not norm["mean"].any()
    others = imported(port, "light_mobilenet_v2").arrays
    for name, array in found.arrays.items():
        if not name.startswith(prefix):
            np.testing.assert_array_equal(array, others[name])


@pytest.mark.first_cases(2)
@pytest.mark.parametrize(
    "variant",
    [
        "light_resnet18",
        "light_resnet50d",
        "light_convnext_tiny",
        "light_mobilenet_v2",
        "light_mobilenet_v3_large",
        "light_efficientnet_b0",
        "light_efficientnet_lite0",
    ],
)
def test_a_checkpoint_of_rgb_fits_other_channels(variant):
    of_rgb = shapes_of(variant)
    arrays = random_arrays(of_rgb)
    tensors = export_weights(arrays, variant)
    changes = {"mean": (0.5,) * 6, "std": (1.0,) * 6}
    found = imported(tensors, variant, **changes)
    assert "6 channels: its three channels are repeated" in found.adapted
    wanted = shapes_of(variant, **changes)
    [stem] = [leaf for leaf in wanted if wanted[leaf] != of_rgb[leaf]]
    np.testing.assert_array_equal(
        found.arrays[stem][:, :, 4], arrays[stem][:, :, 1] / 2
    )
    others = found.arrays.keys() - {stem}
    assert all(np.array_equal(found.arrays[x], arrays[x]) for x in others)
    assert imported(tensors, variant).adapted == ""
