"""What setup.cfg says of the package, against the files that are there."""

import configparser
import importlib
import re
from importlib import metadata
from pathlib import Path

from refinenet_jax.weights.torch import PYPI_FILES

ROOT = Path(__file__).parent.parent
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def lines(section: str, option: str) -> list[str]:
    text = SETUP[section][option]
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def folder_of(package: str) -> Path:
    folders = dict(line.split(" = ") for line in lines("options", "package_dir"))
    return ROOT / folders.get(package, package.replace(".", "/"))


def test_every_folder_with_code_is_a_package():
    files = (ROOT / "refinenet_jax").rglob("*.py")
    folders = {path.parent for path in files} | {ROOT / "configs"}
    packages = lines("options", "packages")
    assert len(packages) == len(set(packages))
    assert {folder_of(package) for package in packages} == folders


def test_every_other_file_is_package_data():
    there = {
        path
        for path in (ROOT / "refinenet_jax").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    packed = {
        path
        for package in SETUP["options.package_data"]
        for pattern in lines("options.package_data", package)
        for path in folder_of(package).glob(pattern)
    }
    assert packed == there


def test_the_console_script_is_there():
    [script] = lines("options.entry_points", "console_scripts")
    name, target = script.split(" = ")
    module, function = target.split(":")
    assert name == "refinenet"
    assert callable(getattr(importlib.import_module(module), function))


def test_every_extra_that_is_told_exists():
    told = {extra for extra, *_ in PYPI_FILES.values()}
    for folder in ("refinenet_jax", "configs", "docs", "launch"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".md", ".sh"):
                text = path.read_text(encoding="utf-8")
                told |= set(re.findall(r"refinenet_jax\[([\w-]+)\]", text))
    assert told <= set(SETUP["options.extras_require"])
    assert {"efficientnet-lite0", "hdf5", "onnx", "torch"} <= told


def test_one_version():
    version = SETUP["metadata"]["version"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {version}\n" in citation
    assert f"\n## {version} " in (ROOT / "CHANGELOG.md").read_text()
    assert metadata.version("refinenet_jax") == version
