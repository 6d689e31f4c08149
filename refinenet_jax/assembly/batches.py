"""The batches of a training run, as the config asks for them."""

from collections.abc import Sequence

import grain
import jax
import numpy as np
from ml_collections import ConfigDict

from refinenet_jax import log, memory
from refinenet_jax.assembly.data import (
    JobData,
    class_pixels,
    open_request,
    request_of,
)
from refinenet_jax.data.class_maps import ClassMap, read_class_map
from refinenet_jax.data.datasets import Dataset, lookup
from refinenet_jax.data.decoded import bytes_per_pixel
from refinenet_jax.data.mixture import Ingredient
from refinenet_jax.data.picture_kind import RGB, PictureKind
from refinenet_jax.data.pipeline import train_batches
from refinenet_jax.data.source import Source
from refinenet_jax.data.transforms import (
    ClampShortEdge,
    ClassCentredCrop,
    ColourJitter,
    RandomBlur,
    RandomCrop,
    RandomFlip,
    RandomRotation,
    RandomScale,
    Transform,
)
from refinenet_jax.errors import UserError

_WORKER_BYTES = 150 * 2**20  # of a worker that has only begun; measured


def build_batches(
    config: ConfigDict, data: JobData, mean: Sequence[float]
) -> grain.IterDataset:
    """This process's share of the batches, randomly chosen and transformed.

    Args:
        config: see `refinenet_jax.config`.
        data: with config.data.train_split opened; the classes of all other data sets
            are translated to those of its data set.
        mean: of each channel, around images that are smaller than the crop.

    Raises:
        OutOfMemory: the batches that are read ahead do not fit this host.
        UserError: a data set that is mixed in is not there, or has no class map.
    """
    settings, dataset = config.data, data.dataset
    source = data.sources[settings.train_split]
    _refuse_large_batches(config, source.kind)
    if any(settings.colour_jitter) and source.kind != RGB:
        raise UserError(
            f"config.data.colour_jitter={tuple(settings.colour_jitter)}, but the pictures "
            f"of {dataset.name} have {source.kind}, which has no colours to change: set "
            "config.data.colour_jitter=(0,0,0,0)"
        )
    ingredients = [_ingredient(config, source, settings.weight, None, 0, dataset)]
    for other in settings.mix:
        ingredients.append(_mixed_in(config, other, dataset, source.kind))
    if settings.decoded_cache:
        _refuse_large_cache(config, ingredients)
    return train_batches(
        ingredients,
        _transforms(config, mean, source.kind),
        batch_size=config.train.batch_size // jax.process_count(),
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_workers=settings.num_workers,
        num_threads=settings.num_threads,
    )


def _refuse_large_batches(config: ConfigDict, kind: PictureKind) -> None:
    """Raises OutOfMemory where the batches that are read ahead do not fit this host."""
    data, workers = config.data, max(config.data.num_workers, 1)
    # Each thread works on a batch, and twice as many wait; see data/pipeline.py.
    number = workers * 3 * data.num_threads
    pixels = config.train.batch_size // jax.process_count() * data.crop_size**2
    needed = number * pixels * bytes_per_pixel(kind) + data.num_workers * _WORKER_BYTES
    if needed > memory.host_bytes():
        raise memory.OutOfMemory(
            f"config.train.batch_size={config.train.batch_size} of "
            f"config.data.crop_size={data.crop_size}, read ahead by "
            f"config.data.num_workers={data.num_workers} with "
            f"config.data.num_threads={data.num_threads}, takes about "
            f"{memory.gibibytes(needed)}, and this host has "
            f"{memory.gibibytes(memory.host_bytes())}: lower one of them"
        )


