"""What the tests compare with and did not make: published lists, real pictures.

`facts/README.md` and `pictures/README.md` say where each comes from.
"""

import json
import pathlib
from typing import Any

PICTURES = pathlib.Path(__file__).parent / "pictures"

_FACTS = pathlib.Path(__file__).parent / "facts"


def weight_keys(name: str) -> dict[str, list[int]]:
    """The names of a published checkpoint's tensors, in its order, and their shapes."""
    return _read("weight_keys", name)


def weight_key_lists() -> set[str]:
    """What `weight_keys` knows."""
    return {path.stem for path in (_FACTS / "weight_keys").iterdir()}


def dataset_facts(name: str) -> dict[str, Any]:
    """Classes, colours, sizes of splits and meaning of label values of a data set."""
    return _read("datasets", name)


def photographs() -> list[pathlib.Path]:
    """Photographs of several data sets, of many sizes below 260×260."""
    return sorted((PICTURES / "photographs").iterdir())


def _read(folder: str, name: str) -> dict[str, Any]:
    return json.loads((_FACTS / folder / f"{name}.json").read_text(encoding="utf-8"))
