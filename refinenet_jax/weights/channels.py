"""The first convolution of a network for RGB, for pictures of other channels."""

from typing import Literal

import numpy as np

ChannelRule = Literal["repeat", "first_three"]

_RGB = 3
_FIRST = (".stem.", ".patches.0.")  # in the paths of first convolutions


def of_rgb(leaf: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a kernel [h,w,3,out] is the first one and only its channels differ."""
    return (
        any(part in leaf for part in _FIRST)
        and len(shape) == len(wanted) == 4
        and shape[2] == _RGB != wanted[2]
        and (*shape[:2], shape[3]) == (*wanted[:2], wanted[3])
    )


def adapted(kernel: np.ndarray, channels: int, rule: ChannelRule) -> np.ndarray:
    """Float [h,w,3,out] → [h,w,channels,out].

    "repeat" keeps what a picture with the same value in all channels gives: for one
    channel the sum, for more the three again and again, scaled by 3 / channels.
    "first_three" sees the first three as RGB and nothing of the others.
    """
    if rule == "first_three":
        shown = np.zeros((*kernel.shape[:2], channels, kernel.shape[3]), kernel.dtype)
        taken = min(channels, _RGB)
        shown[:, :, :taken] = kernel[:, :, :taken]
        return shown
    if channels == 1:
        return kernel.sum(2, keepdims=True)
    repeated = kernel[:, :, np.arange(channels) % _RGB]
    return repeated * np.asarray(_RGB / channels, kernel.dtype)


def told(channels: int, rule: ChannelRule) -> str:
    """What became of the kernel, for people."""
    if rule == "first_three":
        done = "its first three channels see the first ones, the others start at 0"
        if channels < _RGB:
            done = f"its first {channels} of three channels are taken"
    elif channels == 1:
        done = "summed over its three channels"
    else:
        done = f"its three channels are repeated, scaled by 3/{channels}"
    return f"the first convolution, of RGB, for {channels} channel{'s' * (channels > 1)}: {done}"
