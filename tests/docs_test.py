"""README and docs: their code runs, their commands are understood, their links lead on."""

import contextlib
import importlib.util
import itertools
import json
import re
import runpy
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from refinenet_jax import Segmenter, buckets, processes
from refinenet_jax import main as program
from refinenet_jax.checkpoints.metadata import Metadata
from refinenet_jax.checkpoints.store import Checkpoints
from refinenet_jax.data.datasets import DATASETS
from refinenet_jax.inference import onnx_programs, programs
from refinenet_jax.models import Architecture, abstract_network, add_backbone
from refinenet_jax.models.leaves import split_network, weights_of
from refinenet_jax.planning import apart
from tests.markdown import (
    PAGES,
    ROOT,
    anchors,
    blocks,
    commands,
    links,
    sentences,
)
from tests.restored import restored_tables
from tests.tiny import TINY

NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
WITH_CODE = [n for n, p in zip(NAMES, PAGES, strict=True) if blocks(p, "python")]
# Networks of the pages are smaller here, and compile in a blink.
SMALLER = {
    '"light_resnet18"': '"light_tiny"',
    "num_classes=6), rngs": 'num_classes=6, cascade="single", pooling_stages=1), rngs',
}
SIZE = (64, 96)  # of exported programs, which on the pages is (512, 512)


def named_network():
    """A network that PyTorch has names for, with weights that nothing was compiled for."""
    description = Architecture("light_resnet18", 3, cascade="single", pooling_stages=1)
    network = abstract_network(description)
    rng = np.random.default_rng(0)
    weights = jax.tree.map(
        lambda x: jnp.asarray(rng.uniform(0, 0.1, x.shape), x.dtype),
        weights_of(network),
    )
    nnx.update(network, weights)
    return network


def save_run(folder, network):
    """A workdir that holds the network, untrained."""
    colours = ((0, 0, 0), (9, 9, 9), (99, 9, 9))
    metadata = Metadata(network.architecture, ("a", "b", "c"), colours)
    with contextlib.closing(Checkpoints(folder, keep_latest=1)) as checkpoints:
        _, *weights = split_network(network)
        checkpoints.save_network(*weights, metadata)


