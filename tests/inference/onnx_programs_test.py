import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from refinenet_jax.inference.onnx_programs import (
    _evaluate,
    _padded,
    load_onnx,
    to_onnx,
)
from refinenet_jax.inference.programs import whole_program
from refinenet_jax.models import RefineNet
from tests.architectures import architecture

needs_onnx = pytest.mark.skipif(
    not all(importlib.util.find_spec(x) for x in ("jax2onnx", "onnxruntime")),
    reason="needs pip install 'refinenet_jax[onnx]', and then "
    "pip install --no-deps jax2onnx==0.17.1",
)
SIZE = (32, 48)


@pytest.mark.parametrize(
    "padding",
    [
        ((0, 0, 0), (0, 0, 0)),
        ((0, 0, 0), (2, 2, 0)),
        ((0, 1, 0), (0, 3, 0)),
        ((4, 0, 0), (1, 2, 0)),
    ],
)
def test_padding_by_concatenation(padding):
    x = jnp.arange(6.0).reshape(2, 3)
    expected = jax.lax.pad(x, -jnp.inf, padding)
    np.testing.assert_array_equal(_padded(x, jnp.float32(-jnp.inf), padding), expected)


def test_a_trace_evaluated_anew_has_no_calls_and_no_constant_parts():
    def program(x):
        weights = jnp.sin(jnp.arange(5.0))[None]
        return jnp.argmax(jax.nn.relu6(jnp.pad(x, 1)) * weights, -1)

    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)), jnp.float32)
    traced = jax.make_jaxpr(program)(x)
    [found] = _evaluate(traced.jaxpr, traced.consts, [x])
    np.testing.assert_array_equal(found, program(x))
    anew = jax.make_jaxpr(lambda x: _evaluate(traced.jaxpr, traced.consts, [x]))(x)
    names = {equation.primitive.name for equation in anew.jaxpr.eqns}
    assert names == {"broadcast_in_dim", "concatenate", "max", "min", "mul", "argmax"}


@needs_onnx
def test_a_program_with_text_in_onnx(tmp_path):
    def program(image):
        bordered = jnp.pad(image.astype(jnp.float32), ((0, 0), (2, 2), (2, 2), (0, 0)))
        inner = bordered[:, 1:-3, 3:-1] * jnp.asarray([1.0, 2.0, 3.0])[None, None, None]
        return jnp.argmax(inner, -1).astype(jnp.uint8)

    path = tmp_path / "program.onnx"
    path.write_bytes(to_onnx(program, SIZE, {"step": "3"}))
    run = load_onnx(path)
    for count in (1, 3):
        images = np.random.default_rng(0).integers(0, 256, (count, *SIZE, 3), np.uint8)
        np.testing.assert_array_equal(run(images), program(images))


@needs_onnx
@pytest.mark.every_network
@pytest.mark.slow  # builds, traces and compiles whole networks
@pytest.mark.parametrize(
    ("variant", "changes"),
    [
        ("light_resnet50", {}),
        ("light_mobilenet_v2", {}),
        ("light_efficientnet_lite0", {}),
        ("light_mobilenet_v3_large", {}),
        ("light_resnet50d", {}),
        ("light_resnext50_32x4d", {}),
        ("light_convnext_tiny", {}),
        ("light_efficientnet_b0", {}),
        ("resnet50", {}),
        (
            "light_mobilenet_v2",
            {
                "input_scales": (1.2, 0.6),
                "cascade": "2_cascaded",
                "pooling": "improved",
                "fusion_resize": "bicubic",
                "void_output": True,
            },
        ),
    ],
)
def test_every_network_in_onnx(variant, changes, tmp_path):
    def create():
        key = jax.random.key(0, impl="rbg")
        described = architecture(variant, **changes)
        return RefineNet(described, rngs=nnx.Rngs(params=key))

    graph, _ = nnx.split(nnx.eval_shape(create))
    network = nnx.merge(graph, jax.jit(lambda: nnx.split(create())[1])())
    program = whole_program(network)
    path = tmp_path / "network.onnx"
    path.write_bytes(to_onnx(program, SIZE, {}))
    images = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), np.uint8)
    agreement = np.mean(load_onnx(path)(images) == jax.jit(program)(images))
    assert agreement > 0.999  # where two classes all but tie
