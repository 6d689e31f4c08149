import itertools

import pytest

from refinenet_jax.inference.finished import Finished

ABOUT = "a" * 32
RECORDS = [b"", b"one", bytes(300), b"two" * 100]


def opened(path, about=ABOUT):
    """What is found there."""
    finished = Finished(path, about)
    found = list(finished)
    assert len(finished) == len(found)
    finished.close()
    return found


@pytest.fixture
def path(tmp_path):
    """A file of all the records."""
    finished = Finished(tmp_path / "tiles", ABOUT)
    for record in RECORDS:
        finished.append(record)
    assert list(finished) == RECORDS
    finished.append(b"last")  # also after it was read
    finished.close()
    return tmp_path / "tiles"


def test_records_are_found_again(path):
    assert opened(path) == [*RECORDS, b"last"]
    assert opened(path, "b" * 32) == []
    assert opened(path) == []


def test_a_process_may_end_at_any_byte(path):
    whole = path.read_bytes()
    records = [*RECORDS, b"last"]
    begin = whole.index(b"\n") + 1
    ends = list(itertools.accumulate((16 + len(r) for r in records), initial=begin))
    assert ends[-1] == len(whole)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        found = records[: sum(end <= length for end in ends[1:])]
        finished = Finished(path, ABOUT)
        assert list(finished) == found
        finished.append(b"more")
        finished.close()
        assert opened(path) == [*found, b"more"]


def test_what_is_damaged_counts_for_nothing(path):
    data = bytearray(path.read_bytes())
    data[data.index(b"two") + 5] ^= 1
    path.write_bytes(data)
    assert opened(path) == RECORDS[:3]
