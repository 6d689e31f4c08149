import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch", reason="the layers are compared with torch's")

from refinenet_jax.models.activations import (
    gelu,
    hard_sigmoid,
    hard_swish,
    relu,
    relu6,
    sigmoid,
    silu,
)
from refinenet_jax.models.convnext import LayerNorm
from refinenet_jax.models.inverted_residuals import ChannelGate, GateForm
from refinenet_jax.models.layers import (
    BatchNorm,
    Conv,
    DepthwiseConv,
    FeatureMap,
    max_pool,
)
from refinenet_jax.models.resize import resize_like
from refinenet_jax.models.resnet import mean_pool
from tests.models.buckets import assert_equal_inside, bucketed
from tests.torch_backbones import SameConv
from tests.torch_reference import to_nchw, to_nhwc

SIZES = [(9, 14), (12, 7), (1, 2)]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def conv(
    kernel_size: int, stride: int = 1, padding: str = "symmetric", *, use_bias=True
) -> Conv:
    """A convolution from 3 to 5 channels whose bias is not zero."""
    layer = Conv(
        3,
        5,
        kernel_size,
        stride=stride,
        use_bias=use_bias,
        padding=padding,
        kernel_init=nnx.initializers.normal(0.3),
        dtype=jnp.float32,
        rngs=nnx.Rngs(0),
    )
    if layer.bias is not None:
        layer.bias[...] = jnp.arange(5.0)
    return layer


def depthwise(
    kernel_size: int, stride: int = 1, padding: str = "symmetric"
) -> DepthwiseConv:
    """Of 3 channels."""
    return DepthwiseConv(
        3,
        kernel_size,
        stride=stride,
        padding=padding,
        kernel_init=nnx.initializers.normal(0.3),
        dtype=jnp.float32,
        rngs=nnx.Rngs(0),
    )


def torch_conv(layer: Conv | DepthwiseConv) -> torch.nn.Conv2d:
    """The same convolution, without the bias."""
    kernel = torch.tensor(np.asarray(layer.kernel[...])).permute(3, 2, 0, 1)
    size = layer.kernel_size
    groups = 3 if isinstance(layer, DepthwiseConv) else 1
    if layer.padding == "same":
        theirs = SameConv(3, len(kernel), size, layer.stride, groups)
    else:
        theirs = torch.nn.Conv2d(
            3, len(kernel), size, layer.stride, size // 2, groups=groups, bias=False
        )
    theirs.weight.data.copy_(kernel)
    return theirs


def test_relu_and_relu6_by_hand():
    x = FeatureMap(jnp.array([-7.0, -0.5, 0.0, 2.0, 6.0, 6.5]).reshape(1, 1, 6, 1))
    assert relu(x).values.flatten().tolist() == [0, 0, 0, 2, 6, 6.5]
    assert relu6(x).values.flatten().tolist() == [0, 0, 0, 2, 6, 6]


@pytest.mark.parametrize("size", [(7, 10), (8, 5), (1, 1)])
def test_mean_pool_equals_torch(size):
    x = random(2, *size, 3)
    expected = torch.nn.functional.avg_pool2d(
        to_nchw(x), 2, 2, ceil_mode=True, count_include_pad=False
    )
    found = mean_pool(FeatureMap(jnp.asarray(x))).values
    np.testing.assert_allclose(found, to_nhwc(expected), rtol=0, atol=1e-6)


def test_layer_norm_equals_torch():
    ours, theirs = LayerNorm(5), torch.nn.LayerNorm(5, eps=1e-6)
    weight, bias = random(5, seed=1), random(5, seed=2)
    ours.scale[...], ours.bias[...] = jnp.asarray(weight), jnp.asarray(bias)
    theirs.weight.data, theirs.bias.data = map(torch.from_numpy, (weight, bias))
    x = 100 + random(2, 3, 4, 5, seed=3)  # where a hasty variance would be wrong
    found = ours(FeatureMap(jnp.asarray(x))).values
    expected = theirs(torch.from_numpy(x)).detach()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (silu, torch.nn.functional.silu),
        (hard_swish, torch.nn.functional.hardswish),
        (gelu, torch.nn.functional.gelu),
        (sigmoid, torch.sigmoid),
        (hard_sigmoid, torch.nn.functional.hardsigmoid),
    ],
)
def test_smooth_activations_equal_torch(ours, theirs):
    x = np.linspace(-9, 9, 1001, dtype=np.float32).reshape(1, 7, 11, 13)
    found = ours(FeatureMap(jnp.asarray(x))).values
    np.testing.assert_allclose(found, theirs(torch.from_numpy(x)), rtol=0, atol=2e-6)


