import io
import json
import time

import pytest
from rich.console import Console

from refinenet_jax import compiling, files, log


@pytest.fixture
def lines(monkeypatch, tmp_path):
    """What is told, on no terminal, with a cache folder of one's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(log, "console", Console(file=io.StringIO(), width=200))
    return lambda: log.console.file.getvalue().splitlines()


def test_how_long_it_takes_and_took_last_time(lines, monkeypatch):
    monkeypatch.setattr(compiling, "_SILENT", 0.01)
    with compiling.announced():
        for _ in range(2):
            with compiling.told("the step", "of a network"):
                time.sleep(0.1)
        with compiling.told("the step", "of another"):
            time.sleep(0.1)
    assert lines() == [
        "compiling the step for the first time",
        "compiled the step in 0:00",
        "compiling the step: last time 0:00",
        "compiled the step in 0:00, last time 0:00",
        "compiling the step for the first time",
        "compiled the step in 0:00",
    ]
    kept = json.loads((files.user_cache() / "compiling.json").read_text())
    assert [key.partition(" on ")[0] for key in kept] == [
        "the step of a network",
        "the step of another",
    ]
    assert all(0.1 <= seconds < 5 for seconds in kept.values())


def test_what_is_quick_takes_one_line(lines):
    with compiling.announced(), compiling.told("the step"):
        pass
    assert lines() == ["compiled the step in 0:00"]


def test_a_library_says_nothing(lines):
    with compiling.told("the step"):
        pass
    assert lines() == []
    assert not (files.user_cache() / "compiling.json").exists()


def test_what_fails_is_not_kept(lines):
    with (
        pytest.raises(RuntimeError),
        compiling.announced(),
        compiling.told("the step"),
    ):
        raise RuntimeError
    assert lines() == []


@pytest.mark.parametrize("content", ["no json", "[]"])
def test_a_damaged_file_is_written_anew(lines, content):
    file = files.user_cache() / "compiling.json"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    with compiling.announced(), compiling.told("the step"):
        pass
    assert len(json.loads(file.read_text())) == 1


def test_on_a_terminal_a_line_counts(lines, monkeypatch):
    terminal = Console(
        file=io.StringIO(), width=100, force_terminal=True, color_system=None
    )
    monkeypatch.setattr(log, "console", terminal)
    with compiling.announced():
        for _ in range(2):
            with compiling.told("the step"):
                time.sleep(0.15)
    text = terminal.file.getvalue()
    assert "compiling the step 0:00:00" in text
    assert "0:00:00 last time 0:00" in text
