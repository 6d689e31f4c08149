from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import nnx

from refinenet_jax.models.build import SegmentationNetwork, build
from refinenet_jax.models.layers import (
    BatchNorm,
    Conv,
    FeatureMap,
    max_pool,
    relu,
    resize,
    resize_like,
)
from tests.torch_reference import RefineNet, copy_to_network, fill, pictures, reference


def to_torch(x: np.ndarray | jax.Array) -> torch.Tensor:
    """[B,H,W,C] → [B,C,H,W]."""
    return torch.tensor(np.asarray(x)).permute(0, 3, 1, 2)


def to_numpy(x: torch.Tensor) -> np.ndarray:
    """[B,C,H,W] → [B,H,W,C]."""
    return x.detach().permute(0, 2, 3, 1).numpy()


# In one compilation each, which is quicker than operation by operation.
jit_resize = jax.jit(resize, static_argnums=(1, 3))


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def conv(kernel_size: int, stride: int = 1, *, use_bias: bool = True) -> Conv:
    """A convolution from 3 to 5 channels whose bias is not zero."""
    layer = Conv(
        3,
        5,
        kernel_size,
        stride=stride,
        use_bias=use_bias,
        kernel_init=nnx.initializers.normal(0.3),
        dtype=jnp.float32,
        rngs=nnx.Rngs(0),
    )
    if layer.bias is not None:
        layer.bias[...] = jnp.arange(5.0)
    return layer


def in_inference(network: nnx.Module) -> nnx.Module:
    return nnx.view(network, deterministic=True, use_running_average=True)


@pytest.fixture(scope="module")
def light_resnet18() -> RefineNet:
    network = reference("light_resnet18", 21)
    fill(network, seed=0)
    return network


def ours_from(network: RefineNet, **options: Any) -> SegmentationNetwork:
    """Our light_resnet18 with the weights of the torch one."""
    ours = nnx.eval_shape(
        lambda: build(
            "light_resnet18",
            21,
            rngs=nnx.Rngs(0),
            **{"input_scale": 1.0, "dtype": jnp.float32, **options},
        )
    )
    copy_to_network(network.state_dict(), ours)
    return ours


class TestConv:
    @pytest.mark.parametrize("kernel_size", [1, 3, 7])
    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("size", [(9, 14), (12, 7), (1, 2)])
    def test_equals_torch(self, kernel_size, stride, size):
        layer = conv(kernel_size, stride)
        x = random(2, *size, 3)
        expected = F.conv2d(
            to_torch(x),
            torch.tensor(np.asarray(layer.kernel[...])).permute(3, 2, 0, 1),
            torch.tensor(np.asarray(layer.bias[...])),
            stride=stride,
            padding=kernel_size // 2,
        )
        result = layer(FeatureMap(jnp.asarray(x))).values
        np.testing.assert_allclose(result, to_numpy(expected), rtol=0, atol=5e-6)

    def test_by_hand(self):
        layer = Conv(
            1,
            1,
            3,
            stride=2,
            kernel_init=nnx.initializers.ones,
            dtype=jnp.float32,
            rngs=nnx.Rngs(0),
        )
        x = jnp.arange(1.0, 16.0).reshape(1, 3, 5, 1)
        #  1  2  3  4  5      corner: 1 + 2 + 6 + 7
        #  6  7  8  9 10      middle of the first row: 2 + 3 + 4 + 7 + 8 + 9
        # 11 12 13 14 15
        result = layer(FeatureMap(x)).values
        assert result[0, :, :, 0].tolist() == [[16, 33, 28], [36, 63, 48]]

    def test_without_bias(self):
        layer = conv(3, use_bias=False)
        assert layer.bias is None
        zeros = FeatureMap(jnp.zeros((1, 4, 6, 3)))
        assert not layer(zeros).values.any()


