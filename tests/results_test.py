"""Every mean IoU of ours that the README names has a receipt, and its page is up to date."""

import importlib.util
import json
import re
import subprocess

import numpy as np
import pytest

from refinenet_jax.errors import UserError
from tests.markdown import ROOT, prose

# A score between 0 and 1; nothing else in the README is written so.
SCORE = re.compile(r"\b0\.\d{2,}\b(?!\.)")


def script(name):
    path = ROOT / "results" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"results_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page():
    return script("page")


def test_the_page_is_made_of_the_receipts(page):
    made = page.page(page.read(), page.read_published())
    assert page.PAGE.read_text() == made, "run python results/page.py"


def test_every_score_of_the_readme_has_a_receipt(page):
    kept = {f"{found['eval']['mean_iou']:.3f}" for found in page.read().values()}
    told = set(SCORE.findall(prose(ROOT / "README.md")))
    assert told
    assert told <= kept, f"no receipt has {sorted(told - kept)}"


def test_rows_of_the_readme_name_the_command_of_their_receipt(page):
    rows = re.findall(
        r"^\|.*\| (0\.\d+) \|(.*)\|$", prose(ROOT / "README.md"), re.MULTILINE
    )
    assert rows
    commands = {
        f"{found['eval']['mean_iou']:.3f}": found["receipt"]["command"]
        for found in page.read().values()
    }
    for score, command in rows:
        for flag in re.findall(r"`(--config=[^`]+)`", command):
            assert flag in commands[score].split()


def test_receipts_are_of_commits_that_are_there(page):
    for name, found in page.read().items():
        commit = found["receipt"]["commit"]
        assert re.fullmatch("[0-9a-f]{40}", commit), name
        assert found["result"]["provenance"]["commit"] == commit
        assert found["eval"]["provenance"]["commit"] == commit
        assert found["eval"]["step"] == found["result"]["step"]


def test_scores_follow_from_the_confusion_matrices(page):
    for found in page.read().values():
        scores = found["eval"]
        matrix = np.array(scores["confusion_matrix"], float)[
            : len(scores["per_class_iou"])
        ]
        right = np.diag(matrix)
        seen = matrix.sum(1) + matrix[:, : len(matrix)].sum(0) - right
        iou = right[seen > 0] / seen[seen > 0]
        assert iou.mean() == pytest.approx(scores["mean_iou"], abs=1e-6)


def test_published_numbers_have_sources(page):
    for row in page.read_published():
        assert row["source"], row
        assert 30 < row["mean_iou"] < 90


@pytest.fixture
def workdir(tmp_path):
    """What a run leaves, with a command as it was started."""
    made_with = {
        "command": "/somewhere/bin/refinenet --config=default 'a b'",
        "commit": "0123456789" * 4,
    }
    for step, score in ((90, 0.25), (100, 0.5)):
        record = {"step": step, "mean_iou": score, "provenance": made_with}
        for path in (tmp_path / "run/eval.json", tmp_path / f"run/eval/{step}.json"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record))
    result = {"step": 100, "provenance": made_with}
    (tmp_path / "run/result.json").write_text(json.dumps(result))
    return tmp_path / "run"


def test_a_receipt_says_what_the_run_left(workdir, tmp_path):
    script("keep").keep(workdir, tmp_path / "kept", "a machine")
    kept = {p.stem: json.loads(p.read_text()) for p in (tmp_path / "kept").iterdir()}
    command = "refinenet --config=default 'a b'"
    assert kept["receipt"] == {
        "command": command,
        "commit": "0123456789" * 4,
        "machine": "a machine",
        "mean_iou_by_step": {"90": 0.25, "100": 0.5},
    }
    assert kept["result"]["provenance"]["command"] == command
    assert kept["eval"]["provenance"]["command"] == command
    assert kept["eval"]["mean_iou"] == 0.5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda result: result["provenance"].update(commit="01-dirty"), "01-dirty"),
        (lambda result: result["provenance"].update(commit=None), "commit None"),
        (lambda result: result.update(step=200), r"eval\.json is of step 100, .* 200"),
    ],
)
def test_what_nobody_can_repeat_is_not_kept(workdir, tmp_path, change, said):
    result = json.loads((workdir / "result.json").read_text())
    change(result)
    (workdir / "result.json").write_text(json.dumps(result))
    with pytest.raises(UserError, match=said):
        script("keep").keep(workdir, tmp_path / "kept", "a machine")
    assert not (tmp_path / "kept").exists()


def test_a_run_that_is_not_through_is_not_kept(workdir, tmp_path):
    (workdir / "result.json").unlink()
    with pytest.raises(UserError, match=r"result\.json is not there"):
        script("keep").keep(workdir, tmp_path / "kept", "a machine")


def test_receipts_name_no_folder_of_a_machine():
    tracked = subprocess.run(
        ["git", "grep", "-lE", "/(home|root|work|tmp|Users)/", "--", "results"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tracked.stdout == ""
