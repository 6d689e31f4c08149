"""How many pixels of each class the examples have, in a file beside them."""

import contextlib
import hashlib
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from etils import epath

from refinenet_jax import files

ClassCounts = npt.NDArray[np.int64]

_DIGEST_SIZE = hashlib.sha256().digest_size


def counts_file(folder: epath.Path, split: str) -> epath.Path:
    """Where the counts of a TFDS split are kept; folder: of the prepared data."""
    return folder / f"class_pixels-{split}.counts"


def parse_counts(texts: Iterable[str]) -> ClassCounts:
    """The feature `class_pixels` of examples → int64 [N,C+1], ignored pixels last."""
    return np.array([[int(word) for word in text.split()] for text in texts], np.int64)


def write_counts(file: epath.Path, counts: npt.NDArray[Any]) -> None:
    """Writes counts, or other numbers of each example, behind their sha256.

    Raises:
      UserError: the folder cannot be written to, or is full.
    """
    content = io.BytesIO()
    np.save(content, counts)
    data = content.getvalue()
    files.write_bytes(file, hashlib.sha256(data).digest() + data)


def read_counts(file: epath.Path) -> npt.NDArray[Any] | None:
    """What `write_counts` wrote; None where it is not there or not whole."""
    with contextlib.suppress(OSError):
        content = file.read_bytes()
        digest, data = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
        if digest == hashlib.sha256(data).digest():
            return np.load(io.BytesIO(data), allow_pickle=False)
    return None


def inverse_frequency(counts: ClassCounts) -> npt.NDArray[np.float64]:
    """A weight of each class with which all of them weigh the same in all examples.

    Args:
      counts: int64 [N,C+1], ignored pixels last.

    Returns:
      float64 [C]: labelled pixels / (classes that occur · pixels of the class); 1 of a
      class that never occurs.
    """
    pixels = counts[:, :-1].sum(0)
    occurs = pixels > 0
    weights = pixels.sum() / (max(occurs.sum(), 1) * np.where(occurs, pixels, 1))
    return np.where(occurs, weights, 1.0)


def median_frequency(counts: ClassCounts) -> npt.NDArray[np.float64]:
    """Weights after Eigen and Fergus 2015, section 6.3.2; as `inverse_frequency`.

    The frequency of a class is its share of the labelled pixels of the examples that
    show it; its weight is the median of all frequencies over its own.
    """
    pixels = counts[:, :-1]
    shown_on = ((pixels > 0) * pixels.sum(1, keepdims=True)).sum(0)
    occurs = shown_on > 0
    if not occurs.any():
        return np.ones(len(occurs))
    frequency = np.where(occurs, pixels.sum(0), 1) / np.where(occurs, shown_on, 1)
    return np.where(occurs, np.median(frequency[occurs]) / frequency, 1.0)