def draw_park(folder):
    """Pictures with masks beside them, in which every third row is of one class."""
    photos = np.random.default_rng(0).integers(0, 256, (8, 60, 90, 3), dtype=np.uint8)
    for number, photo in enumerate(photos):
        split = folder / ("train", "val")[number % 2]
        split.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(split / f"{number}.jpg")
        mask = np.arange(60, dtype=np.uint8)[:, None].repeat(90, 1) % 3
        Image.fromarray(mask).save(split / f"{number}_mask.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a reader is: a workdir, an exported program, pictures, the pages' files."""
    folder = tmp_path_factory.mktemp("reader")
    network = named_network()
    save_run(folder / "runs" / "default", network)
    program = programs.to_stablehlo(programs.whole_program(network), SIZE)
    (folder / "network.stablehlo").write_bytes(program)
    Image.new("RGB", (90, 60), (200, 90, 30)).save(folder / "photo.jpg")
    draw_park(folder / "park")
    for page in PAGES:
        for block in blocks(page, "python"):
            if block.title:
                (folder / block.title).write_text(block.text)
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    """The reader's folder as the one that things run in."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    # Programs that run once are best compiled in a hurry.
    hurry = "jax_disable_most_optimizations"
    before = jax.config.read(hurry)
    jax.config.update(hurry, True)
    with restored_tables():
        add_backbone("tiny", TINY)
        yield folder
    jax.config.update(hurry, before)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    page = ROOT / name
    for link in links(page):
        if not link.startswith("https://"):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_every_page_is_linked_from_the_readme():
    linked = {link.partition("#")[0] for link in links(ROOT / "README.md")}
    assert set(NAMES) - {"README.md"} <= linked


def test_no_sentence_stands_on_two_pages():
    for one, other in itertools.combinations(PAGES, 2):
        assert not sentences(one) & sentences(other), (one.name, other.name)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize("name", WITH_CODE)
def test_the_code_of_a_page_runs_from_top_to_bottom(name, here):
    names = {"image": np.zeros((1, *SIZE, 3), np.uint8)}
    for number, block in enumerate(blocks(ROOT / name, "python")):
        # What a reader keeps in a file is imported by what follows; ONNX is below.
        if block.title or "onnxruntime" in block.text:
            continue
        text = block.text
        for theirs, ours in SMALLER.items():
            text = text.replace(theirs, ours)
        path = here / f"{Path(name).stem}_{number}.py"
        path.write_text(text)
        names |= runpy.run_path(str(path), names)
    if name == "docs/export.md":
        assert names["classes"].shape == (1, *SIZE)


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("jax2onnx", "onnxruntime"))),
    reason="needs pip install 'refinenet_jax[onnx]' and jax2onnx, see docs/export.md",
)
def test_the_code_for_onnx_runs(here):
    [block] = [b for b in blocks(ROOT / "docs/export.md", "python") if "onnx" in b.text]
    whole = programs.whole_program(named_network())
    Path("network.onnx").write_bytes(onnx_programs.to_onnx(whole, SIZE, {}))
    Path("onnx.py_").write_text(block.text)
    image = np.zeros((1, *SIZE, 3), np.uint8)
    left = runpy.run_path("onnx.py_", {"image": image})
    assert left["classes"].shape == (1, *SIZE)


@pytest.fixture
def start(here, monkeypatch):
    """Takes a command line as far as the mode, which is not run; gives its name."""
    started = []
    monkeypatch.setattr(processes, "joined", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(buckets, "check", lambda _: None)  # nothing is asked of Google
    # The program is not started again for chips that are not there.
    monkeypatch.setattr(apart, "is_apart", lambda: True)
    for mode in program._MODES.values():
        module = types.ModuleType(mode.module)
        module.run = lambda *_, name=mode.module: started.append(name)
        monkeypatch.setitem(sys.modules, f"refinenet_jax.modes.{mode.module}", module)

    def start(*arguments):
        started.clear()
        with restored_tables():
            program.main(["refinenet", *arguments])
        return started

    return start


# Whose commands tests start for real: main_test and those of the modes, and below.
STARTED = {"default", "folder", "park.py", "plain.py"}


def check_program(start, words, comment):
    """A command line of ours: understood, and started by a test or said not to be."""
    modes = start(*words)
    if any(word.startswith("--help") for word in words):
        assert not modes
        return
    [mode] = modes
    [config] = [w.partition("=")[2] for w in words if w.startswith("--config=")]
    if mode != "show" and config.partition(":")[0] not in STARTED:
        assert re.match("not run|run on", comment), (words, "where was it run?")


def check_pip(words):
    """What is installed is this package, with extras that it has, or a tool it names."""
    setup = (ROOT / "setup.cfg").read_text()
    for word in words[2:]:
        for extra in re.findall(r"[\w-]+", word.partition("[")[2]):
            assert f"\n{extra} =\n" in setup, word
        if not word.startswith(("-", ".", "refinenet_jax")):
            assert f"pip install --no-deps {word}" in setup, word


@pytest.mark.parametrize("name", NAMES)
def test_commands_are_understood(name, start):
    for words, comment in commands(ROOT / name):
        match words:
            case ["refinenet", *arguments]:
                check_program(start, arguments, comment)
            case [script, *arguments] if script.startswith("launch/"):
                assert (ROOT / script).stat().st_mode & 0o100
                check_program(start, arguments, comment)
            case ["pip", "install", *_]:
                check_pip(words)
            case ["python", script, *_] if script.startswith(
                ("benchmarks/", "results/")
            ):
                assert (ROOT / script).exists()
            case ["pytest", *arguments]:
                paths = [a for a in arguments if a.startswith("tests/")]
                assert all((ROOT / path).exists() for path in paths)
            case (
                ["python3", "-m", "venv", ".venv"]
                | [".", ".venv/bin/activate"]
                | ["ruff", "check"]
                | ["ruff", "format", "--check"]
                | ["mypy"]
                | [".ci/run"]
                | ["gcloud", "auth", "application-default", "login"]
            ):
                pass
            case _:
                pytest.fail(f"no test knows {words}")


QUICK = (
    "--config.train.num_steps=1",
    "--config.train.batch_size=4",
    "--config.data.crop_size=32",
    "--config.model.cascade=single",
    "--config.model.pooling_stages=1",
    "--config.eval.bootstrap_samples=0",
)


@pytest.mark.slow
def test_a_data_set_of_ones_own_is_checked_and_trained_on(here, capsys):
    program.main(["refinenet", "--config=park.py", "--mode=check_data"])
    report = json.loads((here / "runs/park/check_data/report.json").read_text())
    assert report["findings"] == []
    del DATASETS["park"]  # each command is a process of its own
    workers = "--config.data.num_workers=1"  # to which the builder travels
    program.main(["refinenet", "--config=park.py:light_tiny", workers, *QUICK])
    run = here / "runs/park_light_tiny"
    assert json.loads((run / "result.json").read_text())["step"] == 1
    evaluation = json.loads((run / "eval.json").read_text())
    assert evaluation["ignored_pixels"] == 4 * 20 * 90
    assert list(evaluation["per_class_iou"]) == ["lawn", "tree"]


@pytest.mark.slow
def test_a_backbone_of_ones_own_is_trained_and_opened_again(here):
    program.main(["refinenet", "--config=plain.py", *QUICK])
    segmenter = Segmenter.from_checkpoint("runs/plain")
    assert segmenter.predict("photo.jpg").shape == (60, 90)


@pytest.mark.slow
def test_the_code_is_well_typed_for_a_user(here, monkeypatch):
    """What mypy tells someone who writes the pages' code into a file, strictly."""
    from mypy import api

    parts = [
        b.text for b in blocks(ROOT / "docs/extending.md", "python") if not b.title
    ]
    Path("typed.py").write_text("\n\n".join(parts))
    titled = [b.title for b in blocks(ROOT / "docs/extending.md", "python") if b.title]
    loop = ROOT / "tests/user_loop_test.py"
    monkeypatch.setenv("MYPYPATH", f"{ROOT}:{here}")
    out, err, code = api.run(
        [
            *("--config-file=", "--strict", "--follow-imports=silent"),
            *("--ignore-missing-imports", "--explicit-package-bases"),
            *("typed.py", *titled, str(loop)),
        ]
    )
    assert code == 0, out + err
