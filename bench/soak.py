"""``make soak``: brokerd under mixed load for minutes; its memory, files, threads and write-ahead log stay as they are.

Agents ask, confirm and let go, and leases of half a minute run out, so that after a minute as much ends as begins. The
first third is for warming up; what is looked at is by how much each figure grew over the rest, by the line that fits
it best. Exit codes: 0 flat, 1 not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.broker_side import BrokerSide

CALLERS = 16
_ROUND = 20.0  # seconds of load between two looks
# Over the run but for its first third. A ledger keeps what has ended, so its own size is no leak.
BOUNDS: Mapping[str, float] = {"resident_mib": 32.0, "files": 4.0, "threads": 4.0, "wal_mib": 32.0}


@dataclass(frozen=True, slots=True)
class Look:
    """At one moment (seconds)."""

    at: float
    figures: Mapping[str, float]


def growth(looks: Sequence[Look], name: str) -> float:
    """Of one figure, from the first look to the last: least squares."""
    middle_at = sum(each.at for each in looks) / len(looks)
    middle = sum(each.figures[name] for each in looks) / len(looks)
    over = sum((each.at - middle_at) * (each.figures[name] - middle) for each in looks)
    under = sum((each.at - middle_at) ** 2 for each in looks)
    return (looks[-1].at - looks[0].at) * over / under if under else 0.0


def _look(broker: BrokerSide, began: float) -> Look:
    process = psutil.Process(broker.pid)
    wal = broker.ledger.with_name(f"{broker.ledger.name}-wal")
    figures = {
        "resident_mib": process.memory_info().rss / 2**20,
        "files": float(process.num_fds()),
        "threads": float(process.num_threads()),
        "wal_mib": wal.stat().st_size / 2**20 if wal.exists() else 0.0,
    }
    return Look(time.monotonic() - began, figures)


def run(minutes: float, scratch: Path) -> list[Look]:
    """Load, look, load, look."""
    looks: list[Look] = []
    with BrokerSide(scratch / "broker", ttl=30) as broker:
        began = time.monotonic()
        while time.monotonic() - began < 60 * minutes:
            # An agent that had a lease in the round before asks under another SVID of its own in this one.
            measured = broker.measure(CALLERS, warm_up=0.5, duration=_ROUND, confirm=len(looks) % 2 == 0)
            looks.append(_look(broker, began))
            shown = "  ".join(f"{name} {value:.1f}" for name, value in looks[-1].figures.items())
            print(f"{looks[-1].at / 60:5.1f} min  {measured.rate:5.0f} grants/s  {shown}", flush=True)
    return looks


def main() -> int:
    """Run and tell."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    with tempfile.TemporaryDirectory(prefix="jit-broker-soak-") as scratch:
        looks = run(parser.parse_args().minutes, Path(scratch))
    steady = looks[len(looks) // 3 :]
    flat = True
    for name, bound in BOUNDS.items():
        grown = growth(steady, name)
        flat &= grown <= bound
        print(f"{name:16}{grown:+9.2f}   <= {bound:g}  {'PASS' if grown <= bound else 'FAIL'}")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
