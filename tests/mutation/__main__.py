"""``python -m tests.mutation [room ...]``: change the ideas a little, thousands of times; the tests must notice.

mutmut makes the mutants of a room in ``build/mutation/<room>`` and runs, for each, the tests that come by the changed
line. Whatever lives must be explained in ``survivors.toml``: the exit code is 1 if not.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.mutation.place import DONE, TESTS, prepared
from tests.mutation.survivors import ALIVE, explained, tallies, unexplained

MUTMUT = str(Path(sys.executable).with_name("mutmut"))


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
    run = [MUTMUT, "run", "--max-children", str(workers)]
    # Without names mutmut lets every result stand that it has, and runs the mutants of functions that changed.
    subprocess.run(run, cwd=place, check=True)
    if again and (alive := [mutant for mutant, status in _results(place) if status in ALIVE]):
        subprocess.run([*run, *alive], cwd=place, check=True)


def _judge(rooms: Sequence[str]) -> int:
    found = tallies(result for room in rooms for result in _results(prepared(room, afresh=False)))
    for room, tally in found.items():
        alive = sum(tally.alive.values())
        sys.stdout.write(f"{room}: {tally.killed} mutants killed, {alive} alive, {tally.share:.1%}\n")
    problems = list(unexplained(found, explained()))
    for problem in problems:
        sys.stderr.write(f"{problem}; write the test, or say in tests/mutation/survivors.toml why none can\n")
    return 1 if problems else 0


def _results(place: Path) -> Iterator[tuple[str, str]]:
    command = [MUTMUT, "results", "--all", "true"]
    told = subprocess.run(command, cwd=place, check=True, capture_output=True, text=True).stdout
    for line in told.splitlines():
        mutant, separator, status = line.strip().rpartition(": ")
        if separator and "__mutmut_" in mutant:
            yield mutant, status


if __name__ == "__main__":
    sys.exit(main())
