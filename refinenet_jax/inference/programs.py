"""A network as one program that other programs run: from pixels to classes.

A program takes pictures [b,H,W,C] of the network's kind, such as uint8 [b,H,W,3] RGB, and
gives uint8 [b,H,W] class ids, for any b at one H and W. Normalisation and resizing are in it, the weights are its constants.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import export

from refinenet_jax.data.picture_kind import RGB, PictureKind
from refinenet_jax.inference.protocol import Shape
from refinenet_jax.models import FeatureMap, RefineNet, in_inference
from refinenet_jax.models.resize import resize

Program = Callable[[jax.Array], jax.Array]
# A program in another runtime: pictures [b,H,W,C] → uint8 [b,H,W].
Runner = Callable[[np.ndarray], np.ndarray]

_PLATFORMS = ("cpu", "cuda", "tpu")


def whole_program(network: RefineNet) -> Program:
    """What `Segmenter.predict` computes of images that are not padded."""
    view = in_inference(network)

    def program(image: jax.Array) -> jax.Array:
        logits = view.forward(FeatureMap(view.normalize(image)))
        _, height, width, _ = image.shape
        enlarged = resize(logits, (height, width), None, "bilinear").values
        return jnp.argmax(enlarged, axis=-1).astype(jnp.uint8)

    return program


def image_spec(size: Shape, kind: PictureKind = RGB) -> jax.ShapeDtypeStruct:
    """Pictures [batch,H,W,C] of a kind, where the batch may be of any size."""
    height, width = size
    shape = export.symbolic_shape(f"batch, {height}, {width}, {kind.channels}")
    return jax.ShapeDtypeStruct(shape, jnp.dtype(kind.dtype))


def to_stablehlo(program: Program, size: Shape, kind: PictureKind = RGB) -> bytes:
    """The program as `jax.export` writes it, for CPU, GPU and TPU."""
    traced = export.export(jax.jit(program), platforms=_PLATFORMS)
    return bytes(traced(image_spec(size, kind)).serialize())


def load_stablehlo(path: epath.Path) -> Runner:
    """A program from its file, compiled for this machine."""
    call = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
    return lambda images: np.asarray(call(images))
