"""Colours that are told apart, also by people who see fewer of them."""

import functools
from collections.abc import Sequence

import numpy as np

from refinenet_jax.labels import VOID_COLOUR

# What people without one kind of cone see, of linear RGB: Machado, Oliveira, Fernandes
# 2009, table 1, severity 1.0.
_VISIONS = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
# OKLab, in which distances are differences as people see them: Ottosson 2020.
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_REFLECTED = 0.02  # of white, by a screen in a room: dark colours come closer
_LEVELS = np.linspace(0, 255, 16).round().astype(int)


@functools.cache
def distinct(num_colours: int) -> tuple[tuple[int, int, int], ...]:
    """Colours of which each is as far as can be from those before it and from void's.

    Black comes first, as in most data sets' own. Distance is the least of those that
    people with all cones and with any two kinds of them see. Fewer colours are the first
    ones of more.
    """
    candidates = np.stack(np.meshgrid(*[_LEVELS] * 3, indexing="ij"), -1).reshape(-1, 3)
    seen = _as_seen(candidates)
    nearest = _distances(seen, _as_seen(np.array([VOID_COLOUR])))[:, 0]
    chosen: list[int] = []
    for _ in range(num_colours):
        best = int(nearest.argmax()) if chosen else 0
        chosen.append(best)
        distances = _distances(seen, seen[:, [best]])[:, 0]
        nearest = np.minimum(nearest, distances)
    return tuple((int(r), int(g), int(b)) for r, g, b in candidates[chosen])


def least_distance(palette: Sequence[Sequence[int]] | np.ndarray) -> float:
    """Of any two colours, 0..255 [N,3], to the eyes that tell them apart worst.

    In OKLab, where black and white are 0.73 apart on such a screen.
    """
    seen = _as_seen(np.asarray(palette))
    distances = _distances(seen, seen)
    return float(distances[~np.eye(len(palette), dtype=bool)].min())


def _as_seen(colours: np.ndarray) -> np.ndarray:
    """[N,3] RGB → float64 [visions,N,3] in OKLab."""
    value = colours / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    linear = _REFLECTED + (1 - _REFLECTED) * linear
    seen = np.stack([linear @ vision.T for vision in _VISIONS.values()]).clip(0, 1)
    return np.cbrt(seen @ _TO_CONES.T) @ _TO_LAB.T


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[visions,N,3] and [visions,M,3] → [N,M], the least of all visions."""
    return np.linalg.norm(first[:, :, None] - second[:, None], axis=-1).min(axis=0)
