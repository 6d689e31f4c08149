"""A trained network as one Python object."""

import collections
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from refinenet_jax.checkpoints.metadata import Metadata
from refinenet_jax.checkpoints.store import open_checkpoints
from refinenet_jax.inference.predictor import Buckets, Predictor
from refinenet_jax.inference.protocol import PLAIN, Protocol, Shape
from refinenet_jax.models import RefineNet, abstract_network, in_inference
from refinenet_jax.models.leaves import split_network
from refinenet_jax.sharding import one_device_layout


class Segmenter:
    """Segments images of any size.

    Attributes:
        model: the network in inference mode, float32 [B,H,W,3] normalised →
            float32 [B,h,w,classes].
        class_names: one for each class id.
        palette: an RGB colour, 0..255, for each class id.
        metadata: what the checkpoint says of the network: architecture, step, ...
    """

    def __init__(
        self,
        model: RefineNet,
        metadata: Metadata,
        protocol: Protocol = PLAIN,
        buckets: Sequence[Shape] = (),
        batch_size: int = 1,
    ):
        self.model = in_inference(model)
        self.metadata = metadata
        self.class_names = metadata.class_names
        self.palette = metadata.palette
        self._predictor = Predictor(
            self.model,
            batch_size=batch_size,
            buckets=Buckets(tuple(buckets), metadata.size_multiple),
            protocol=protocol,
            layout=one_device_layout(),
        )
        _, params, batch_stats = split_network(self.model)
        self._predictor.load(params, batch_stats)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        which: str = "best",
        protocol: Protocol = PLAIN,
        buckets: Sequence[Shape] = (),
        batch_size: int = 1,
    ) -> "Segmenter":
        """Opens the workdir of a run.

        Args:
            path: the workdir, or what mode convert wrote.
            which: "best" by mean IoU, or "latest".
            protocol: scales, flip, windows; see `Protocol`.
            buckets: sizes that images are padded to, see `Buckets`.
            batch_size: images that run together in `predict_batch`.

        Raises:
            UserError: no checkpoint there, or a damaged one.
        """
        with contextlib.closing(open_checkpoints(Path(path))) as checkpoints:
            metadata, params, batch_stats = checkpoints.load_network(
                which, one_device_layout().state
            )
        network = abstract_network(metadata.architecture, jnp.dtype(metadata.dtype))
        structure, _, _ = split_network(network)
        model = structure.merge(params, batch_stats)
        return cls(model, metadata, protocol, buckets, batch_size)

    @property
    def compilations(self) -> int:
        """How many programs were compiled: one for each padded size and kind."""
        return self._predictor.compilations

    def predict(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H,W,3] RGB → uint8 [H,W] class ids.

        Raises:
            ValueError: the image has another dtype or shape.
        """
        return self._predictor.predict([_checked(image)])[0]

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Images of any sizes → their class ids in the same order; see `predict`.

        Those that are padded to the same size run together.

        Raises:
            ValueError: an image has another dtype or shape.
        """
        groups = collections.defaultdict(list)
        for index, image in enumerate(images):
            groups[self._predictor.group(_checked(image).shape[:2])].append(index)
        found: dict[int, np.ndarray] = {}
        for members in groups.values():
            for start in range(0, len(members), self._predictor.batch_size):
                batch = members[start : start + self._predictor.batch_size]
                labels = self._predictor.predict([images[index] for index in batch])
                found |= dict(zip(batch, labels, strict=True))
        return [found[index] for index in range(len(images))]

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H,W,3] RGB → float32 [H,W,classes] that sums to 1 at each pixel.

        Raises:
            ValueError: the image has another dtype or shape.
        """
        return self._predictor.probabilities([_checked(image)])[0]


def _checked(image: Any) -> np.ndarray:
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or 0 in image.shape
    ):
        found = (
            f"{image.dtype} {list(image.shape)}"
            if isinstance(image, np.ndarray)
            else type(image).__name__
        )
        raise ValueError(f"an image is uint8 [H,W,3] RGB, this is {found}")
    return image
