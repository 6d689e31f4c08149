"""RefineNet semantic segmentation in JAX and Flax."""

from typing import TYPE_CHECKING, Any

__all__ = ["Segmenter"]

if TYPE_CHECKING:
    from refinenet_jax.segmenter import Segmenter


def __getattr__(name: str) -> Any:
    # Imported on first use: a data worker that imports a transform needs no jax.
    if name == "Segmenter":
        from refinenet_jax.segmenter import Segmenter

        return Segmenter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
