"""Coloured shapes, generated on the spot: the whole road without a download.

    python -m refinenet_jax.main --config=configs/default.py

A light-weight RefineNet with ResNet-18 from random weights.
"""

from refinenet_jax.config import ConfigDict, default


def get_config(variant: str | None = None) -> ConfigDict:
    """The embedded job; `variant` names another network."""
    config = default()
    if variant:
        config.model.variant = variant
    return config
