"""Small programs that are compiled for the devices of this machine."""

import jax
import jax.numpy as jnp

from refinenet_jax.sharding import Layout


def convolve(x, kernel, stride=1):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def loss(kernels, x):
    """Two named layers, of which the first has a bfloat16 convolution."""
    with jax.named_scope("backbones.0"), jax.named_scope("stem"):
        x = jax.nn.relu(convolve(x.astype(jnp.bfloat16), kernels[0]))
    with jax.named_scope("decoder"):
        x = convolve(x.astype(jnp.float32), kernels[1], stride=2)
    return jnp.mean(x**2)


SHAPES = ((3, 3, 8, 16), (3, 3, 16, 24))
DTYPES = (jnp.bfloat16, jnp.float32)


def lowered_gradient(num_devices: int = 1, batch: int = 4) -> jax.stages.Lowered:
    layout = Layout.over(jax.devices()[:num_devices])
    kernels = [
        jax.ShapeDtypeStruct(shape, dtype, sharding=layout.state)
        for shape, dtype in zip(SHAPES, DTYPES, strict=True)
    ]
    x = jax.ShapeDtypeStruct((batch, 32, 32, 8), jnp.float32, sharding=layout.batch)
    return jax.jit(jax.grad(loss), out_shardings=layout.state).lower(kernels, x)
