"""``make load``: a herd of leases is due within one second, over four connectors, and one of them hangs.

Twice on the same ledger: by the three that answer alone, which is what they can do, and then with the fourth, whose
upstream never answers. So the bounds are ratios of two runs on one machine. Exit codes: 0 all bounds kept, 1 not.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from bench.revocations import Job, Measured, MovedClock, measure, prepare
from broker.dev.files import private_directory

LEASES = 100_000
ANSWERING = ("one", "two", "three")
HANGING = "four"
WITHIN = 1_000  # milliseconds in which all of them come due
BOUNDS: Mapping[str, float] = {"time_vs_alone": 1.1, "p99_vs_alone": 2.0, "growth_mib": 200.0, "suspend_s": 1.0}


@dataclass(frozen=True, slots=True)
class Herd:
    """Both runs."""

    leases: int
    alone: Measured
    beside: Measured  # one that hangs

    def figures(self) -> dict[str, float]:
        """What the bounds are on."""
        return {
            "time_vs_alone": self.beside.seconds / self.alone.seconds,
            "p99_vs_alone": self.beside.percentile(99) / self.alone.percentile(99),
            "growth_mib": self.beside.growth_mib,
            "suspend_s": max(self.beside.suspensions),
        }


def run(leases: int, scratch: Path) -> Herd:
    """Fill once, run twice."""
    names, clock = [*ANSWERING, HANGING], MovedClock()
    now = clock.now()
    first = now + timedelta(hours=1)
    due = [first + timedelta(milliseconds=WITHIN * n // 1_000) for n in range(1_000)]
    directory = private_directory(scratch / "filled")
    asyncio.run(prepare(directory / "ledger.sqlite3", names, leases, due, now))
    begin = round(first.timestamp() * 1000)
    expected = sum(1 for number in range(leases) if names[number % len(names)] != HANGING)

    def job(name: str, *, hanging: bool) -> Job:
        copied = private_directory(scratch / name)
        shutil.copyfile(directory / "ledger.sqlite3", copied / "ledger.sqlite3")
        (copied / "ledger.sqlite3").chmod(0o600)
        working = names if hanging else list(ANSWERING)
        hangs = [HANGING] if hanging else []
        return Job(str(copied / "ledger.sqlite3"), names, working, hangs, expected, begin, suspend=True)

    return Herd(leases, measure(job("alone", hanging=False)), measure(job("beside", hanging=True)))


def tell(herd: Herd) -> bool:
    """Print it; whether all bounds are kept."""
    for name, measured in (("three connectors", herd.alone), ("beside one that hangs", herd.beside)):
        cpu = measured.cpu_seconds / measured.ended * 1e6
        print(
            f"{name:24}{measured.ended:>8} ended in {measured.seconds:6.1f} s, {measured.rate:6.0f}/s, {cpu:4.0f} µs of"
            f" processor each, p50 {measured.percentile(50)} ms, p99 {measured.percentile(99)} ms after their time"
        )
    figures = herd.figures()
    for name, value in figures.items():
        print(f"{name:24}{value:8.2f}   <= {BOUNDS[name]}  {'PASS' if value <= BOUNDS[name] else 'FAIL'}")
    return all(value <= BOUNDS[name] for name, value in figures.items())


def main() -> int:
    """Run and tell."""
    parser = argparse.ArgumentParser(prog="python -m bench.herd", description=__doc__)
    parser.add_argument("--leases", type=int, default=LEASES)
    leases = parser.parse_args().leases
    print(f"{leases} leases due within one second, over {len(ANSWERING) + 1} connectors ...", flush=True)
    with tempfile.TemporaryDirectory(prefix="jit-broker-load-") as scratch:
        return 0 if tell(run(leases, Path(scratch))) else 1


if __name__ == "__main__":
    sys.exit(main())
