"""The mutants of a room as mutmut makes them, and the verdict on each, kept in mutmut's own files beside them.

``python -m tests.mutation.mutants WORKERS`` makes them, in a folder of :func:`tests.mutation.place.prepared`. Verdicts
on functions that did not change since are kept.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path

KILLED, SURVIVED, NO_TESTS, TIMEOUT = 1, 0, 33, 36
_STATUS = {KILLED: "killed", SURVIVED: "survived", NO_TESTS: "no tests", TIMEOUT: "timeout", None: "not checked"}


def statuses(mutants: Path) -> Iterator[tuple[str, str]]:
    """Every mutant of the folder ``mutants``, and what came of it."""
    for file in _files(mutants):
        for mutant, verdict in json.loads(file.read_text())["exit_code_by_key"].items():
            yield mutant, _STATUS[verdict]


def judge(mutants: Path, verdicts: Mapping[str, int]) -> None:
    """Keep ``verdicts``, by mutant."""
    for file in _files(mutants):
        told = json.loads(file.read_text())
        known = told["exit_code_by_key"]
        known |= {mutant: verdicts[mutant] for mutant in known.keys() & verdicts.keys()}
        file.write_text(json.dumps(told, indent=4))


def _files(mutants: Path) -> list[Path]:
    return sorted(mutants.glob("broker/*/*.meta"))


def _make(workers: int) -> None:
    # The first half of ``mutmut run``, which has no command of its own.
    os.environ["MUTANT_UNDER_TEST"] = "mutant_generation"
    from mutmut import __main__ as mutmut

    Path("mutants").mkdir(exist_ok=True)
    with redirect_stdout(io.StringIO()):  # it tells every file
        mutmut.copy_src_dir()
        mutmut.copy_also_copy_files()
        mutmut.setup_source_paths()
        mutmut.create_mutants(workers)


if __name__ == "__main__":
    _make(int(sys.argv[1]))
