"""Scales, flips, windows and fusion against torch and loops over images alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from refinenet_jax.inference.protocol import PLAIN, Protocol
from refinenet_jax.models.layers import Conv, FeatureMap
from refinenet_jax.models.resize import resize

torch = pytest.importorskip("torch")

NUM_CLASSES = 3
SIZES = [(37, 52), (44, 33)]
SHAPE = (64, 64)
RECIPES = {
    "plain": PLAIN,
    "scales": dataclasses.replace(PLAIN, scales=(0.6, 1.0, 1.3)),
    "flip": dataclasses.replace(PLAIN, flip=True),
    "scales and flip": dataclasses.replace(PLAIN, scales=(0.75, 1.25), flip=True),
    "authors": dataclasses.replace(
        PLAIN, short_edge=(40, 42), scales=(0.6, 1.0), fusion="log_softmax"
    ),
    "windows": dataclasses.replace(PLAIN, window=24, overlap=1 / 3),
    "windows at scales": dataclasses.replace(
        PLAIN, window=32, overlap=0.5, scales=(0.5, 1.5), flip=True
    ),
}


@pytest.fixture(scope="module")
def conv():
    """Looks 3 pixels around and shrinks by 4, as a network does on a larger scale."""
    init = nnx.initializers.normal(0.6)
    return Conv(
        3,
        NUM_CLASSES,
        7,
        stride=4,
        kernel_init=init,
        dtype=jnp.float32,
        rngs=nnx.Rngs(0),
    )


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(1)
    smooth = [rng.normal(size=(9, 9, 3)).astype(np.float32) for _ in SIZES]
    return [
        np.asarray(jax.image.resize(coarse, (*size, 3), "cubic"))
        for coarse, size in zip(smooth, SIZES, strict=True)
    ]


def padded(pictures, shape=SHAPE):
    batch = np.full((len(pictures), *shape, 3), 7.0, np.float32)  # to be ignored
    for row, picture in zip(batch, pictures, strict=True):
        row[: picture.shape[0], : picture.shape[1]] = picture
    sizes = np.array([picture.shape[:2] for picture in pictures], np.int32)
    return FeatureMap(jnp.asarray(batch), jnp.asarray(sizes))


def together(protocol: Protocol, conv, pictures, shape=SHAPE, base_shape=(96, 96)):
    """Both pictures in one program, with traced sizes."""
    sizes = [protocol.base_size(picture.shape[:2]) for picture in pictures]
    same = all(s == p.shape[:2] for s, p in zip(sizes, pictures, strict=True))

    def run(image, base_size):
        base = None if same else (base_shape, base_size)
        return protocol.probabilities(conv, image, base)

    shares = jax.jit(run)(padded(pictures, shape), jnp.asarray(sizes))
    return [
        np.asarray(share)[: p.shape[0], : p.shape[1]]
        for share, p in zip(shares, pictures, strict=True)
    ]


def bicubic(x, size):
    """The network's own bicubic, which resize_test checks, on a picture alone."""
    values = FeatureMap(jnp.asarray(x.numpy().transpose(0, 2, 3, 1)))
    enlarged = resize(values, tuple(size), None, "bicubic").values
    return torch.tensor(np.asarray(enlarged).transpose(0, 3, 1, 2))


