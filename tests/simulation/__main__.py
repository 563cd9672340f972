"""``python -m tests.simulation``: world after world from seed after seed, until so many steps or a broken promise."""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections import Counter

import pytest

from tests.simulation.bugs import BUGS
from tests.simulation.bugs_of_restores import OF_RESTORES
from tests.simulation.bugs_of_several import SHOWS_WITH
from tests.simulation.dealing import MOST_REPLICAS, lengths
from tests.simulation.run import Run, simulate
from tests.simulation.sight import not_judged, too_seldom

# A bug that shows when a run ends shows sooner.
STEPS_WITH_A_BUG = 50_000


def main() -> int:
    """0: every promise was kept; 1: one was not, and how to see it again is printed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000, help="about, in all, over as many seeds as it takes")
    parser.add_argument("--seed", type=int, default=1, help="of the first world")
    parser.add_argument("--alone", action="store_true", help="one world, that goes on for so many steps")
    parser.add_argument("--replicas", type=int, choices=range(1, MOST_REPLICAS + 1), help="of all; else by the seed")
    parser.add_argument(
        "--restores",
        choices=("always", "never"),
        help="put old states of the ledger back; else by the seed",
    )
    parser.add_argument("--bug", choices=sorted(BUGS), help="plant this one: it must be found")
    asked = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of texts are walked in the order of their hashes: a seed must repeat that, too.
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    # What is cut off in the middle of an RPC has coroutines that were never awaited.
    warnings.simplefilter("ignore", RuntimeWarning)
    with pytest.MonkeyPatch.context() as patch:
        if asked.bug:
            BUGS[asked.bug](patch)
        # What is rare without restores is rarer with them: while nothing is granted, nothing of it comes about.
        restores = None if asked.bug is None else asked.bug in OF_RESTORES
        restores = restores if asked.restores is None else asked.restores == "always"
        replicas = asked.replicas or SHOWS_WITH.get(asked.bug, 0)
        done, took = _run(asked.seed, _lengths(asked), replicas, restores)
        dealt = not (replicas or asked.restores or asked.bug or asked.alone)
        return _report(done, took, asked, dealt=dealt)


def _lengths(asked: argparse.Namespace) -> list[int]:
    """How long each world goes on."""
    if asked.alone:
        return [asked.steps]
    if asked.bug:
        return [min(STEPS_WITH_A_BUG, asked.steps)] * max(1, asked.steps // STEPS_WITH_A_BUG)
    return lengths(asked.steps)


def _run(seed: int, worlds: list[int], replicas: int, restores: bool | None) -> tuple[list[Run], float]:
    begun, done = time.perf_counter(), list[Run]()
    for ordinal, steps in enumerate(worlds):
        done.append(simulate(seed + ordinal, steps, replicas, restores=restores))
        if done[-1].broken:
            break
    return done, time.perf_counter() - begun


def _report(done: list[Run], took: float, asked: argparse.Namespace, *, dealt: bool) -> int:
    told = sum((run.told for run in done), Counter[str]())
    last, steps = done[-1], sum(run.steps for run in done)
    hours = sum(run.seconds for run in done) / 3600
    print(
        f"{steps} steps in {len(done)} worlds, {hours:.1f} h simulated, {sum(run.attempts for run in done)} credentials"
        f" intended, {told['delivered']} delivered, in {took:.1f} s; trace {last.trace[:16]}"
    )
    if last.broken:
        print(f"BROKEN: {last.broken}")
        of_bug = f" --bug {asked.bug}" if asked.bug else ""
        kind = f"--replicas {last.replicas} --restores {'always' if last.restores else 'never'}"
        print(f"again: python -m tests.simulation --alone --seed {last.seed} --steps {last.asked} {kind}{of_bug}")
        return 1
    for name, count in sorted(told.items()):
        print(f"  {count:6d} {name}")
    if why := not_judged(len(done), asked.steps, dealt=dealt):
        print(f"not judged whether it has seen enough: {why}")
        return 0
    if blind := too_seldom(told, steps):
        print(f"BLIND: too seldom: {', '.join(blind)}")
    return 1 if blind else 0


if __name__ == "__main__":
    sys.exit(main())
