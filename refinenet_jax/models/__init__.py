"""The networks: RefineNet, what describes one, and what it is built from.

Each name below has an example in its docstring; that of `RefineNet` comes first.
"""

from refinenet_jax.models.architecture import CASCADES, Architecture
from refinenet_jax.models.backbones import (
    BACKBONES,
    VARIANTS,
    Backbone,
    BackboneModule,
    add_backbone,
)
from refinenet_jax.models.blocks import (
    FULL,
    LIGHT_WEIGHT,
    LIGHT_WEIGHT_MOBILE,
    DecoderKind,
)
from refinenet_jax.models.layers import FeatureMap
from refinenet_jax.models.leaves import count_parameters
from refinenet_jax.models.refinenet import (
    RefineNet,
    abstract_network,
    in_inference,
    in_training,
)

__all__ = [
    "BACKBONES",
    "CASCADES",
    "FULL",
    "LIGHT_WEIGHT",
    "LIGHT_WEIGHT_MOBILE",
    "VARIANTS",
    "Architecture",
    "Backbone",
    "BackboneModule",
    "DecoderKind",
    "FeatureMap",
    "RefineNet",
    "abstract_network",
    "add_backbone",
    "count_parameters",
    "in_inference",
    "in_training",
]
