import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the networks are compared with torch's")

from refinenet_jax.models.layers import FeatureMap
from tests.architectures import compiled
from tests.torch_reference import (
    fill,
    pictures,
    reference,
    reference_and_ours,
    to_nhwc,
)

# The largest difference as a share of the largest value. Measured with jax 0.10.2 and
# torch 2.13.0 on an x86 CPU: at most 1.0e-5 in the taps (the fourth of ResNet-152;
# 2.0e-6 in ResNet-50, 8.8e-6 in the last of MobileNet-v2) and 2.0e-6 in the scores. Both
# libraries lie equally far from torch's float64. The rest is room for another CPU's
# order of summation.
TAP_TOLERANCE = 2e-5
SCORE_TOLERANCE = 5e-6

# Odd sizes at every stage: 97×131, 49×66, 25×33, 13×17, 7×9, 4×5.
ODD = (97, 131)
EVEN = (224, 160)


def relative_error(ours: jax.Array, theirs: torch.Tensor) -> float:
    expected = to_nhwc(theirs)
    assert ours.shape == expected.shape
    return float(np.abs(np.asarray(ours) - expected).max() / np.abs(expected).max())


@pytest.mark.first_cases(1)
@pytest.mark.every_network
@pytest.mark.parametrize(
    ("variant", "sizes"),
    [
        ("light_resnet18", [ODD, EVEN]),
        ("light_resnet50", [ODD]),
        pytest.param("light_resnet50", [EVEN], marks=pytest.mark.slow),
        ("resnet50", [ODD]),
        ("resnet50_caffe", [ODD]),
        ("light_mobilenet_v2", [ODD]),
        pytest.param("light_mobilenet_v2", [EVEN], marks=pytest.mark.slow),
        ("light_resnet50d", [ODD]),
        pytest.param("light_resnet50d", [EVEN], marks=pytest.mark.slow),
        pytest.param("light_resnet101d", [ODD], marks=pytest.mark.slow),
        ("light_resnext50_32x4d", [ODD]),
        pytest.param("light_resnext50_32x4d", [EVEN], marks=pytest.mark.slow),
        pytest.param("light_resnext101_32x8d", [ODD], marks=pytest.mark.slow),
        pytest.param("light_resnext101_64x4d", [ODD], marks=pytest.mark.slow),
        ("light_convnext_tiny", [ODD]),
        pytest.param("light_convnext_tiny", [EVEN], marks=pytest.mark.slow),
        pytest.param("light_convnext_small", [ODD], marks=pytest.mark.slow),
        pytest.param("resnext50_32x4d", [ODD], marks=pytest.mark.slow),
        pytest.param("convnext_tiny", [ODD], marks=pytest.mark.slow),
        ("light_mobilenet_v3_large", [ODD]),
        pytest.param("light_mobilenet_v3_large", [EVEN], marks=pytest.mark.slow),
        ("light_efficientnet_b0", [ODD]),
        pytest.param("light_efficientnet_b0", [EVEN], marks=pytest.mark.slow),
        ("light_efficientnet_lite0", [ODD]),
        pytest.param("light_efficientnet_lite1", [ODD, EVEN], marks=pytest.mark.slow),
        pytest.param("light_efficientnet_lite2", [ODD, EVEN], marks=pytest.mark.slow),
        pytest.param("mobilenet_v3_large", [ODD], marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", [ODD], marks=pytest.mark.slow),
        pytest.param("light_efficientnet_lite0", [EVEN], marks=pytest.mark.slow),
        pytest.param("resnet50", [EVEN], marks=pytest.mark.slow),
        pytest.param("resnet50_caffe", [EVEN], marks=pytest.mark.slow),
        pytest.param("resnet101", [ODD, EVEN], marks=pytest.mark.slow),
        pytest.param("light_resnet101", [ODD, EVEN], marks=pytest.mark.slow),
        pytest.param("resnet152", [ODD, EVEN], marks=pytest.mark.slow),
        pytest.param("light_resnet152", [ODD, EVEN], marks=pytest.mark.slow),
        pytest.param("light_resnet34", [ODD, EVEN], marks=pytest.mark.slow),
        pytest.param("mobilenet_v2", [ODD, EVEN], marks=pytest.mark.slow),
        pytest.param("efficientnet_lite0", [ODD, EVEN], marks=pytest.mark.slow),
    ],
)
def test_taps_and_scores_equal_torch(variant, sizes):
    network, ours = reference_and_ours(variant)
    (backbone,) = ours.backbones
    for size in sizes:
        image = pictures(2, *size, seed=1)
        with torch.no_grad():
            expected_taps = network.taps(image)
            expected = network.refine(expected_taps)
        # In two programs, of which variants in the same process share one.
        taps = compiled(backbone, FeatureMap(jnp.asarray(to_nhwc(image))))
        scores = compiled(ours.decoder, taps).values
        errors = [
            relative_error(tap.values, theirs)
            for tap, theirs in zip(taps, expected_taps, strict=True)
        ]
        assert max(errors) < TAP_TOLERANCE, errors
        assert relative_error(scores, expected) < SCORE_TOLERANCE
        # A comparison with a network that has died out would prove nothing.
        assert expected.std() > 0.5
    # The next network should find the memory of this one free.
    del ours, backbone, taps, scores
    gc.collect()


TWO_SCALES = {"input_scales": (1.2, 0.6)}
# Full networks where their units and convolutions matter.
OPTIONS = [
    ("resnet18", {"cascade": "single"}),
    pytest.param("resnet18", {"cascade": "2_cascaded"}, marks=pytest.mark.slow),
    pytest.param("light_resnet18", {"cascade": "single"}, marks=pytest.mark.slow),
    ("light_mobilenet_v2", {"cascade": "2_cascaded"}),
    ("resnet18", {"adaptation_units": 1, "output_units": 0, "classifier_units": 2}),
    ("light_resnet18", {"pooling": "improved", "pooling_stages": 2}),
    pytest.param("light_mobilenet_v2", {"pooling": "improved"}, marks=pytest.mark.slow),
    ("light_resnet18", {"pooling_stages": 0}),
    ("light_resnet18", {"fusion_resize": "bicubic"}),
    ("light_resnet18", {"void_output": True}),
    ("light_resnet18", TWO_SCALES),
    pytest.param(
        "resnet18", {**TWO_SCALES, "cascade": "2_cascaded"}, marks=pytest.mark.slow
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "changes"), OPTIONS)
def test_logits_of_an_option_equal_torch(variant, changes):
    network, ours = reference_and_ours(variant, **changes)
    image = pictures(2, 65, 98, seed=1)
    with torch.no_grad():
        expected = network(image)[:, :21]  # void is the last
    logits = compiled(ours, jnp.asarray(to_nhwc(image)))
    assert relative_error(logits, expected) < SCORE_TOLERANCE
    assert expected.std() > 0.5


@pytest.mark.first_cases(2)
@pytest.mark.parametrize(
    ("variant", "changes"),
    [
        ("light_resnet50", {}),
        ("light_resnet50d", {}),
        ("light_resnext50_32x4d", {}),
        ("light_convnext_tiny", {}),
        ("light_mobilenet_v2", {}),
        ("light_mobilenet_v3_large", {}),
        ("light_efficientnet_b0", {}),
        ("light_efficientnet_lite0", {}),
        ("resnet18", {**TWO_SCALES, "classifier_units": 1}),
    ],
)
def test_every_weight_of_the_reference_counts(variant, changes):
    network = reference(variant, **changes)
    fill(network, seed=0)
    network(pictures(2, 33, 50, seed=1)).square().sum().backward()
    silent = [
        key
        for key, weight in network.named_parameters()
        if not weight.grad.abs().max() > 1e-3
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("variant", "count"), [("light_mobilenet_v2", 39), ("light_efficientnet_lite0", 36)]
)
def test_relu6_of_the_reference_cuts_off_a_few_values(variant, count):
    network = reference(variant)
    fill(network, seed=0)
    shares = []

    def note(part, inputs, output):
        shares.append(float((output == 6).float().mean()))

    for part in (*network.backbones, *network.decoders):
        for layer in part.modules():
            if isinstance(layer, torch.nn.ReLU6):
                layer.register_forward_hook(note)
    network(pictures(2, *ODD, seed=1))
    # After the stem, twice in each block (in the first of EfficientNet once) and once in
    # each of the decoder's.
    assert len(shares) == count
    assert min(shares) > 0.001
    assert max(shares) < 0.1
