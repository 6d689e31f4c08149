"""What training reads: the examples of one or several sources in one endless order.

Data workers import this module, so nothing here imports jax.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, SupportsIndex

import grain
import numpy as np
import numpy.typing as npt

from refinenet_jax.data.decoded import DecodedSource
from refinenet_jax.data.images import EncodedImage, decode_label, decode_picture
from refinenet_jax.data.picture_kind import RGB, PictureKind
from refinenet_jax.data.sampling import ClassBalancedOrder
from refinenet_jax.data.source import Source
from refinenet_jax.data.transforms import Example
from refinenet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Ingredient:
    """A source of examples, and how much and which of it a mixture takes.

    Attributes:
      source: the examples; see `datasets.open_split`.
      weight: share of the mixture's examples, relative to the other ingredients; above
        0. Ratios to the smallest weight hold to 1 part in 100.
      indices: int [K], numbers of the only examples to take; None for all.
      present: bool [N,C], which class each of the source's N examples holds, for a
        class-balanced order (see `sampling`); None for each example once an epoch.
      images_per_class: examples of each class in an epoch of that order; at least 1.
      class_map: uint8 [256], class id of the source -> class id of the mixture, with
        255 -> 255; None for the ids as they are.
      keep_decoded: whether examples are decoded once and kept in memory, see `decoded`.
    """

    source: Source
    weight: float = 1.0
    indices: npt.NDArray[np.integer] | None = None
    present: npt.NDArray[np.bool_] | None = None
    images_per_class: int = 100
    class_map: npt.NDArray[np.uint8] | None = None
    keep_decoded: bool = False


def mixed_examples(ingredients: Sequence[Ingredient], seed: int) -> grain.MapDataset:
    """Examples of all ingredients in one endless order with random access.

    The label is decoded, the image an `EncodedImage`: how much of its detail is wanted
    is known behind the transforms.

    Which ingredient a position takes from depends on the weights alone; the shares hold
    in every stretch of the order. Each ingredient walks through its own epochs, at its
    own pace and with its own random numbers.

    Args:
      ingredients: at least one.
      seed: of all orders, 0 <= seed < 2**32; also of random maps behind the mixture.

    Raises:
      UserError: an ingredient has no example or no weight, or its class-balanced order
        finds no class.
    """
    parts = [
        _endless(ingredient, _ingredient_seed(seed, number))
        for number, ingredient in enumerate(ingredients)
    ]
    if len(parts) == 1:
        return parts[0]
    return grain.MapDataset.mix(
        parts, [ingredient.weight for ingredient in ingredients]
    )


def decode(record: Example, kind: PictureKind = RGB) -> Example:
    """What a `Source` gives -> image [H,W,C] of its kind, label uint8 [H,W], name.

    Raises:
      UserError: one of the two cannot be decoded.
    """
    name = record["name"]
    return {
        "image": decode_picture(record["image"], name, kind),
        "label": decode_label(record["label"], name),
        "name": name,
    }


def _ingredient_seed(seed: int, number: int) -> int:
    # The first one's is the seed itself, so that a mixture of one is no mixture.
    if number == 0:
        return seed
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


def _endless(ingredient: Ingredient, seed: int) -> grain.MapDataset:
    """Examples of one ingredient, epoch after epoch."""
    if not ingredient.weight > 0:
        raise UserError(
            f"a data set is mixed in with weight {ingredient.weight:g}: choose one above "
            "0 or leave the data set out"
        )
    if len(ingredient.source) == 0:
        raise UserError("the training split has no image; choose another split")
    source: Source | DecodedSource = ingredient.source
    if ingredient.keep_decoded:
        source = DecodedSource(ingredient.source)
    examples = _Taken(source, ingredient.indices)
    if len(examples) == 0:
        raise UserError(
            f"none of the {len(ingredient.source)} images of a training split is kept: "
            "lower min_pixels in config.data.mix or leave that data set out"
        )
    decoder = _LabelDecoder(ingredient.source.kind, ingredient.class_map)
    if ingredient.present is None:
        ordered = grain.MapDataset.source(examples).seed(seed).shuffle().repeat()
        return ordered.map(decoder)
    present = ingredient.present
    if ingredient.indices is not None:
        present = present[ingredient.indices]
    order = ClassBalancedOrder(present, ingredient.images_per_class, seed)
    return grain.MapDataset.source(_Ordered(examples, order)).seed(seed).map(decoder)


@dataclasses.dataclass(frozen=True)
class _Taken:
    """The examples of a source that an ingredient takes."""

    source: Source | DecodedSource
    indices: npt.NDArray[np.integer] | None

    def __len__(self) -> int:
        return len(self.source) if self.indices is None else len(self.indices)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        if self.indices is not None:
            index = int(self.indices[index])
        return self.source[index]


@dataclasses.dataclass(frozen=True)
class _Ordered:
    """Examples in an endless order."""

    examples: _Taken
    order: ClassBalancedOrder

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return self.examples[self.order[position]]


@dataclasses.dataclass(frozen=True)
class _LabelDecoder:
    """Decodes the label and names its classes as the mixture does."""

    kind: PictureKind
    class_map: npt.NDArray[np.uint8] | None

    def __call__(self, record: Example) -> Example:
        image, label, name = record["image"], record["label"], record["name"]
        if isinstance(image, bytes):  # else it is kept decoded
            image = EncodedImage(image, name, self.kind)
            label = decode_label(label, name)
        if self.class_map is not None:
            label = self.class_map[label]
        return {"image": image, "label": label, "name": name}
