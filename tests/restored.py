"""Tables that a person may add to, as they were."""

import contextlib
from collections.abc import Iterator

from refinenet_jax.models import BACKBONES, VARIANTS


@contextlib.contextmanager
def restored_tables() -> Iterator[None]:
    """What is added inside is gone afterwards."""
    before = [(table, dict(table)) for table in (BACKBONES, VARIANTS)]
    try:
        yield
    finally:
        for table, rows in before:
            table.clear()
            table.update(rows)