class TestConv:
    @pytest.mark.first_cases(12)
    @pytest.mark.parametrize(
        ("kernel_size", "padding"),
        [
            (1, "symmetric"),
            (3, "symmetric"),
            (7, "symmetric"),
            (3, "same"),
            (5, "same"),
        ],
    )
    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("size", SIZES)
    def test_equals_torch(self, kernel_size, padding, stride, size):
        layer = conv(kernel_size, stride, padding)
        x = random(2, *size, 3)
        expected = to_nhwc(torch_conv(layer)(to_nchw(x))) + np.arange(5)
        result = layer(FeatureMap(jnp.asarray(x))).values
        # Measured: at most 3.8e-6.
        np.testing.assert_allclose(result, expected, rtol=0, atol=5e-6)

    @pytest.mark.parametrize(
        ("padding", "expected"),
        [
            # 1  2  3  4  5  6
            # 7  8  9 10 11 12
            # 13 14 15 16 17 18
            # The first: 1 + 2 + 7 + 8; the last: 10 + 11 + 12 + 16 + 17 + 18.
            ("symmetric", [[18, 36, 48], [42, 72, 84]]),
            # Six columns have no zero before them. The first: 1 + 2 + 3 + 7 + 8 + 9;
            # the last: 11 + 12 + 17 + 18.
            ("same", [[30, 42, 34], [66, 78, 58]]),
        ],
    )
    def test_by_hand(self, padding, expected):
        layer = Conv(
            1,
            1,
            3,
            stride=2,
            padding=padding,
            kernel_init=nnx.initializers.ones,
            dtype=jnp.float32,
            rngs=nnx.Rngs(0),
        )
        x = jnp.arange(1.0, 19.0).reshape(1, 3, 6, 1)
        result = layer(FeatureMap(x)).values
        assert result[0, :, :, 0].tolist() == expected

    def test_without_bias(self):
        layer = conv(3, use_bias=False)
        assert layer.bias is None
        zeros = FeatureMap(jnp.zeros((1, 4, 6, 3)))
        assert not layer(zeros).values.any()

    def test_computes_in_its_dtype(self):
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


class TestDepthwiseConv:
    @pytest.mark.parametrize("padding", ["symmetric", "same"])
    @pytest.mark.parametrize("kernel_size", [3, 5])
    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("size", SIZES)
    def test_equals_torch(self, kernel_size, stride, size, padding):
        layer = depthwise(kernel_size, stride, padding)
        x = random(2, *size, 3)
        expected = to_nhwc(torch_conv(layer)(to_nchw(x)))
        result = jax.jit(layer)(FeatureMap(jnp.asarray(x))).values
        # Measured: at most 2.4e-7.
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)

    @pytest.mark.first_cases(3)
    @pytest.mark.parametrize("padding", ["symmetric", "same"])
    @pytest.mark.parametrize("kernel_size", [3, 5])
    @pytest.mark.parametrize("stride", [1, 2])
    def test_gradients_equal_torch(self, kernel_size, stride, padding):
        layer = depthwise(kernel_size, stride, padding)
        theirs = torch_conv(layer)
        x = random(2, 9, 14, 3)
        their_x = to_nchw(x).requires_grad_()
        output = theirs(their_x)
        weights = random(*to_nhwc(output).shape, seed=1)
        (output * to_nchw(weights)).sum().backward()

        graph, state = nnx.split(layer)

        def total(state: nnx.State, x: jax.Array) -> jax.Array:
            return (nnx.merge(graph, state)(FeatureMap(x)).values * weights).sum()

        of_state, of_x = jax.jit(jax.grad(total, argnums=(0, 1)))(state, jnp.asarray(x))
        pairs = (
            (of_state["kernel"][...], theirs.weight.grad.permute(2, 3, 1, 0)),
            (of_x, to_nhwc(their_x.grad)),
        )
        for ours, expected in pairs:
            # Measured: at most 3.2e-7 of the largest.
            tolerance = 1e-6 * float(abs(expected).max())
            np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance)


