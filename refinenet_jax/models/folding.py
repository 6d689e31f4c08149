"""A network for inference on CPUs: less arithmetic, the same results but for rounding."""

from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from refinenet_jax.models import winograd
from refinenet_jax.models.layers import BatchNorm, Conv, ConvNorm

_Module = TypeVar("_Module", bound=nnx.Module)


def fold(network: _Module) -> _Module:
    """Changes a network in inference mode; its variables are no longer those it had.

    The scale and shift of every BatchNorm that follows a convolution become part of
    that convolution, and kernels that suit it are transformed for `winograd`. Layers
    that compute in another dtype than float32 stay as they are.

    Example:
        folded = fold(nnx.clone(in_inference(network)))
        logits = folded(folded.normalize(images))

    Returns:
        The network itself.
    """
    for _, module in list(nnx.iter_graph(network)):
        if isinstance(module, ConvNorm) and module.conv.dtype == jnp.float32:
            _fold_norm(module)
    for _, module in nnx.iter_graph(network):
        if isinstance(module, Conv) and module.dtype == jnp.float32:
            _, _, in_channels, out_channels = module.kernel.shape
            if winograd.suits(
                module.kernel_size, module.stride, in_channels, out_channels
            ):
                tiles = winograd.transformed(np.asarray(module.kernel[...]))
                module.tiles = nnx.data(nnx.Param(jnp.asarray(tiles)))
    return network


def _fold_norm(layer: ConvNorm) -> None:
    norm, conv = layer.norm, layer.conv
    if norm is None:
        return
    scale, shift = _scale_and_shift(norm)
    kernel = np.asarray(conv.kernel[...], np.float64)
    # A depthwise kernel is [k,k,1,C], a kernel [k,k,in,C]: the last is the output's.
    folded = jnp.asarray(kernel * scale, jnp.float32)
    if conv.bias is not None:
        shift = shift + np.asarray(conv.bias[...], np.float64) * scale
    conv.kernel = nnx.Param(folded)
    conv.bias = nnx.data(nnx.Param(jnp.asarray(shift, jnp.float32)))
    layer.norm = None


def _scale_and_shift(norm: BatchNorm) -> tuple[np.ndarray, np.ndarray]:
    """float64 [C] each: the norm of x is scale · x + shift."""
    gamma, beta, mean, variance = (
        np.asarray(variable, np.float64)
        for variable in (norm.scale, norm.bias, norm.mean, norm.var)
    )
    with np.errstate(invalid="ignore"):  # what is no number was none in the norm either
        scale = gamma / np.sqrt(variance + norm.epsilon)
    return scale, beta - mean * scale
