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
from tests.torch_reference import copy_to_network, fill, pictures, reference


def to_torch(x: np.ndarray | jax.Array) -> torch.Tensor:
    """[B,H,W,C] → [B,C,H,W]."""
    return torch.tensor(np.asarray(x)).permute(0, 3, 1, 2)


def to_numpy(x: torch.Tensor) -> np.ndarray:
    """[B,C,H,W] → [B,H,W,C]."""
    return x.detach().permute(0, 2, 3, 1).numpy()


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


def padded(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """[B,h,w,C] → [B,height,width,C]; one look at the padding makes a result NaN."""
    margins = [(0, 0), (0, height - values.shape[1]), (0, width - values.shape[2])]
    return np.pad(values, [*margins, (0, 0)], constant_values=np.nan)


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
    @pytest.mark.parametrize("size", [(5, 8), (7, 3), (1, 6), (13, 21)])
    @pytest.mark.parametrize("new_size", [(9, 15), (7, 3), (20, 11), (1, 1)])
    def test_equals_torch(self, method, size, new_size):
        x = random(2, *size, 3)
        expected = F.interpolate(
            to_torch(x),
            new_size,
            mode="bilinear",
            align_corners=method == "align_corners",
        )
        result = resize(FeatureMap(jnp.asarray(x)), new_size, None, method).values
        np.testing.assert_allclose(result, to_numpy(expected), rtol=0, atol=2e-6)

    def test_align_corners_by_hand(self):
        x = jnp.array([[0.0, 3.0], [6.0, 9.0]])[None, :, :, None]
        result = resize(FeatureMap(x), (3, 4), None, "align_corners").values
        expected = [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
        np.testing.assert_allclose(result[0, :, :, 0], expected, rtol=0, atol=1e-6)

    def test_bilinear_by_hand(self):
        x = jnp.array([0.0, 4.0])[None, None, :, None]
        result = resize(FeatureMap(x), (1, 4), None, "bilinear").values
        assert result.flatten().tolist() == [0, 1, 3, 4]

    @pytest.mark.parametrize("new_size", [(23, 31), (40, 25)])
    def test_bicubic_equals_jax_away_from_the_border(self, new_size):
        x = jnp.asarray(random(2, 20, 25, 3))
        ours = resize(FeatureMap(x), new_size, None, "bicubic").values
        expected = jax.image.resize(x, (2, *new_size, 3), "cubic")
        # The kernel reaches two pixels of the input, at most four of the output.
        inner = (slice(None), slice(4, -4), slice(4, -4))
        np.testing.assert_allclose(ours[inner], expected[inner], rtol=0, atol=5e-6)

    def test_bicubic_by_hand(self):
        # MATLAB: imresize([0 0 0 1 0 0 0 0], 2). Output pixel centres lie a quarter to
        # either side of the input's, so the distances are 1.75, 1.25, 0.75 and 0.25.
        x = jnp.zeros((1, 1, 8, 1)).at[0, 0, 3, 0].set(1)
        result = resize(FeatureMap(x), (1, 16), None, "bicubic").values.flatten()
        half = [-3 / 128, -9 / 128, 29 / 128, 111 / 128]
        np.testing.assert_allclose(result[3:11], half + half[::-1], rtol=0, atol=1e-6)
        assert not result[:3].any()
        assert not result[11:].any()

    def test_bicubic_smooths_when_it_shrinks_by_hand(self):
        # Half the size: the kernel is twice as wide and half as high; input pixels lie
        # at 0.25, 0.75, 1.25 and 1.75 widths from an output pixel's centre.
        x = jnp.zeros((1, 1, 16, 1)).at[0, 0, 7, 0].set(1)
        result = resize(FeatureMap(x), (1, 8), None, "bicubic").values.flatten()
        expected = [-9 / 256, 111 / 256, 29 / 256, -3 / 256]
        np.testing.assert_allclose(result[2:6], expected, rtol=0, atol=1e-6)
        assert not result[:2].any()
        assert not result[6:].any()

    @pytest.mark.parametrize("method", ["align_corners", "bilinear", "bicubic"])
    def test_constant_stays_constant(self, method):
        x = FeatureMap(jnp.full((1, 7, 12, 2), 0.7))
        result = resize(x, (17, 5), None, method).values
        np.testing.assert_allclose(result, 0.7, rtol=1e-6)


# In a bucket of 12×17: narrow, flat, and a full one.
SIZES = [(12, 5), (7, 17), (1, 2), (12, 17)]
BUCKET = (12, 17)
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


class TestPadding:
    """A padded picture gives what the picture alone gives."""

    @pytest.mark.parametrize("name", LAYERS)
    def test_layer(self, name):
        layer = LAYERS[name]
        pictures = [
            random(1, *size, 3, seed=i) for i, size in enumerate(SIZES, start=1)
        ]
        batch = np.concatenate([padded(picture, *BUCKET) for picture in pictures])
        result = jax.jit(layer)(FeatureMap(jnp.asarray(batch), jnp.array(SIZES)))
        for i, picture in enumerate(pictures):
            alone = layer(FeatureMap(jnp.asarray(picture))).values
            height, width = alone.shape[1:3]
            assert result.size[i].tolist() == [height, width]
            np.testing.assert_allclose(
                result.values[i : i + 1, :height, :width], alone, rtol=0, atol=2e-6
            )

    @pytest.mark.parametrize("method", ["align_corners", "bilinear", "bicubic"])
    @pytest.mark.parametrize("new_bucket", [(15, 21), (8, 11)])
    def test_resize(self, method, new_bucket):
        new_sizes = [
            [max(1, length * new // old) for length, new, old in zip(*sizes)]
            for sizes in zip(SIZES, [new_bucket] * 4, [BUCKET] * 4)
        ]
        pictures = [random(1, *size, 3, seed=i) for i, size in enumerate(SIZES)]
        batch = np.concatenate([padded(picture, *BUCKET) for picture in pictures])

        @jax.jit
        def resized(x: FeatureMap, new_sizes: jax.Array) -> FeatureMap:
            return resize(x, new_bucket, new_sizes, method)

        result = resized(
            FeatureMap(jnp.asarray(batch), jnp.array(SIZES)), jnp.array(new_sizes)
        )
        for i, (picture, size) in enumerate(zip(pictures, new_sizes)):
            alone = resize(FeatureMap(jnp.asarray(picture)), size, None, method).values
            assert result.size[i].tolist() == size
            np.testing.assert_allclose(
                result.values[i : i + 1, : size[0], : size[1]], alone, rtol=0, atol=3e-6
            )


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    network = reference("light_resnet18", 21)
    fill(network, seed=0)
    return network.state_dict()


def filled(weights: dict[str, torch.Tensor], **options) -> SegmentationNetwork:
    network = nnx.eval_shape(
        lambda: build("light_resnet18", 21, rngs=nnx.Rngs(0), **options)
    )
    copy_to_network(weights, network)
    return network


@pytest.mark.parametrize("input_scale", [1.0, 1.2])
def test_padded_network_equals_unpadded(weights, input_scale):
    graph, state = nnx.split(in_inference(filled(weights, input_scale=input_scale)))
    traces = []

    @jax.jit
    def padded_logits(state: nnx.State, image: FeatureMap) -> FeatureMap:
        traces.append(image.values.shape)
        return nnx.merge(graph, state).score(image)

    @jax.jit
    def logits(state: nnx.State, image: jax.Array) -> jax.Array:
        return nnx.merge(graph, state)(image)

    bucket = (96, 131)
    for sizes in ([(96, 65), (41, 131)], [(77, 98), (96, 131)]):
        images = [to_numpy(pictures(1, *size, seed=i)) for i, size in enumerate(sizes)]
        batch = np.concatenate([padded(image, *bucket) for image in images])
        result = padded_logits(
            state, FeatureMap(jnp.asarray(batch), jnp.array(sizes, jnp.int32))
        )
        for i, image in enumerate(images):
            alone = logits(state, jnp.asarray(image))
            height, width = alone.shape[1:3]
            assert result.size[i].tolist() == [height, width]
            inside = result.values[i : i + 1, :height, :width]
            error = jnp.abs(inside - alone).max() / jnp.abs(alone).max()
            assert error < 1e-5
    assert len(traces) == 1


class TestBatchNorm:
    CHANNELS = 6

    def layer(self) -> BatchNorm:
        layer = BatchNorm(self.CHANNELS, rngs=nnx.Rngs(0))
        layer.norm.scale[...] = jnp.linspace(0.5, 1.5, self.CHANNELS)
        layer.norm.bias[...] = jnp.linspace(-1, 1, self.CHANNELS)
        layer.norm.mean[...] = jnp.linspace(-2, 2, self.CHANNELS)
        layer.norm.var[...] = jnp.linspace(0.2, 3, self.CHANNELS)
        return layer

    def torch_layer(self) -> torch.nn.BatchNorm2d:
        layer, ours = torch.nn.BatchNorm2d(self.CHANNELS), self.layer().norm
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

        norm = ours.norm
        np.testing.assert_allclose(norm.mean[...], theirs.running_mean, atol=1e-6)
        old = self.layer().norm.var[...]
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


def test_frozen_statistics_of_a_network_keep_every_bit_in_training(weights):
    network = filled(weights)
    before = jax.tree.map(np.array, nnx.state(network, nnx.BatchStat))

    @nnx.jit
    def train(network: SegmentationNetwork, image: jax.Array, rngs: nnx.Rngs):
        view = nnx.view(network, deterministic=False, use_running_average=True)
        return view.score(FeatureMap(image), rngs=rngs).values

    train(network, jnp.zeros((2, 33, 50, 3)), nnx.Rngs(dropout=0))
    after = jax.tree.map(np.array, nnx.state(network, nnx.BatchStat))
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_bfloat16_is_near_float32_and_keeps_its_parameters(weights):
    image = jnp.asarray(to_numpy(pictures(2, 65, 98, seed=1)))
    logits = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        network = in_inference(filled(weights, dtype=dtype))
        assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(network))} == {
            jnp.dtype(jnp.float32)
        }
        logits[dtype] = nnx.jit(lambda network, x: network(x))(network, image)
        assert logits[dtype].dtype == jnp.float32
    difference = jnp.abs(logits[jnp.bfloat16] - logits[jnp.float32])
    largest = jnp.abs(logits[jnp.float32]).max()
    # bfloat16 has 8 bits of mantissa, so one rounding is 0.4%.
    assert 1e-4 < difference.max() / largest < 0.05
    assert difference.mean() / largest < 0.01


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
