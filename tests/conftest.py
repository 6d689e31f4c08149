"""What holds for every test: four devices, no silent broadcasting, no home folder."""

import gc
import os
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator

import pytest

from refinenet_jax import files
from tests.browser import Browser, start_browser

# JAX and TFDS read these when they are imported; programs that a test starts inherit
# them.
# ACCELERATOR, cuda or tpu, is for tests/accelerator_test.py, which compares with a CPU.
_accelerator = os.environ.get("ACCELERATOR", "cpu")
os.environ.setdefault(
    "JAX_PLATFORMS", "cpu" if _accelerator == "cpu" else f"{_accelerator},cpu"
)
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
_tfds_dir = tempfile.TemporaryDirectory(prefix="tfds-", ignore_cleanup_errors=True)
os.environ["TFDS_DATA_DIR"] = _tfds_dir.name
# How long compiling took is kept by the program, not by its tests.
_cache_dir = tempfile.TemporaryDirectory(prefix="cache-", ignore_cleanup_errors=True)
os.environ["XDG_CACHE_HOME"] = _cache_dir.name
# A program is compiled by the first process that needs it, and by no other.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _compiled_dir = tempfile.TemporaryDirectory(
        prefix="compiled-", ignore_cleanup_errors=True
    )
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled_dir.name
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
# A process that compiles hundreds of programs is to give their memory back.
os.environ.setdefault("REFINENET_MALLOC", "default")


@pytest.hookimpl(tryfirst=True)  # before markers choose what runs
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the cases of a test, those beyond `first_cases(n)` are slow."""
    seen: Counter[str] = Counter()
    for item in items:
        if marker := item.get_closest_marker("first_cases"):
            test = item.nodeid.partition("[")[0]
            seen[test] += 1
            if seen[test] > marker.args[0]:
                item.add_marker("slow")


@pytest.fixture(scope="module", autouse=True)
def programs_of_one_module() -> Iterator[None]:
    """Compiled programs are dropped after each file: all together take gigabytes."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    yield from start_browser()


@pytest.fixture(scope="session")
def bucket_root() -> Iterator[str]:
    """A bucket that an emulator on this machine plays."""
    from tests.emulator import start_bucket  # of the extra `test`

    yield from start_bucket()


@pytest.fixture
def bucket(bucket_root):
    """A path in a bucket below which there is nothing yet."""
    return files.path(f"{bucket_root}/{uuid.uuid4()}")
