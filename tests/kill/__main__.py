"""``python -m tests.kill --kills N --seed N``: the kill loop; exit code 1, and everything is kept, where anything was broken."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.kill.loop import Plan, run


def main() -> int:
    """Kill, heal, judge, tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--agents", type=int, default=8)
    said = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="jit-broker-kill-"))
    told = run(directory / "run", Plan(said.kills, said.seed, said.agents), lambda line: print(line, flush=True))
    for name, figure in told.figures().items():
        print(f"{name:32}{figure}")
    for fault in told.faults[:50]:
        print(f"BROKEN: {fault}")
    if told.faults:
        print(f"Everything is kept in {directory}.")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
