"""``python -m tests.simulation``: run after run from seed after seed, until so many steps or a broken promise."""

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
from tests.simulation.run import MOST_REPLICAS, Run, simulate

# In a million steps each of these must come about so often, or the run has seen too little of what it is for.
LEAST = 100
SOMETIMES = (
    "killed",
    "stopped for longer than a claim",
    "cut off from the store",
    "cut off from the upstreams",
    "committed and not told",
    "word of a commit lost",
    "failed write",
    "disk full",
    "clock wrong",
    "outage",
    "late create",
    "lost reply",
    "reply that never comes",
    "lost confirmation",
    "granted for longer",
    "lie: revoked, and alive",
    "made after it was swept or given up",
    "swept, and again later",
    "everything suspended",
    "suspended while it was issued",
    "completed while asking",
    "ended by one while another issued it",
    "RequestCredential on two replicas at once",
    "RedeemAccessRequest on two replicas at once",
    "redeemed twice at once",
    "refused: PREVIOUS_ATTEMPT_LIVE",
    "refused: ACCESS_REQUEST_REDEEMED",
    "refused: CLOCK_DOUBTED",
    "refused: COMMIT_UNKNOWN",
    "refused: SELF_APPROVAL",
    "delivered",
)
# The same of what comes about in some runs only, or seldom, much of it because the ledger is put back.
SELDOM = 5
IN_SOME = (
    "ledger put back",
    "ledger put back beneath its brokers",
    "ended because the ledger was another one",
    "recovery entered",
    "recovery released",
    "witness away",
    "a witness has it and does not say so",
    "forgotten by a restore, and alive",
    "forgotten, and found by its mark",
    "refused: RECOVERY_MODE",
    "refused: WITNESS_UNREAD",
    "approval asked for what was handed on",
    "taken over from one that is dead",
    "off until its clock had caught up",
    "waited until its clock was believed",
    "glass broken",
    "an emergency reviewed",
    "refused: BREAK_GLASS_BLOCKED",
    "refused: BREAK_GLASS_RATE",
    "refused: REVIEW_OF_ONES_OWN",
    "glass broken for an agent's task",
    "an emergency ended: EXPIRED",
    "an emergency ended: RELEASED",
    "an emergency ended: SUSPENDED",
)
# Short enough that a failure is quick to repeat, long enough for the rare to meet the rare.
STEPS_OF_A_RUN = 100_000
# A bug that shows when a run ends shows sooner.
STEPS_WITH_A_BUG = 50_000


def main() -> int:
    """0: every promise was kept; 1: one was not, and how to see it again is printed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000, help="in all, over as many seeds as it takes")
    parser.add_argument("--seed", type=int, default=1, help="of the first run")
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
        most = STEPS_WITH_A_BUG if asked.bug else STEPS_OF_A_RUN
        # What is rare without restores is rarer with them: while nothing is granted, nothing of it comes about.
        restores = None if asked.bug is None else asked.bug in OF_RESTORES
        restores = restores if asked.restores is None else asked.restores == "always"
        replicas = asked.replicas or SHOWS_WITH.get(asked.bug, 0)
        return _report(*_run(asked.seed, asked.steps, most, replicas, restores), asked.bug)


def _run(seed: int, steps: int, most: int, replicas: int, restores: bool | None) -> tuple[list[Run], float]:
    begun, done = time.perf_counter(), list[Run]()
    while sum(run.steps for run in done) < steps:
        done.append(simulate(seed + len(done), min(most, steps), replicas, restores=restores))
        if done[-1].broken:
            break
    return done, time.perf_counter() - begun


def _report(done: list[Run], took: float, bug: str | None) -> int:
    told = sum((run.told for run in done), Counter[str]())
    last, steps = done[-1], sum(run.steps for run in done)
    hours = sum(run.seconds for run in done) / 3600
    print(
        f"{steps} steps, {hours:.1f} h simulated, {sum(run.attempts for run in done)} credentials intended,"
        f" {told['delivered']} delivered, in {took:.1f} s; trace {last.trace[:16]}"
    )
    if not last.broken:
        for name, count in sorted(told.items()):
            print(f"  {count:6d} {name}")
        least = dict.fromkeys(SOMETIMES, LEAST) | dict.fromkeys(IN_SOME, SELDOM)
        blind = [name for name, times in least.items() if told[name] < times * steps // 1_000_000]
        if blind:
            print(f"BLIND: too seldom: {', '.join(blind)}")
        return 1 if blind else 0
    print(f"BROKEN: {last.broken}")
    more = f" --replicas {last.replicas} --restores {'always' if last.restores else 'never'}" + (
        f" --bug {bug}" if bug else ""
    )
    print(f"again: python -m tests.simulation --seed {last.seed} --steps {min(last.asked, last.steps)}{more}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