class TestMaxPool:
    @pytest.mark.parametrize(("window", "stride"), [(3, 2), (5, 1)])
    @pytest.mark.parametrize("size", [(9, 14), (12, 7), (1, 2)])
    def test_equals_torch(self, window, stride, size):
        x = random(2, *size, 3)
        expected = F.max_pool2d(to_torch(x), window, stride, window // 2)
        result = max_pool(FeatureMap(jnp.asarray(x)), window, stride).values
        np.testing.assert_array_equal(result, to_numpy(expected))

    @pytest.mark.parametrize(("window", "stride"), [(3, 2), (5, 1)])
    def test_gradient_equals_torch(self, window, stride):
        # All values differ: on a tie torch sends the gradient to one of the equals and
        # jnp.maximum shares it among them.
        shape = (2, 9, 14, 3)
        order = np.random.default_rng(0).permutation(np.prod(shape))
        x = order.reshape(shape).astype(np.float32)
        their_x = to_torch(x).requires_grad_()
        pooled = F.max_pool2d(their_x, window, stride, window // 2)
        weights = random(*to_numpy(pooled).shape, seed=1)
        (pooled * to_torch(weights)).sum().backward()

        def total(x: jax.Array) -> jax.Array:
            return (max_pool(FeatureMap(x), window, stride).values * weights).sum()

        gradient = jax.grad(total)(jnp.asarray(x))
        np.testing.assert_allclose(gradient, to_numpy(their_x.grad), rtol=0, atol=1e-5)

    def test_padding_never_wins(self):
        x = jnp.array([[-3.0, -1.0, -2.0], [-5.0, -4.0, -6.0]])[None, :, :, None]
        result = max_pool(FeatureMap(x), 3, 2).values
        assert result[0, :, :, 0].tolist() == [[-1, -1]]


class TestResize:
    @pytest.mark.parametrize("method", ["align_corners", "bilinear"])
    @pytest.mark.parametrize("size", [(5, 8), (1, 6), (13, 21)])
    @pytest.mark.parametrize("new_size", [(9, 15), (5, 8), (20, 11), (1, 1)])
    def test_equals_torch(self, method, size, new_size):
        x = random(2, *size, 3)
        expected = F.interpolate(
            to_torch(x),
            new_size,
            mode="bilinear",
            align_corners=method == "align_corners",
        )
        result = jit_resize(FeatureMap(jnp.asarray(x)), new_size, None, method).values
        np.testing.assert_allclose(result, to_numpy(expected), rtol=0, atol=5e-6)

    def test_align_corners_by_hand(self):
        x = jnp.array([[0.0, 3.0], [6.0, 9.0]])[None, :, :, None]
        result = jit_resize(FeatureMap(x), (3, 4), None, "align_corners").values
        expected = [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
        np.testing.assert_allclose(result[0, :, :, 0], expected, rtol=0, atol=1e-6)

    def test_bilinear_by_hand(self):
        x = jnp.array([0.0, 4.0])[None, None, :, None]
        result = jit_resize(FeatureMap(x), (1, 4), None, "bilinear").values
        assert result.flatten().tolist() == [0, 1, 3, 4]

    @pytest.mark.parametrize("new_size", [(23, 31), (40, 25)])
    def test_bicubic_equals_jax_away_from_the_border(self, new_size):
        x = jnp.asarray(random(2, 20, 25, 3))
        ours = jit_resize(FeatureMap(x), new_size, None, "bicubic").values
        expected = jax.image.resize(x, (2, *new_size, 3), "cubic")
        # The kernel reaches two pixels of the input, at most four of the output.
        inner = (slice(None), slice(4, -4), slice(4, -4))
        np.testing.assert_allclose(ours[inner], expected[inner], rtol=0, atol=5e-6)

    def test_bicubic_by_hand(self):
        # MATLAB: imresize([0 0 0 1 0 0 0 0], 2). Output pixel centres lie a quarter to
        # either side of the input's, so the distances are 1.75, 1.25, 0.75 and 0.25.
        x = jnp.zeros((1, 1, 8, 1)).at[0, 0, 3, 0].set(1)
        result = jit_resize(FeatureMap(x), (1, 16), None, "bicubic").values.flatten()
        half = [-3 / 128, -9 / 128, 29 / 128, 111 / 128]
        np.testing.assert_allclose(result[3:11], half + half[::-1], rtol=0, atol=1e-6)
        assert not result[:3].any()
        assert not result[11:].any()

    def test_bicubic_smooths_when_it_shrinks_by_hand(self):
        # Half the size: the kernel is twice as wide and half as high; input pixels lie
        # at 0.25, 0.75, 1.25 and 1.75 widths from an output pixel's centre.
        x = jnp.zeros((1, 1, 16, 1)).at[0, 0, 7, 0].set(1)
        result = jit_resize(FeatureMap(x), (1, 8), None, "bicubic").values.flatten()
        expected = [-9 / 256, 111 / 256, 29 / 256, -3 / 256]
        np.testing.assert_allclose(result[2:6], expected, rtol=0, atol=1e-6)
        assert not result[:2].any()
        assert not result[6:].any()

    @pytest.mark.parametrize("method", ["align_corners", "bilinear", "bicubic"])
    def test_constant_stays_constant(self, method):
        x = FeatureMap(jnp.full((1, 7, 12, 2), 0.7))
        result = jit_resize(x, (17, 5), None, method).values
        np.testing.assert_allclose(result, 0.7, rtol=1e-6)


# Narrow, flat and tiny.
SIZES = [(12, 5), (7, 17), (1, 2)]
BUCKET = (12, 17)
# As a share of the largest value; measured on an x86 CPU: at most 3.1e-6.
PADDING_ERROR = 1e-5
LAYERS = {
    **{
        f"conv{kernel_size}_stride{stride}": conv(kernel_size, stride)
        for kernel_size in (1, 3, 7)
        for stride in (1, 2)
    },
    "max_pool3_stride2": lambda x: max_pool(x, 3, 2),
    "max_pool5": lambda x: max_pool(x, 5),
    "relu": relu,
    "sum": lambda x: x + relu(x),
    "batch_norm": nnx.view(BatchNorm(3, rngs=nnx.Rngs(0)), use_running_average=True),
    "down_and_up": lambda x: resize_like(max_pool(x, 3, 2), x, "align_corners"),
}


def bucketed(images: Sequence[np.ndarray], bucket: tuple[int, int]) -> FeatureMap:
    """Images [1,h,w,C] of any size as one batch; the padding is NaN.

    One look at the padding makes a result NaN.
    """
    height, width = bucket
    batch = [
        np.pad(
            image,
            [(0, 0), (0, height - image.shape[1]), (0, width - image.shape[2]), (0, 0)],
            constant_values=np.nan,
        )
        for image in images
    ]
    sizes = jnp.array([image.shape[1:3] for image in images], jnp.int32)
    return FeatureMap(jnp.concatenate(batch), sizes)


def assert_equal_inside(
    result: FeatureMap, index: int, alone: np.ndarray | jax.Array
) -> None:
    """One picture of a padded batch is what it is alone, [1,h,w,C]."""
    height, width = alone.shape[1:3]
    assert result.size is not None
    assert result.size[index].tolist() == [height, width]
    inside = result.values[index : index + 1, :height, :width]
    largest = np.abs(alone).max()
    np.testing.assert_allclose(inside, alone, rtol=0, atol=PADDING_ERROR * largest)


class TestPadding:
    """A padded picture gives what the picture alone gives."""

    @pytest.mark.parametrize("name", LAYERS)
    def test_layer(self, name):
        layer = jax.jit(LAYERS[name])
        images = [random(1, *size, 3, seed=i) for i, size in enumerate(SIZES)]
        result = layer(bucketed(images, BUCKET))
        for i, image in enumerate(images):
            alone = layer(FeatureMap(jnp.asarray(image))).values
            assert_equal_inside(result, i, alone)

    @pytest.mark.parametrize("method", ["align_corners", "bilinear", "bicubic"])
    def test_resize(self, method):
        # Some grow, some shrink.
        new_bucket, new_sizes = (15, 11), [(15, 4), (5, 11), (2, 3)]
        images = [random(1, *size, 3, seed=i) for i, size in enumerate(SIZES)]
        result = jit_resize(
            bucketed(images, BUCKET), new_bucket, jnp.array(new_sizes), method
        )
        for i, (image, size) in enumerate(zip(images, new_sizes, strict=True)):
            alone = jit_resize(FeatureMap(jnp.asarray(image)), size, None, method)
            assert_equal_inside(result, i, alone.values)

    @pytest.mark.parametrize("input_scale", [1.0, 1.2])
    def test_network(self, light_resnet18, input_scale):
        network = ours_from(light_resnet18, input_scale=input_scale)
        graph, state = nnx.split(in_inference(network))
        traces = []

        @jax.jit
        def score(state: nnx.State, image: FeatureMap) -> FeatureMap:
            traces.append(image.values.shape)
            return nnx.merge(graph, state).score(image)

        for sizes in ([(96, 65), (41, 131)], [(77, 98), (96, 131)]):
            images = [to_numpy(pictures(1, *size, seed=7)) for size in sizes]
            result = score(state, bucketed(images, (96, 131)))
            for i, image in enumerate(images):
                # The torch network sees the picture alone, and its size needs no
                # compilation.
                scaled = FeatureMap(jnp.asarray(image))
                if input_scale != 1:
                    size = [round(input_scale * length) for length in sizes[i]]
                    scaled = jit_resize(scaled, tuple(size), None, "bicubic")
                with torch.no_grad():
                    alone = to_numpy(light_resnet18(to_torch(scaled.values)))
                assert_equal_inside(result, i, alone)
        assert len(traces) == 1


class TestBatchNorm:
    CHANNELS = 6

    def layer(self) -> BatchNorm:
        layer = BatchNorm(self.CHANNELS, rngs=nnx.Rngs(0))
        layer.scale[...] = jnp.linspace(0.5, 1.5, self.CHANNELS)
        layer.bias[...] = jnp.linspace(-1, 1, self.CHANNELS)
        layer.mean[...] = jnp.linspace(-2, 2, self.CHANNELS)
        layer.var[...] = jnp.linspace(0.2, 3, self.CHANNELS)
        return layer

    def torch_layer(self) -> torch.nn.BatchNorm2d:
        layer, ours = torch.nn.BatchNorm2d(self.CHANNELS), self.layer()
        for theirs, value in (
            (layer.weight, ours.scale),
            (layer.bias, ours.bias),
            (layer.running_mean, ours.mean),
            (layer.running_var, ours.var),
        ):
            theirs.data.copy_(torch.tensor(np.asarray(value[...])))
        return layer

    def test_inference_equals_torch(self):
        x = random(2, 3, 5, self.CHANNELS) * 3 + 1
        expected = self.torch_layer().eval()(to_torch(x))
        layer = nnx.view(self.layer(), use_running_average=True)
        result = layer(FeatureMap(jnp.asarray(x))).values
        np.testing.assert_allclose(result, to_numpy(expected), rtol=0, atol=2e-6)

    def test_training_equals_torch_but_for_the_unbiased_variance(self):
        x = random(2, 3, 5, self.CHANNELS) * 3 + 1
        theirs, ours = self.torch_layer().train(), self.layer()
        expected = theirs(to_torch(x))
        view = nnx.view(ours, use_running_average=False)
        result = view(FeatureMap(jnp.asarray(x))).values
        np.testing.assert_allclose(result, to_numpy(expected), rtol=0, atol=5e-6)

        norm = ours
        np.testing.assert_allclose(norm.mean[...], theirs.running_mean, atol=1e-6)
        old = self.layer().var[...]
        batch = x.var((0, 1, 2))
        np.testing.assert_allclose(norm.var[...], 0.9 * old + 0.1 * batch, rtol=1e-5)
        # torch keeps the unbiased variance of the batch, n / (n - 1) times Flax's; with
        # the 10⁵ values of a training batch the difference is lost in the noise.
        count = 2 * 3 * 5
        unbiased = 0.9 * old + 0.1 * batch * count / (count - 1)
        np.testing.assert_allclose(theirs.running_var, unbiased, rtol=1e-5)

    def test_frozen_statistics_keep_every_bit(self):
        layer = self.layer()
        before = jax.tree.map(np.array, nnx.state(layer))
        frozen = nnx.view(layer, use_running_average=True)
        frozen(FeatureMap(jnp.asarray(random(2, 3, 5, self.CHANNELS))))
        after = jax.tree.map(np.array, nnx.state(layer))
        jax.tree.map(np.testing.assert_array_equal, before, after)


def test_frozen_statistics_of_a_network_keep_every_bit_in_training(light_resnet18):
    network = ours_from(light_resnet18)
    before = jax.tree.map(np.array, nnx.state(network, nnx.BatchStat))

    @nnx.jit
    def train(network: SegmentationNetwork, image: jax.Array, rngs: nnx.Rngs):
        view = nnx.view(network, deterministic=False, use_running_average=True)
        return view.score(FeatureMap(image), rngs=rngs).values

    train(network, jnp.zeros((2, 33, 50, 3)), nnx.Rngs(dropout=0))
    after = jax.tree.map(np.array, nnx.state(network, nnx.BatchStat))
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_bfloat16_is_near_float32_and_keeps_its_parameters(light_resnet18):
    image = pictures(2, 65, 98, seed=1)
    with torch.no_grad():
        expected = to_numpy(light_resnet18(image))
    network = in_inference(ours_from(light_resnet18, dtype=jnp.bfloat16))
    leaves = jax.tree.leaves(nnx.state(network))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32)}

    logits = nnx.jit(lambda network, x: network(x))(
        network, jnp.asarray(to_numpy(image))
    )
    assert logits.dtype == jnp.float32
    difference = np.abs(np.asarray(logits) - expected) / np.abs(expected).max()
    # One rounding to the 8 bits of bfloat16 errs by up to 0.4%; below 1e-4 nothing
    # would have been rounded. Measured: 0.7% at most, 0.13% on average.
    assert 1e-4 < difference.max() < 0.02
    assert difference.mean() < 0.004


def test_layer_computes_in_its_dtype():
    layer = Conv(
        3,
        5,
        3,
        kernel_init=nnx.initializers.normal(0.3),
        dtype=jnp.bfloat16,
        rngs=nnx.Rngs(0),
    )
    assert layer.kernel.dtype == jnp.float32
    assert layer(FeatureMap(jnp.ones((1, 4, 6, 3)))).values.dtype == jnp.bfloat16
