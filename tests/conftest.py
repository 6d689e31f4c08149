"""What holds for every test: four devices, no silent broadcasting, no home folder."""

import os
import tempfile
from collections.abc import Iterator

import pytest

from tests.browser import Browser, start_browser

# JAX and TFDS read these when they are imported; programs that a test starts inherit
# them.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
_tfds_dir = tempfile.TemporaryDirectory(prefix="tfds-", ignore_cleanup_errors=True)
os.environ["TFDS_DATA_DIR"] = _tfds_dir.name


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    yield from start_browser()
