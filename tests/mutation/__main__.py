"""``python -m tests.mutation [room ...]``: change the ideas a little, thousands of times; the tests must notice.

mutmut makes the mutants of the rooms (``[tool.mutmut]`` of pyproject.toml) in ``mutants/`` and runs, for each, the
tests that come by the changed line. Whatever lives must be explained in ``survivors.toml``: the exit code is 1 if not.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.mutation.survivors import explained, tallies, unexplained

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("approval", "audit", "identity", "lease", "policy", "scope")
MUTMUT = str(Path(sys.executable).with_name("mutmut"))


def main() -> int:
    """Mutate the named rooms, or all six, and tell what lives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="mutants at a time (default: 2)")
    parser.add_argument("rooms", nargs="*", metavar="room", help=f"of {', '.join(ROOMS)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.rooms) - set(ROOMS):
        parser.error(f"no such room: {', '.join(sorted(unknown))}; it is one of {', '.join(ROOMS)}")
    rooms = arguments.rooms or ROOMS
    names = [f"broker.{room}.*" for room in rooms]
    subprocess.run([MUTMUT, "run", "--max-children", str(arguments.workers), *names], cwd=ROOT, check=True)
    return _judge(rooms)


def _judge(rooms: Sequence[str]) -> int:
    found = tallies((mutant, status) for mutant, status in _results() if mutant.split(".")[1] in rooms)
    for room, tally in found.items():
        alive = sum(tally.alive.values())
        sys.stdout.write(f"{room}: {tally.killed} mutants killed, {alive} alive, {tally.share:.1%}\n")
    problems = list(unexplained(found, explained()))
    for problem in problems:
        sys.stderr.write(f"{problem}; write the test, or say in tests/mutation/survivors.toml why none can\n")
    return 1 if problems else 0


def _results() -> Iterator[tuple[str, str]]:
    command = [MUTMUT, "results", "--all", "true"]
    told = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for line in told.splitlines():
        mutant, separator, status = line.strip().rpartition(": ")
        if separator and "__mutmut_" in mutant:
            yield mutant, status


if __name__ == "__main__":
    sys.exit(main())
