import ast
import pathlib
import subprocess
import sys

import pytest

import refinenet_jax.data


def imported_by(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_data_code_imports_neither_jax_nor_tensorflow_nor_the_configuration():
    """Its own statements: grain imports jax for itself."""
    folder = pathlib.Path(refinenet_jax.data.__path__[0])
    files = sorted(folder.rglob("*.py"))
    assert len(files) >= 9
    for path in files:
        for name in imported_by(path):
            assert name.split(".")[0] not in ("jax", "flax", "tensorflow")
            assert not name.startswith("refinenet_jax.config")


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("refinenet_jax.data.transforms", ("jax", "tensorflow", "tensorflow_datasets")),
        ("refinenet_jax.data.pipeline", ("tensorflow",)),
        ("refinenet_jax.data.builders.voc2012", ("tensorflow", "jax")),
        ("refinenet_jax.data.datasets", ("tensorflow", "jax")),
    ],
)
def test_what_an_import_brings_with_it(module, absent):
    program = f"import sys, {module}; print([m for m in {absent} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