class TestMaxPool:
    @pytest.mark.parametrize(("window", "stride"), [(3, 2), (5, 1)])
    @pytest.mark.parametrize("size", SIZES)
    def test_equals_torch(self, window, stride, size):
        x = random(2, *size, 3)
        expected = torch.nn.functional.max_pool2d(
            to_nchw(x), window, stride, window // 2
        )
        result = max_pool(FeatureMap(jnp.asarray(x)), window, stride).values
        np.testing.assert_array_equal(result, to_nhwc(expected))

    @pytest.mark.first_cases(1)
    @pytest.mark.parametrize(("window", "stride"), [(3, 2), (5, 1)])
    def test_gradient_equals_torch(self, window, stride):
        # Many equal values: whole numbers, which are added without rounding.
        shape = (2, 9, 14, 3)
        random_numbers = np.random.default_rng(0)
        x = random_numbers.integers(-2, 3, shape).astype(np.float32)
        their_x = to_nchw(x).requires_grad_()
        pooled = torch.nn.functional.max_pool2d(their_x, window, stride, window // 2)
        weights = random_numbers.integers(1, 99, to_nhwc(pooled).shape)
        weights = weights.astype(np.float32)
        (pooled * to_nchw(weights)).sum().backward()

        def total(x: jax.Array) -> jax.Array:
            return (max_pool(FeatureMap(x), window, stride).values * weights).sum()

        gradient = jax.grad(total)(jnp.asarray(x))
        np.testing.assert_array_equal(gradient, to_nhwc(their_x.grad))

    def test_padding_never_wins(self):
        x = jnp.array([[-3.0, -1.0, -2.0], [-5.0, -4.0, -6.0]])[None, :, :, None]
        result = max_pool(FeatureMap(x), 3, 2).values
        assert result[0, :, :, 0].tolist() == [[-1, -1]]


# Narrow, flat and tiny; odd and even lengths mixed along both axes.
PADDED_SIZES = [(12, 5), (7, 17), (1, 2)]
BUCKET = (12, 17)
LAYERS = {
    **{
        f"conv{kernel_size}_stride{stride}_{padding}": conv(
            kernel_size, stride, padding
        )
        for kernel_size in (1, 3, 5, 7)
        for stride in (1, 2)
        for padding in ("symmetric", "same")
    },
    "depthwise3": depthwise(3),
    "depthwise3_stride2": depthwise(3, 2),
    **{
        f"{make.__name__}{kernel_size}_stride2_same": make(kernel_size, 2, "same")
        for make in (conv, depthwise)
        for kernel_size in (3, 5)
    },
    "patches4": Conv(
        3,
        5,
        4,
        stride=4,
        use_bias=True,
        padding="after",
        kernel_init=nnx.initializers.normal(1.0),
        dtype=jnp.float32,
        rngs=nnx.Rngs(0),
    ),
    "mean_pool": mean_pool,
    "layer_norm": LayerNorm(3),
    "gate": ChannelGate(
        3,
        2,
        GateForm(lambda before, inside: 2, relu, sigmoid),
        dtype=jnp.float32,
        rngs=nnx.Rngs(0),
    ),
    "max_pool3_stride2": lambda x: max_pool(x, 3, 2),
    "max_pool5": lambda x: max_pool(x, 5),
    "relu": relu,
    "relu6": relu6,
    "sum": lambda x: x + relu(x),
    "batch_norm": nnx.view(BatchNorm(3, rngs=nnx.Rngs(0)), use_running_average=True),
    "down_and_up": lambda x: resize_like(max_pool(x, 3, 2), x, "align_corners"),
}


@pytest.mark.first_cases(8)
@pytest.mark.parametrize("name", LAYERS)
def test_a_padded_picture_gives_what_it_gives_alone(name):
    layer = jax.jit(LAYERS[name])
    images = [random(1, *size, 3, seed=i) for i, size in enumerate(PADDED_SIZES)]
    result = layer(bucketed(images, BUCKET))
    for i, image in enumerate(images):
        alone = layer(FeatureMap(jnp.asarray(image))).values
        # Measured: at most 3.1e-7.
        assert_equal_inside(result, i, alone, tolerance=1e-6)


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
        expected = self.torch_layer().eval()(to_nchw(x))
        layer = nnx.view(self.layer(), use_running_average=True)
        result = layer(FeatureMap(jnp.asarray(x))).values
        np.testing.assert_allclose(result, to_nhwc(expected), rtol=0, atol=2e-6)

    def test_training_equals_torch_but_for_the_unbiased_variance(self):
        x = random(2, 3, 5, self.CHANNELS) * 3 + 1
        theirs, ours = self.torch_layer().train(), self.layer()
        expected = theirs(to_nchw(x))
        view = nnx.view(ours, use_running_average=False)
        result = view(FeatureMap(jnp.asarray(x))).values
        np.testing.assert_allclose(result, to_nhwc(expected), rtol=0, atol=5e-6)

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
