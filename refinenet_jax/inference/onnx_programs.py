"""Programs in ONNX, through jax2onnx.

jax2onnx asks for an Orbax older than ours, which it needs for none of this: pip would
refuse the two together, so that it is installed by itself and without what it asks for.
"""

import contextlib
import importlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from jax import export, lax
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun

from refinenet_jax.data.picture_kind import RGB, PictureKind
from refinenet_jax.errors import UserError
from refinenet_jax.inference.programs import Program, Runner, image_spec
from refinenet_jax.inference.protocol import Shape

INPUT, OUTPUT = "image", "classes"

# Every operator of ours is in it, and older runtimes know it too.
_OPSET = 18


def check_installed() -> None:
    """Finds what this module needs.

    Raises:
        UserError: a package is missing; the message says how to get it.
    """
    for name in ("onnx", "onnxruntime", "onnx_ir", "jax2onnx"):
        _load(name)


def to_onnx(
    program: Program,
    size: Shape,
    properties: Mapping[str, str],
    kind: PictureKind = RGB,
) -> bytes:
    """The program as an ONNX model with the input "image" and the output "classes".

    properties: text that goes along as the model's metadata_props; kind: of the pictures.
    """
    jax2onnx, onnx = _load("jax2onnx"), _load("onnx")
    # It imports its own examples and tells of packages that only these need.
    logging.getLogger("jax2onnx").setLevel(logging.ERROR)
    spec = image_spec(size, kind)
    # While it traces, jax2onnx replaces functions of JAX and Flax, nnx.Dropout by one
    # that refuses `rngs`. It is shown what JAX has traced before.
    traced = jax.make_jaxpr(program)(spec)
    simplified = jax.make_jaxpr(
        lambda image: _evaluate(traced.jaxpr, traced.consts, [image])[0]
    )(spec)
    run = jaxpr_as_fun(simplified)
    model = jax2onnx.to_onnx(
        lambda image: run(image)[0],
        [spec],
        model_name="refinenet_jax",
        opset=_OPSET,
        input_names=[INPUT],
        output_names=[OUTPUT],
    )
    onnx.helper.set_model_props(model, dict(properties))
    return model.SerializeToString()


def load_onnx(path: epath.Path) -> Runner:
    """A program from its file, in ONNX Runtime on CPU."""
    session = _load("onnxruntime").InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]


def _load(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"config.export.formats has onnx, which needs {name}: "
            "pip install 'refinenet_jax[onnx]', and then "
            "pip install --no-deps jax2onnx==0.17.1"
        ) from error


def _evaluate(
    jaxpr: Jaxpr, constants: Sequence[Any], arguments: Sequence[jax.Array]
) -> list[Any]:
    """Traces a jaxpr anew, without calls, constant parts and lax.pad.

    jax2onnx 0.17.1 fails at lax.pad where the size of the batch is free.
    """
    inputs = [*jaxpr.constvars, *jaxpr.invars]
    values: dict[Var, Any] = dict(zip(inputs, [*constants, *arguments], strict=True))

    def value(atom: Var | Literal) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        operands = [value(atom) for atom in equation.invars]
        parameters = equation.params
        called = parameters.get("jaxpr", parameters.get("call_jaxpr"))
        if equation.primitive.name == "platform_index":
            # ONNX is no platform that JAX knows.
            results: list[Any] = [parameters["platforms"].index(None)]
        elif equation.primitive is lax.cond_p and isinstance(operands[0], int):
            taken = parameters["branches"][operands[0]]
            results = _evaluate(taken.jaxpr, taken.consts, operands[1:])
        elif called is not None:
            results = _evaluate(called.jaxpr, called.consts, operands)
        elif equation.primitive is lax.pad_p:
            x, fill = operands
            results = [_padded(x, fill, parameters["padding_config"])]
        else:
            with _folding(equation, operands):
                found = equation.primitive.bind(*operands, **parameters)
            results = found if equation.primitive.multiple_results else [found]
        values.update(zip(equation.outvars, results, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _folding(
    equation: JaxprEqn, operands: Sequence[Any]
) -> contextlib.AbstractContextManager[None]:
    """Computes at once what depends on no image.

    The time that jax2onnx takes grows with the square of the number of nodes: without
    this, EfficientNet-Lite0 took 70 s instead of 20.
    """
    is_traced = any(isinstance(operand, jax.core.Tracer) for operand in operands)
    results: list[Any] = [variable.aval for variable in equation.outvars]
    is_free = any(export.is_symbolic_dim(n) for x in results for n in x.shape)
    if is_traced or is_free:
        return contextlib.nullcontext()
    return jax.ensure_compile_time_eval()


def _padded(
    x: jax.Array, fill: jax.Array, padding: Sequence[tuple[int, int, int]]
) -> jax.Array:
    """lax.pad(x, fill, padding) without gaps between the values, as concatenations."""
    for axis, (before, after, _) in enumerate(padding):
        first, last = (
            [jnp.full((*x.shape[:axis], length, *x.shape[axis + 1 :]), fill)]
            if length
            else []
            for length in (before, after)
        )
        if first or last:
            x = lax.concatenate([*first, x, *last], axis)
    return x
