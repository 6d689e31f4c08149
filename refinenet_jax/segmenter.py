"""A trained network as one Python object."""

import collections
import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

import jax.numpy as jnp
import numpy as np
import xxhash
from etils import epath

from refinenet_jax import files, palettes, pictures
from refinenet_jax.checkpoints.metadata import Colour, Metadata
from refinenet_jax.checkpoints.store import open_checkpoints
from refinenet_jax.data.picture_kind import PictureKind
from refinenet_jax.errors import UserError, listed, unknown
from refinenet_jax.inference import large
from refinenet_jax.inference.inputs import Picture, kind_of, pixels_of
from refinenet_jax.inference.predictor import (
    Buckets,
    Group,
    Predictor,
    telling_of_memory,
)
from refinenet_jax.inference.protocol import PLAIN, Protocol, Shape
from refinenet_jax.models import RefineNet, abstract_network, in_inference
from refinenet_jax.models.leaves import named_leaves, split_network, weights_of
from refinenet_jax.sharding import one_device_layout
from refinenet_jax.tuning import keep_compiled_programs
from refinenet_jax.weights import export_weights, load_weights, torch

_Picture = TypeVar("_Picture", bound=Picture)
# Images that are padded to one size → a result for each.
_Run = Callable[[list[np.ndarray]], list[np.ndarray]]

_SUFFIX = ".safetensors"
_DTYPES = ("float32", "bfloat16")


