"""The same work in PyTorch: the reference networks of the tests, at torch's best."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[2]))  # for tests/
from tests.torch_reference import RefineNet, fill, reference

# As torchvision normalises.
_MEAN = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
_STD = torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)


def network(variant: str, num_classes: int, threads: int) -> RefineNet:
    """With random weights, its values laid out as torch is fastest with."""
    torch.set_num_threads(threads)
    filled = reference(variant, num_classes)
    fill(filled, seed=0)
    return filled.to(memory_format=torch.channels_last)


def predicting(
    model: RefineNet, *, compiled: bool
) -> Callable[[np.ndarray], np.ndarray]:
    """uint8 [H,W,3] → class ids uint8 [H,W]."""
    model.eval()
    run = torch.compile(model) if compiled else model

    def predict(image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            scores = run(_pictures(image[None]))
            enlarged = F.interpolate(scores, image.shape[:2], mode="bilinear")
            return enlarged.argmax(1).to(torch.uint8).numpy()[0]

    return predict


def training(
    model: RefineNet, images: np.ndarray, labels: np.ndarray, *, compiled: bool
) -> Callable[[], float]:
    """One step on uint8 [B,H,W,3] and [B,H,W]: forward, backward, clipping, AdamW."""
    model.train()
    run = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    wanted = torch.from_numpy(labels).long()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        scores = run(_pictures(images))
        enlarged = F.interpolate(scores, images.shape[1:3], mode="bilinear")
        loss = F.cross_entropy(enlarged, wanted, ignore_index=255)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss.detach())

    return step


def _pictures(images: np.ndarray) -> torch.Tensor:
    """uint8 [B,H,W,3] → normalised float32 [B,3,H,W], channels last."""
    # Of such an array the permuted view is laid out with its channels last already.
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() - _MEAN) / _STD
