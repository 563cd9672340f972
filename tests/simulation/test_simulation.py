"""The simulation keeps what it promises: it repeats itself, it sees, and the broker's promises hold in it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.house.project import ROOT
from tests.simulation.bugs import BUGS
from tests.simulation.chance import Chance
from tests.simulation.virtual import Stalled, VirtualLoop


def simulation(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def trace(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[0].rpartition("; trace ")[2]


def test_the_promises_hold_for_a_while() -> None:
    assert trace(simulation("--seed", "7", "--steps", "4000"))


@pytest.mark.slow
def test_a_seed_repeats_itself_to_the_last_commit_and_another_seed_is_another_run() -> None:
    first, again, other = (trace(simulation("--seed", seed, "--steps", "12000")) for seed in ("7", "7", "8"))
    assert first == again != other


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found_within_a_million_steps(bug: str) -> None:
    done = simulation("--bug", bug, "--steps", "1000000")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN: " in done.stdout


def test_there_are_a_dozen_of_them_at_least() -> None:
    assert len(BUGS) >= 12


def test_time_passes_only_when_nothing_else_can_happen() -> None:
    loop = VirtualLoop()
    times: list[float] = []

    async def sleeper() -> None:
        loop.call_later(3600, lambda: times.append(loop.time()))
        loop.call_soon(lambda: times.append(loop.time()))
        await loop.create_future()

    with pytest.raises(Stalled):
        loop.run_until_complete(sleeper())
    loop.close()
    assert times == [0, pytest.approx(3600)]


def test_calm_stops_faults_and_nothing_else() -> None:
    chance = Chance(1)
    chance.calm = True
    assert not any(chance.sometimes("fault", 1) for _ in range(10))
    assert chance.often(1)
    assert chance.told["fault"] == 0