class Segmenter:
    """A trained network that segments pictures of any size.

        from refinenet_jax import Segmenter

        segmenter = Segmenter.from_checkpoint("runs/default")
        labels = segmenter.predict("photo.jpg")  # uint8 [H,W] class ids
        overlay = segmenter.overlay("photo.jpg")  # uint8 [H',W,3] RGB

    `predict`, `probabilities` and `overlay` take one picture, or a list of them for a
    list of results in its order. A picture is a uint8 [H,W,3] RGB array, the path of an
    image file, or a Pillow image; the last two are turned upright as their EXIF
    orientation asks, and grey, transparent and 16-bit ones become 8-bit RGB. For a
    network of other pictures, an array or a file is [H,W,C] of its channels and dtype,
    see `pictures`. Several threads may share one segmenter.

    Attributes:
        model: the network in inference mode, float32 [B,H,W,channels] normalised →
            float32 [B,h,w,classes].
        class_names: one for each class id.
        palette: an RGB colour, 0..255, for each class id.
        metadata: what the checkpoint says of the network: architecture, step, ...
        pictures: channels and dtype of the pictures that the network sees.

    Args:
        model: a network with weights, in any mode.
        metadata: of it.
        protocol: scales, flip, windows; see `Protocol`.
        buckets: sizes that images are padded to, see `Buckets`.
        batch_size: images of a list that run together.
        keep_compiled: compiled programs of this process are kept in the user's cache
            folder, so that the next one starts in seconds; see
            `tuning.keep_compiled_programs`.
    """

    def __init__(
        self,
        model: RefineNet,
        metadata: Metadata,
        *,
        protocol: Protocol = PLAIN,
        buckets: Sequence[Shape] = (),
        batch_size: int = 1,
        keep_compiled: bool = False,
        shown: pictures.Shown = pictures.STRETCHED,
    ):
        if keep_compiled:
            keep_compiled_programs()
        self.model: RefineNet = in_inference(model)
        self.metadata = metadata
        self.class_names: tuple[str, ...] = metadata.class_names
        self.palette: tuple[Colour, ...] = metadata.palette
        self.pictures: PictureKind = kind_of(metadata.architecture)
        self._shown = shown
        self._predictor = self._new_predictor(protocol, buckets, batch_size)
        self._of_windows: dict[int, Predictor] = {}  # by their size

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike[str],
        which: str = "best",
        *,
        dtype: str = "",
        protocol: Protocol = PLAIN,
        buckets: Sequence[Shape] = (),
        batch_size: int = 1,
        keep_compiled: bool = False,
        shown: pictures.Shown = pictures.STRETCHED,
    ) -> "Segmenter":
        """Opens the workdir of a run, or what mode convert wrote.

        Args:
            path: the workdir, or what mode convert wrote; on disk or gs://.
            which: "best" by mean IoU, or "latest".
            dtype: of the arithmetic, "float32" or "bfloat16"; "": as it was trained.
            protocol: see `Segmenter`, as all that follows.
            buckets: likewise.
            batch_size: likewise.
            keep_compiled: likewise.
            shown: likewise.

        Raises:
            UserError: no checkpoint there, or a damaged one; `which` or `dtype` is
                unknown.
        """
        folder = files.path(path)
        if folder.is_file():
            raise UserError(f"{path} is a file: open it with Segmenter.from_weights")
        with contextlib.closing(open_checkpoints(folder)) as checkpoints:
            metadata, params, batch_stats = checkpoints.load_network(
                which, one_device_layout().state
            )
        metadata = _computing_in(dtype, metadata)
        network = abstract_network(metadata.architecture, jnp.dtype(metadata.dtype))
        structure, _, _ = split_network(network)
        return cls(
            structure.merge(params, batch_stats),
            metadata,
            protocol=protocol,
            buckets=buckets,
            batch_size=batch_size,
            keep_compiled=keep_compiled,
            shown=shown,
        )

    @classmethod
    def from_weights(
        cls,
        path: str | os.PathLike[str],
        *,
        dtype: str = "",
        protocol: Protocol = PLAIN,
        buckets: Sequence[Shape] = (),
        batch_size: int = 1,
        keep_compiled: bool = False,
        shown: pictures.Shown = pictures.STRETCHED,
    ) -> "Segmenter":
        """Opens a .safetensors file that `save` or mode export wrote.

        Args:
            path: the file.
            dtype: see `from_checkpoint`.
            protocol: see `Segmenter`, as all that follows.
            buckets: likewise.
            batch_size: likewise.
            keep_compiled: likewise.
            shown: likewise.

        Raises:
            UserError: no such file, a damaged one, or one that does not say what its
                network is; `dtype` is unknown.
        """
        metadata = _computing_in(dtype, _metadata_in(files.path(path)))
        network = abstract_network(metadata.architecture, jnp.dtype(metadata.dtype))
        if not load_weights(network, os.fspath(path)).whole:
            raise UserError(
                f"{path} holds a backbone only, with which nothing can be segmented: "
                "write it anew with --mode=export"
            )
        return cls(
            network,
            metadata,
            protocol=protocol,
            buckets=buckets,
            batch_size=batch_size,
            keep_compiled=keep_compiled,
            shown=shown,
        )

    def __repr__(self) -> str:
        metadata = self.metadata
        names = listed(self.class_names, 3)
        trained = f"step {metadata.step}"
        if metadata.weights is not None:
            trained = f"converted from {metadata.weights['file']}"
        return (
            f"<Segmenter {metadata.architecture.variant} "
            f"of {metadata.dataset or 'an unnamed data set'}, "
            f"{len(self.class_names)} classes ({names}), {trained}>"
        )

    @property
    def compilations(self) -> int:
        """How many programs were compiled: one for each padded size and kind."""
        predictors = (self._predictor, *self._of_windows.values())
        return sum(predictor.compilations for predictor in predictors)

    @overload
    def predict(self, picture: Picture) -> np.ndarray: ...
    @overload
    def predict(self, picture: list[_Picture]) -> list[np.ndarray]: ...
    def predict(self, picture: Any) -> Any:
        """One picture or a list of them → uint8 [H,W] class ids each.

        Raises:
            ValueError: an array has another dtype or shape.
            UserError: a file or a Pillow image cannot be read.
        """
        return self._each(picture, self._predictor.predict)

    @overload
    def probabilities(self, picture: Picture) -> np.ndarray: ...
    @overload
    def probabilities(self, picture: list[_Picture]) -> list[np.ndarray]: ...
    def probabilities(self, picture: Any) -> Any:
        """As `predict` → float32 [H,W,classes] that sums to 1 at each pixel, each."""
        return self._each(picture, self._predictor.probabilities)

    @overload
    def overlay(self, picture: Picture, *, distinct: bool = ...) -> np.ndarray: ...
    @overload
    def overlay(
        self, picture: list[_Picture], *, distinct: bool = ...
    ) -> list[np.ndarray]: ...
    def overlay(self, picture: Any, *, distinct: bool = False) -> Any:
        """As `predict` → uint8 [H',W,3] RGB each: class colours over the picture.

        A legend of the classes that occur stands below.

        Args:
            picture: one, or a list of them.
            distinct: in colours that the colour-blind tell apart as well, with lines
                where classes meet; else in those of `palette`.
        """
        return self._each(picture, functools.partial(self._overlays, distinct))

    def predict_large(
        self,
        picture: Picture,
        target: str | os.PathLike[str],
        *,
        overview: str | os.PathLike[str] = "",
        distinct: bool = False,
        window: int = 1024,
        overlap: float = 1 / 3,
        blend: float = 0.5,
    ) -> None:
        """Class ids of a picture beyond memory, window by window, into a TIFF file.

        A TIFF of RGB is read window by window too, other files are read whole. The
        result is tiled, compressed, in colour and georeferenced as the picture is. The same call
        goes on where one ended that was broken off; docs/large_pictures.md.

        Args:
            picture: as for `predict`.
            target: the file to write; what is not finished is in a folder beside it.
            overview: a JPEG to write as well, picture and classes in less detail; "":
                none.
            distinct: see `overlay`.
            window: edge of the windows in pixels, rounded up to a multiple of 64.
            overlap: share of a window that the next one covers too, rounded likewise.
            blend: share of the overlap in which one takes over from the other; what is
                nearer to their borders counts for nothing.

        Raises:
            UserError: the picture cannot be read, window by window if it is a TIFF, or
                the files cannot be written.
            ValueError: an array has another dtype or shape, or a number cannot be.
        """
        windows = large.Windows.overlapping(window, overlap, blend)
        predictor = self._predictor_of_windows(windows.size)
        file = files.path(target)

        def draw(found: large.Overview) -> None:
            if overview:
                shown = self._drawn(found.image, found.label, distinct, file.stem)
                data = pictures.encode(shown, "JPEG")
                files.write_bytes(files.path(overview), data)

        opening = large.opened(picture, windows.size, self.pictures)
        with opening as (seen, about), telling_of_memory():
            large.predict(
                seen,
                file,
                lambda image: predictor.start_probabilities([image]),
                windows,
                about=[about, self._about(predictor.protocol)],
                palette=self.palette,
                on_overview=draw,
            )

    def save(self, path: str | os.PathLike[str]) -> int:
        """Writes the network into one file, which `from_weights` opens.

        The tensors have the names of the PyTorch ports; the header says all else.

        Args:
            path: ends in .safetensors.

        Returns:
            How many tensors it holds.

        Raises:
            UserError: it has another ending or cannot be written, or the network has a
                backbone of one's own.
        """
        if files.path(path).suffix != _SUFFIX:
            raise UserError(f"{path} must end in {_SUFFIX}")
        leaves = named_leaves(weights_of(self.model))
        tensors = export_weights(
            {name: np.asarray(leaf[...]) for name, leaf in leaves.items()},
            self.metadata.architecture.variant,
        )
        header = {torch.HEADER: json.dumps(self.metadata.to_json())}
        torch.write_safetensors(files.path(path), tensors, header)
        return len(tensors)

    def _new_predictor(
        self, protocol: Protocol, buckets: Sequence[Shape], batch_size: int
    ) -> Predictor:
        predictor = Predictor(
            self.model,
            batch_size=batch_size,
            buckets=Buckets(tuple(buckets), self.metadata.size_multiple),
            protocol=protocol,
            layout=one_device_layout(),
        )
        _, params, batch_stats = split_network(self.model)
        predictor.load(params, batch_stats)
        return predictor

    def _predictor_of_windows(self, size: int) -> Predictor:
        """For windows of large pictures, each of which is predicted as a picture."""
        if size not in self._of_windows:
            protocol = dataclasses.replace(self._predictor.protocol, window=0)
            buckets = ((size, size),)
            self._of_windows[size] = self._new_predictor(protocol, buckets, 1)
        return self._of_windows[size]

    def _about(self, protocol: Protocol) -> Any:
        """What tells one network and its use from another, ready for JSON."""
        digest = xxhash.xxh3_128()
        for name, leaf in named_leaves(weights_of(self.model)).items():
            digest.update(name.encode())
            digest.update(np.asarray(leaf[...]).tobytes())
        architecture = self.metadata.architecture.to_json()
        values = (digest.hexdigest(), architecture, self.metadata.dtype)
        return [*values, protocol.to_json()]

    def _overlays(self, distinct: bool, images: list[np.ndarray]) -> list[np.ndarray]:
        labels = self._predictor.predict(images)
        return [
            self._drawn(image, label, distinct)
            for image, label in zip(images, labels, strict=True)
        ]

    def _drawn(
        self, image: np.ndarray, label: np.ndarray, distinct: bool, heading: str = ""
    ) -> np.ndarray:
        """Class colours over a picture, with a legend below: uint8 [H',W,3] RGB."""
        palette = self.palette
        if distinct:
            palette = palettes.distinct(len(palette))
        mixed = pictures.overlay(
            self._shown.rgb(image), label, palette, outlined=distinct
        )
        names = self.class_names
        return pictures.with_legend(mixed, label, names, palette, heading=heading)

    def _each(self, given: Any, run: _Run) -> Any:
        """The result of one picture, or those of a list of them in its order.

        Those that are padded to the same size run together. No more pictures are held
        than wait for others of their size.
        """
        if not isinstance(given, list):
            return run([pixels_of(given, self.pictures)])[0]
        found: dict[int, np.ndarray] = {}
        waiting: dict[Group, dict[int, np.ndarray]] = collections.defaultdict(dict)

        def run_together(images: dict[int, np.ndarray]) -> None:
            found.update(zip(images, run(list(images.values())), strict=True))

        for index, picture in enumerate(given):
            image = pixels_of(picture, self.pictures)
            group = self._predictor.group(image.shape[:2])
            waiting[group][index] = image
            if len(waiting[group]) == self._predictor.batch_size:
                run_together(waiting.pop(group))
        for images in waiting.values():
            run_together(images)
        return [found[index] for index in range(len(given))]


def _computing_in(dtype: str, metadata: Metadata) -> Metadata:
    if dtype and dtype not in _DTYPES:
        raise unknown(f"dtype={dtype!r}", dtype, _DTYPES)
    return dataclasses.replace(metadata, dtype=dtype or metadata.dtype)


def _metadata_in(path: epath.Path) -> Metadata:
    """What a .safetensors file of ours says of its network."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: open it with Segmenter.from_checkpoint")
    if not path.is_file():
        torch.locate(str(path))  # says what is wrong
    header = torch.read_header(path)
    if torch.HEADER not in header:
        raise UserError(
            f"{path} does not say what its network is, as files of mode export do: "
            f"make a workdir of it with --mode=convert --weights={path}"
        )
    try:
        return Metadata.from_json(json.loads(header[torch.HEADER]))
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path} was written by an earlier version and does not say what its "
            "classes are: write it anew with --mode=export"
        ) from error
