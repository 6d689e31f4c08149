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


def network(variant: str, num_classes: int, threads: int, device: str) -> RefineNet:
    """With random weights on a device, "cpu" or "cuda", laid out as torch is fastest."""
    torch.set_num_threads(threads)
    # TensorFloat-32, which XLA takes for float32 where a GPU has it, and trials.
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    filled = reference(variant, num_classes)
    fill(filled, seed=0)
    return filled.to(device, memory_format=torch.channels_last)


def predicting(
    model: RefineNet, dtype: str, *, compiled: bool
) -> Callable[[np.ndarray], np.ndarray]:
    """uint8 [H,W,3] → class ids uint8 [H,W]; dtype: of the arithmetic."""
    model = model.eval().to(getattr(torch, dtype))
    normalized = _normalizing(model)
    run = model
    if compiled:
        # With a program of CUDA's for the whole network: one launch.
        mode = "reduce-overhead" if _device(model).type == "cuda" else "default"
        run = torch.compile(model, mode=mode)

    def predict(image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            scores = run(normalized(torch.from_numpy(image[None])))
            enlarged = F.interpolate(scores.float(), image.shape[:2], mode="bilinear")
            return enlarged.argmax(1).to(torch.uint8).cpu().numpy()[0]

    return predict


def training(
    model: RefineNet,
    images: np.ndarray,
    labels: np.ndarray,
    dtype: str,
    *,
    compiled: bool,
) -> Callable[[], float]:
    """One step on uint8 [B,H,W,3] and [B,H,W]: forward, backward, clipping, AdamW.

    Parameters are float32; in bfloat16 the forward pass is `torch.autocast`'s.
    """
    model.train()
    normalized, device = _normalizing(model), _device(model)
    run = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=2e-3, weight_decay=1e-4, fused=device.type == "cuda"
    )
    pictures = torch.from_numpy(images).to(device)
    wanted = torch.from_numpy(labels).to(device).long()
    low = torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16")

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with low:
            scores = run(normalized(pictures))
        enlarged = F.interpolate(scores.float(), images.shape[1:3], mode="bilinear")
        loss = F.cross_entropy(enlarged, wanted, ignore_index=255)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss.detach())

    return step


def _device(model: RefineNet) -> torch.device:
    return next(model.parameters()).device


def _normalizing(model: RefineNet) -> Callable[[torch.Tensor], torch.Tensor]:
    """uint8 [B,H,W,3] → normalised [B,3,H,W] as the model takes it, channels last."""
    device, dtype = _device(model), next(model.parameters()).dtype
    mean, std = _MEAN.to(device), _STD.to(device)

    def normalized(images: torch.Tensor) -> torch.Tensor:
        # Of such an array the permuted view is laid out with its channels last already.
        pictures = images.to(device).permute(0, 3, 1, 2).float()
        return ((pictures - mean) / std).to(dtype)

    return normalized
