"""Whatever is given, the program answers in one line, in a minute."""

import dataclasses
import faulthandler

import pytest

from tests.bad_inputs import TABLE, Place, answer_to, make_place

_LONGEST = 60  # seconds


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    return make_place(tmp_path_factory.mktemp("bad"))


@pytest.fixture(autouse=True)
def nothing_hangs():
    # A thread of its own, and not Python's, ends what waits without end.
    faulthandler.dump_traceback_later(2 * _LONGEST, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.mark.first_cases(30)
@pytest.mark.parametrize("name", TABLE)
def test_bad_input_is_one_line_and_exit_code_2(name, place, tmp_path):
    answer = answer_to(name, dataclasses.replace(place, root=tmp_path))
    assert answer.code == 2, answer.err
    assert answer.err.startswith("error: ")
    assert len(answer.err.strip().splitlines()) == 1
    assert TABLE[name][1] in answer.err
    assert answer.seconds < _LONGEST
