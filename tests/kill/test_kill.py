"""The real daemon, killed under load: F1 to F5, F14, F42. ``make torture`` does it two thousand times."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kill.loop import Plan, Told, run


def kept(told: Told) -> None:
    """No fault; and the run was one: secrets were delivered, and credentials were made that nobody was given."""
    print(told.figures())
    assert told.faults == []
    assert told.verdict.figures["delivered"] > told.plan.kills
    assert told.verdict.figures["orphans swept"] > 0


@pytest.mark.slow
def test_a_hundred_kills(tmp_path: Path) -> None:
    """F1, F2, F3, F4, F5, F7, F14, F42: nothing leaked, nothing unaudited, never two live, nothing told too early."""
    kept(run(tmp_path / "run", Plan(kills=100, seed=int(os.environ.get("SEED", "1")))))