class Alone:
    """The same protocol for one picture in torch, with loops."""

    def __init__(self, protocol, conv):
        self.protocol = protocol
        kernel = np.asarray(conv.kernel[...]).transpose(3, 2, 0, 1)
        self.kernel = torch.tensor(kernel)

    def network(self, x):
        return torch.nn.functional.conv2d(x, self.kernel, stride=4, padding=3)

    def resize(self, x, size, mode="bilinear"):
        return torch.nn.functional.interpolate(
            x, size=size, mode=mode, align_corners=False
        )

    def scores(self, x):
        window = self.protocol.window
        if not window:
            return self.network(x)
        height, width = x.shape[2:]
        stride = round(window * (1 - self.protocol.overlap))
        total = torch.zeros((1, NUM_CLASSES, height, width))
        count = torch.zeros((1, 1, height, width))
        for top in self.corners(height, window, stride):
            for left in self.corners(width, window, stride):
                area = (..., slice(top, top + window), slice(left, left + window))
                part = x[area]
                total[area] += self.resize(self.network(part), part.shape[2:])
                count[area] += 1
        return total / count

    def corners(self, length, window, stride):
        corners = [0]
        while corners[-1] + window < length:
            corners.append(min(corners[-1] + stride, length - window))
        return corners

    def __call__(self, picture):
        x = torch.tensor(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None]
        native = x.shape[2:]
        short = min(native)
        smallest, largest = self.protocol.short_edge
        factor = min(max(short, smallest), largest) / short
        base = [round(length * factor) for length in native]
        total = 0
        for scale in self.protocol.scales:
            for mirrored in (False, True)[: 1 + self.protocol.flip]:
                seen = self.resize(x, [round(length * scale) for length in base])
                scores = self.scores(seen.flip(3) if mirrored else seen)
                if self.protocol.fusion == "softmax":
                    shares = self.resize(scores, native).softmax(1)
                else:
                    logs = scores.log_softmax(1).clamp(min=-20)
                    shares = bicubic(logs, native).exp()
                total = total + (shares.flip(3) if mirrored else shares)
        total = total / total.sum(1, keepdim=True)
        return total[0].numpy().transpose(1, 2, 0)


@pytest.mark.first_cases(2)
@pytest.mark.parametrize("recipe", RECIPES)
def test_padded_pictures_give_what_loops_give_for_each_alone(recipe, conv, pictures):
    protocol = RECIPES[recipe]
    found = together(protocol, conv, pictures)
    alone = Alone(protocol, conv)
    for shares, picture in zip(found, pictures, strict=True):
        np.testing.assert_allclose(shares.sum(-1), 1, atol=5e-7)
        np.testing.assert_allclose(shares, alone(picture), atol=4e-6)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize("recipe", ["authors", "windows at scales"])
def test_any_padding_gives_the_same(recipe, conv, pictures):
    protocol = RECIPES[recipe]
    tight = [
        together(protocol, conv, [picture], picture.shape[:2], (64, 64))[0]
        for picture in pictures
    ]
    wide = together(protocol, conv, pictures, (128, 96), (160, 128))
    for one, other in zip(tight, wide, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


def test_the_comparison_would_notice_an_unmirrored_view(conv, pictures):
    plain = together(PLAIN, conv, pictures[:1])[0]
    flipped = Alone(RECIPES["flip"], conv)(pictures[0])
    assert np.abs(plain - flipped).max() > 0.1


@pytest.mark.parametrize(
    ("size", "expected"),
    [((375, 500), (450, 600)), ((1024, 2048), (800, 1600)), ((500, 700), (500, 700))],
)
def test_the_short_edge_is_brought_into_range(size, expected):
    protocol = dataclasses.replace(PLAIN, short_edge=(450, 800))
    assert protocol.base_size(size) == expected
    assert PLAIN.base_size(size) == size


def test_json():
    assert PLAIN.to_json() == {
        "short_edge": (1, 100_000),
        "scales": (1.0,),
        "flip": False,
        "fusion": "softmax",
        "window": 0,
        "overlap": 0.0,
    }


@pytest.mark.first_cases(3)
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_classes_are_those_of_the_largest_probabilities(recipe, conv, pictures):
    sizes = jnp.asarray([recipe.base_size(p.shape[:2]) for p in pictures])
    base = ((96, 96), sizes)
    image = padded(pictures, (150, 64))  # three bands, the last one not full
    shares = jax.jit(lambda image: recipe.probabilities(conv, image, base))(image)
    classes = jax.jit(lambda image: recipe.classes(conv, image, base))(image)
    assert classes.dtype == jnp.uint8
    for found, share, picture in zip(classes, shares, pictures, strict=True):
        height, width = picture.shape[:2]
        expected = share[:height, :width].argmax(-1)
        np.testing.assert_array_equal(found[:height, :width], expected)
