import random
import signal

import pytest

from tests.chaos.kill import Kill, finish, random_kill, survive, survive_alone


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The digest of the state that every run must end with."""
    return finish(tmp_path_factory.mktemp("chaos") / "undisturbed")


@pytest.mark.slow  # each part of it starts the program
def test_ended_while_evaluating_and_killed_while_saving(undisturbed, tmp_path):
    kills = [
        Kill("evaluating", 0.2, signal.SIGTERM),
        Kill("saving", 0.0, signal.SIGKILL),
    ]
    told, found = survive(tmp_path / "run", kills)
    assert found == undisturbed
    assert told.startswith("SIGTERM evaluating+0.2s → 75; SIGKILL saving+0.0s → -9")


@pytest.mark.slow  # starts the program again and again
@pytest.mark.parametrize("seed", range(2))
def test_any_run_survives(undisturbed, seed, tmp_path):
    chance = random.Random(seed)
    kills = [random_kill(chance) for _ in range(3)]
    told, found = survive(tmp_path / "run", kills)
    assert found == undisturbed, told


@pytest.mark.slow  # both processes compile, and 30 s pass until one is missed
@pytest.mark.parametrize(("victim", "after"), [(0, 1), (1, 2)])
def test_of_two_processes_one_is_killed(victim, after, tmp_path):
    kill = Kill("evaluating", 0.3, signal.SIGKILL, victim)
    told = survive_alone(tmp_path / "run", kill, processes_after=after)
    assert "the other → 75" in told
