"""Tables that a person may add to, as they were."""

import contextlib
from collections.abc import Iterator
from typing import Any

from refinenet_jax.data.datasets import DATASETS
from refinenet_jax.models import BACKBONES, VARIANTS


@contextlib.contextmanager
def restored_tables() -> Iterator[None]:
    """What is added inside is gone afterwards."""
    tables: tuple[dict[str, Any], ...] = (BACKBONES, VARIANTS, DATASETS)
    before = [(table, dict(table)) for table in tables]
    try:
        yield
    finally:
        for table, rows in before:
            table.clear()
            table.update(rows)
