"""Files appear whole or not at all."""

import json
from pathlib import Path
from typing import Any


def write_bytes(path: Path, data: bytes) -> None:
    """Writes beside `path` first, then moves it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)


def write_json(path: Path, value: Any) -> None:
    """As indented JSON; NaN is refused, since readers other than Python's do so."""
    text = json.dumps(value, indent=2, allow_nan=False)
    write_bytes(path, (text + "\n").encode())
