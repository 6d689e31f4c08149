"""Random transforms of training examples; image and label move together.

Every transform is called with an example and the random generator of that example:
`transform(example, rng) -> example`. An example holds `image`, [H,W,C] of 8 or 16 bits
or float32, and `label`, uint8 [H,W] class ids with 255 = ignore; other entries are passed
through. The given example is left as it is; the arrays of the result are C-contiguous and
of the same dtype.

`transformed` applies several. Those that only move pixels are `Geometric`: in a row they
are composed, and each pixel of what is seen in the end is computed once, as `sampling`
says.
"""

from refinenet_jax.data.transforms.clamp_short_edge import ClampShortEdge
from refinenet_jax.data.transforms.class_centred_crop import ClassCentredCrop
from refinenet_jax.data.transforms.colour_jitter import ColourJitter
from refinenet_jax.data.transforms.example import Example, Transform
from refinenet_jax.data.transforms.geometric import Geometric, transformed
from refinenet_jax.data.transforms.random_blur import RandomBlur
from refinenet_jax.data.transforms.random_crop import RandomCrop
from refinenet_jax.data.transforms.random_flip import RandomFlip
from refinenet_jax.data.transforms.random_rotation import RandomRotation
from refinenet_jax.data.transforms.random_scale import RandomScale
from refinenet_jax.data.transforms.view import View

__all__ = [
    "ClampShortEdge",
    "ClassCentredCrop",
    "ColourJitter",
    "Example",
    "Geometric",
    "RandomBlur",
    "RandomCrop",
    "RandomFlip",
    "RandomRotation",
    "RandomScale",
    "Transform",
    "View",
    "transformed",
]
