"""Opens the pickles that torch writes, without running code of theirs.

What stands beside the weights there (arguments, scores, logs) is passed over: its classes
are replaced by ones that do nothing, and are never imported.
"""

import contextlib
import functools
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from refinenet_jax.errors import UserError, listed, unknown
from refinenet_jax.weights import kinds

# Where training scripts put the weights, where there are several sets of them.
_NESTS = (
    "state_dict",
    "model",
    "model_state_dict",
    "model_state",
    "segmenter",
    "network",
    "net",
)
_DEPTH = 2  # levels of containers that are looked into
# What holds plain values, by module. Names of old and new releases.
_PLAIN = {
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("scalar", "_reconstruct"),
    "numpy._core.multiarray": ("scalar", "_reconstruct"),
    "argparse": ("Namespace",),
    "types": ("SimpleNamespace",),
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "pathlib": ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"),
    "pathlib._local": ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"),
    "builtins": (
        *("bool", "dict", "float", "frozenset", "int", "list", "range", "slice"),
        *("str", "tuple"),
    ),
    "torch.torch_version": ("TorchVersion",),
    "mmengine.logging.history_buffer": ("HistoryBuffer",),
}
_PLAIN_DICTS = {
    "collections": ("defaultdict",),
    "easydict": ("EasyDict",),
    "yacs.config": ("CfgNode",),
    "mmengine.config.config": ("ConfigDict",),
    "lightning.fabric.utilities.data": ("AttributeDict",),
    "lightning_fabric.utilities.data": ("AttributeDict",),
    "pytorch_lightning.utilities.parsing": ("AttributeDict",),
}
_PLAIN_LISTS = {"collections": ("deque",)}


def read_pickle(
    here: epath.Path, name: str, choice: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The weights in a file that torch.save wrote, and other sets of weights beside them.

    Args:
        here: on disk.
        name: how to call it in messages.
        choice: which set of weights, "" for the usual one.

    Raises:
        UserError: it is no such file, is cut short, would run code, or holds no weights
            that NumPy can hold.
    """
    import torch

    kinds.refuse_other_archives(here, name)
    try:
        # Opened here, for torch goes by the names of files.
        with _standing_in(), here.open("rb") as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # many kinds
        raise UserError(f"{name} {_fault(error)}") from error
    found = dict(_sets_of_weights(content))
    chosen = _chosen(found, name, choice)
    tensors = {key: _array(key, value, name) for key, value in found[chosen].items()}
    return tensors, tuple(other for other in found if other not in ("", chosen))


def not_numbers(name: str, key: str, form: str) -> UserError:
    """The error for a tensor that cannot be had as an array."""
    return UserError(
        f"{name}: {key} is stored as {form}, which is not read here: save it as a dense "
        "tensor of 16 or 32-bit floating-point numbers"
    )


class _PassedOver:
    """Stands for an object that is not needed, whatever it is made of."""

    def __new__(cls, *_: Any) -> Any:
        return object.__new__(cls)

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, _: Any) -> None:
        pass


class _AsDict:
    """Stands for a dict of another class; of an OrderedDict torch allows all it needs."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()


class _AsList:
    """Stands for a list of another class."""

    def __new__(cls, *_: Any) -> Any:
        return []


@functools.cache
def _stand_ins() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """A class for each name in the tables; torch knows it by module and name."""
    return [
        type(name, (kind,), {"__module__": module, "__qualname__": name})
        for kind, table in (
            (_PassedOver, _PLAIN),
            (_AsDict, _PLAIN_DICTS),
            (_AsList, _PLAIN_LISTS),
        )
        for module, names in table.items()
        for name in names
    ]


@contextlib.contextmanager
def _standing_in() -> Iterator[None]:
    import torch

    with torch.serialization.safe_globals(_stand_ins()):
        yield


def _fault(error: Exception) -> str:
    """What is wrong with a pickle. Torch's own text advises to run its code."""
    culprit = re.search(r"GLOBAL (\S+)", str(error))
    if culprit:
        return (
            f"holds {culprit[1]}, which may run code when it is opened, and is refused: "
            "ask its author for tensors alone (torch.save of a state_dict, or "
            ".safetensors)"
        )
    return "is no PyTorch checkpoint or is cut short: fetch it again"


def _sets_of_weights(
    content: Any, prefix: str = "", depth: int = _DEPTH
) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Every innermost container that holds tensors, by name; "" for the content itself."""
    if not isinstance(content, Mapping):
        return
    inner = [
        found
        for key, value in content.items()
        if depth and isinstance(key, str)
        for found in _sets_of_weights(value, f"{prefix}.{key}".lstrip("."), depth - 1)
    ]
    if inner:
        yield from inner
    elif any(map(_is_weight, content.values())):
        yield prefix, content


def _is_weight(value: Any) -> bool:
    """Not the counters, scores and random states that stand among other things."""
    import torch

    return (
        isinstance(value, torch.Tensor)
        and value.ndim > 0
        and (value.is_floating_point() or value.is_complex() or value.is_quantized)
    )


def _chosen(found: Mapping[str, Any], name: str, choice: str) -> str:
    """Which of the sets is taken."""
    if choice:
        if choice not in found:
            if len(found) < 2:
                raise UserError(
                    f"{name}#{choice}: the file holds one set of weights: leave "
                    f"#{choice} away"
                )
            raise unknown(f"{name}#{choice}", choice, found)
        return choice
    if not found:
        raise UserError(
            f"{name} holds no weights: save what the network's state_dict() gives"
        )
    if len(found) == 1:
        return next(iter(found))
    usual = [nest for nest in _NESTS if nest in found]
    if not usual:
        raise UserError(
            f"{name} holds several sets of weights, {listed(list(found), 6)}: name one, "
            f"such as {name}#{next(iter(found))}"
        )
    return usual[0]


def _array(key: Any, value: Any, name: str) -> np.ndarray:
    """A tensor of a checkpoint; bfloat16 stays what it is."""
    import torch

    if not isinstance(key, str):
        raise UserError(
            f"{name}: its weights are numbered ({key}), not named: save what the "
            "network's state_dict() gives"
        )
    if not isinstance(value, torch.Tensor):
        raise UserError(
            f"{name}: {key} is no tensor, as the other weights are: save what the "
            "network's state_dict() gives, alone"
        )
    dense = value.detach()
    try:
        if dense.layout == torch.strided:
            dense = dense.resolve_conj().resolve_neg()
        if dense.dtype == torch.bfloat16:  # NumPy has none
            return dense.float().numpy().astype(ml_dtypes.bfloat16)
        return dense.numpy()
    except (TypeError, RuntimeError) as error:
        form = f"{value.layout}, {value.dtype}".replace("torch.", "")
        raise not_numbers(name, key, form) from error