def _refuse_large_cache(config: ConfigDict, ingredients: Sequence[Ingredient]) -> None:
    """Says what the decoded examples take; raises UserError where that is too much."""
    data, workers = config.data, max(config.data.num_workers, 1)
    number = pixels = 0
    for ingredient in ingredients:
        counts = class_pixels(ingredient.source)
        if ingredient.indices is not None:
            counts = counts[ingredient.indices]
        number, pixels = number + len(counts), pixels + int(counts.sum())
    each = "" if workers == 1 else f" in {workers} workers"
    needed = pixels * bytes_per_pixel(ingredients[0].source.kind) * workers
    told = f"{number} decoded examples take {needed / 2**30:.3g} GiB{each}"
    if needed > data.decoded_cache * 2**30:
        raise UserError(
            f"config.data.decoded_cache={data.decoded_cache:g} GiB, but {told}: raise "
            "it, set 0 to decode them every time, or use fewer config.data.num_workers"
        )
    if needed > memory.host_bytes():
        raise memory.OutOfMemory(
            f"{told}, and this host has {memory.gibibytes(memory.host_bytes())}: set "
            "config.data.decoded_cache=0"
        )
    log.say(f"{told} and are kept")


def _transforms(
    config: ConfigDict, mean: Sequence[float], kind: PictureKind = RGB
) -> list[Transform]:
    """In order: sizes first, so that colours are changed on the crop alone."""
    data = config.data
    fill = tuple(x if kind.dtype == "float32" else round(x) for x in mean)
    smallest, largest = data.scale_range
    crop = ClassCentredCrop if data.crop == "class_centred" else RandomCrop
    transforms: list[Transform] = [
        ClampShortEdge(*data.short_edge),
        RandomScale(smallest, largest, data.scale_step),
    ]
    if data.rotation:
        transforms.append(RandomRotation(data.rotation, fill))
    transforms += [
        RandomFlip(data.flip_probability),
        crop(data.crop_size, data.crop_size, fill),
    ]
    if any(data.colour_jitter):
        transforms.append(ColourJitter(*data.colour_jitter))
    if data.blur:
        transforms.append(RandomBlur(data.blur))
    return transforms


def _mixed_in(
    config: ConfigDict, other: dict, dataset: Dataset, kind: PictureKind
) -> Ingredient:
    """A data set of config.data.mix, its classes translated to those of `dataset`."""
    request = request_of(
        config,
        name=other["name"],
        manual_dir=other["manual_dir"],
        channels=kind.channels,
    )
    class_names = lookup(request).class_names
    class_map = None
    if other["class_map"]:
        class_map = read_class_map(other["class_map"], class_names, dataset.class_names)
    elif class_names != dataset.class_names:
        raise UserError(
            f"config.data.mix: {other['name']} has other classes than {dataset.name}: "
            "name a class_map"
        )
    [source] = open_request(request, other["split"])
    if source.kind != kind:
        raise UserError(
            f"config.data.mix: the pictures of {other['name']} have {source.kind}, those "
            f"of {dataset.name} {kind}: mix pictures of one kind"
        )
    return _ingredient(
        config, source, other["weight"], class_map, other["min_pixels"], dataset
    )


def _ingredient(
    config: ConfigDict,
    source: Source,
    weight: float,
    class_map: ClassMap | None,
    min_pixels: int,
    dataset: Dataset,
) -> Ingredient:
    """The images with enough labelled pixels, in the order that the config asks for."""
    balanced = config.data.sampling == "class_balanced"
    present = indices = None
    if balanced or min_pixels:
        counts = class_pixels(source)[:, :-1]
        if class_map is not None:
            indices = np.flatnonzero(counts[:, class_map.listed].sum(1) >= min_pixels)
            counts = class_map.translate_counts(counts, dataset.num_classes)
        elif min_pixels:
            indices = np.flatnonzero(counts.sum(1) >= min_pixels)
        present = counts > 0 if balanced else None
    return Ingredient(
        source=source,
        weight=weight,
        indices=indices,
        present=present,
        images_per_class=config.data.images_per_class,
        class_map=None if class_map is None else class_map.table,
        keep_decoded=config.data.decoded_cache > 0,
    )
