"""Writes the logits of the PyTorch reference: python -m tests.golden.make_golden.

They let the networks be checked where there is no torch.
"""

from pathlib import Path

import numpy as np
import torch

from tests.golden.weights import NUM_CLASSES, VARIANTS, picture, weights
from tests.torch_reference import reference, to_nchw, to_nhwc


@torch.no_grad()
def golden(variant: str) -> np.ndarray:
    """Logits of the picture, float32 [1,25,33,NUM_CLASSES]."""
    network = reference(variant, NUM_CLASSES).to_empty(device="cpu").eval()
    shapes = {key: tuple(t.shape) for key, t in network.state_dict().items()}
    made = {key: torch.tensor(value) for key, value in weights(shapes).items()}
    missing, unexpected = network.load_state_dict(made, strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    return to_nhwc(network(to_nchw(picture())))


def main() -> None:
    for variant in VARIANTS:
        logits = golden(variant)
        assert np.isfinite(logits).all()
        np.savez(Path(__file__).with_name(f"{variant}.npz"), logits=logits)


if __name__ == "__main__":
    main()
