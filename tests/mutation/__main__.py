"""``python -m tests.mutation [room ...]``: change the ideas a little, thousands of times; the tests must notice.

mutmut makes the mutants of a room in ``build/mutation/<room>``; the tests that come by the changed function are run for
each (:mod:`tests.mutation.session`). Whatever lives must be explained in ``survivors.toml``: the exit code is 1 if not.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

from tests.mutation.mutants import statuses
from tests.mutation.place import DONE, TESTS, prepared, session
from tests.mutation.survivors import explained, tallies, unexplained


def main() -> int:
    """Mutate the named rooms, or those that are done, and tell what lives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="mutants at a time (default: 2)")
    parser.add_argument("--again", action="store_true", help="only what lived last time, or changed since")
    parser.add_argument("rooms", nargs="*", metavar="room", help=f"of {', '.join(TESTS)} (default: {' '.join(DONE)})")
    arguments = parser.parse_args()
    if unknown := set(arguments.rooms) - set(TESTS):
        parser.error(f"no such room: {', '.join(sorted(unknown))}; it is one of {', '.join(TESTS)}")
    rooms = arguments.rooms or DONE
    for room in rooms:
        _mutate(room, arguments.workers, again=arguments.again)
    return _judge(rooms)


def _mutate(room: str, workers: int, *, again: bool) -> None:
    place = prepared(room, afresh=not again)
    python = {**os.environ, "PYTHONPATH": "."}
    subprocess.run([sys.executable, "-m", "tests.mutation.mutants", str(workers)], cwd=place, env=python, check=True)
    alive = ["--mutants-alive"] if again else []
    run = [*session(room), "--mutants-at-a-time", str(workers), *alive]
    # What is imported is imported as it is, before any mutant is chosen.
    python["MUTANT_UNDER_TEST"] = ""
    subprocess.run([sys.executable, "-m", "pytest", *run], cwd=place / "mutants", env=python, check=True)


def _judge(rooms: Sequence[str]) -> int:
    found = tallies(result for room in rooms for result in statuses(prepared(room, afresh=False) / "mutants"))
    for room, tally in found.items():
        alive = sum(tally.alive.values())
        sys.stdout.write(f"{room}: {tally.killed} mutants killed, {alive} alive, {tally.share:.1%}\n")
    problems = list(unexplained(found, explained()))
    for problem in problems:
        sys.stderr.write(f"{problem}; write the test, or say in tests/mutation/survivors.toml why none can\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
