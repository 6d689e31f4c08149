"""Encoded examples that say their number, as sources and ingredients."""

from collections.abc import Sequence

import numpy as np

from refinenet_jax.data.mixture import Ingredient
from refinenet_jax.data.source import Source
from refinenet_jax.pictures import encode

HEIGHT, WIDTH = 12, 16


def record(number: int) -> dict:
    """An example whose label says its number everywhere, 0..199 and again from 0."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    label = np.full((HEIGHT, WIDTH), number % 200, np.uint8)
    return {
        "image": encode(image, "PNG"),
        "label": encode(label, "PNG"),
        "name": f"picture {number}".encode(),
    }


def source(records: Sequence[dict]) -> Source:
    return Source(records, "fingerprint", [], {})


def numbered(first: int, end: int) -> Source:
    return source([record(number) for number in range(first, end)])


def ingredient(examples: Source, **changes) -> Ingredient:
    """All examples, once an epoch, but for the changes."""
    settings = {
        "weight": 1.0,
        "indices": None,
        "present": None,
        "images_per_class": 100,
        "class_map": None,
    }
    return Ingredient(examples, **settings | changes)
