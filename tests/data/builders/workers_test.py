"""Records are made by several processes, and stay the same."""

import contextlib
import hashlib
import os
import pathlib
import signal

import pytest

from refinenet_jax.data.builders import workers
from refinenet_jax.data.images import DataError
from refinenet_jax.errors import UserError
from tests import own_folder
from tests.data import ask


def answer(argument: int) -> tuple[int, int]:
    """The square and the process; 100 is an error, 200 the end of the process."""
    print("what is printed is no answer")
    if argument == 100:
        raise DataError("damaged", f"no {argument}")
    if argument == 200:
        os.kill(os.getpid(), signal.SIGKILL)
    return argument**2, os.getpid()


def test_results_in_order_errors_in_their_place_and_an_end_that_is_told():
    with contextlib.closing(workers.Workers(answer, 2)) as pool:
        found = list(pool.map(range(50)))
        assert [square for square, _ in found] == [i**2 for i in range(50)]
        assert len({process for _, process in found} - {os.getpid()}) == 2
        results = pool.map([1, 2, 100, 3])
        assert [next(results)[0], next(results)[0]] == [1, 4]
        with pytest.raises(DataError, match="^no 100$") as caught:
            next(results)
        assert caught.value.kind == "damaged"
        assert next(pool.map([5]))[0] == 25
        with pytest.raises(UserError, match=r"has ended \(code -9\)"):
            list(pool.map([7, 200, 8]))


def test_what_is_asked_for_ahead_has_a_bound():
    taken = []
    with contextlib.closing(workers.Workers(answer, 1)) as pool:
        results = pool.map(taken.append(i) or i for i in range(100))
        next(results)
        assert len(taken) == workers._AHEAD + 1


def test_short_work_starts_no_process(monkeypatch):
    monkeypatch.setattr(workers, "Workers", None)
    with workers.making(lambda argument: argument + 1, 5) as make:
        assert [*make([1, 2]), *make([3, 4, 5])] == [2, 3, 4, 5, 6]


def content(folder: pathlib.Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_any_number_of_processes_prepares_the_same_bytes(tmp_path, monkeypatch):
    own = own_folder.write_folder(tmp_path / "own")
    pictures = sorted((own / "images").rglob("*.*"))
    for damaged in (pictures[0], pictures[-1]):
        damaged.write_bytes(b"\xff\xd8damaged")
    where = {"manual_dir": own, "damaged": "skip"}
    listeners = [ask.Listener(), ask.Listener()]
    alone = ask.prepare(
        "folder", data_dir=tmp_path / "1", listener=listeners[0], **where
    )
    monkeypatch.setattr(workers, "_SECONDS_ALONE", 0.0)
    monkeypatch.setattr(workers, "_SECONDS_LEFT", -1.0)
    monkeypatch.setattr(workers, "number_of_workers", lambda: 2)
    beside = ask.prepare(
        "folder", data_dir=tmp_path / "2", listener=listeners[1], **where
    )
    assert len(beside.info.metadata["left_out"]) == 2
    assert beside.info.metadata["left_out"] == alone.info.metadata["left_out"]
    assert content(tmp_path / "2") == content(tmp_path / "1")
    assert listeners[1].units == listeners[0].units
    assert all(done == total for done, total in listeners[1].units.values())
    with pytest.raises(UserError) as caught:
        ask.prepare("folder", data_dir=tmp_path / "3", manual_dir=own)
    assert "cannot be decoded: it is truncated; mend it, or set" in str(caught.value)
