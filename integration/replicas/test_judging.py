"""The judge goes by when records were committed, and by nothing that is tolerated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from integration.replicas.judging import Committed, held_against
from tests.kill.test_verdict import DELIVERED, GOOD_LOG, GOOD_TRAIL, NOW

TRAIL = [Committed(each, each.at_ms) for each in GOOD_TRAIL]


@pytest.mark.parametrize("behind", [0, 1, 51, 5_000])
def test_a_daemon_whose_time_is_behind_ends_nothing_early(behind: int) -> None:
    """F40: the login ended at 45 and that was committed at 50, whatever its record says."""
    trail = [replace(each, record=replace(each.record, at_ms=each.at_ms - behind)) for each in TRAIL]
    verdict = held_against(GOOD_LOG, trail, DELIVERED, NOW)
    assert verdict.faults == []
    assert verdict.figures["records behind at most, ms"] == behind


def test_a_daemon_whose_time_is_ahead_is_found_by_a_millisecond() -> None:
    """F40"""
    *before, last = TRAIL
    ahead = replace(last, record=replace(last.record, at_ms=last.at_ms + 1))
    (fault,) = held_against(GOOD_LOG, [*before, ahead], DELIVERED, NOW).faults
    assert fault.startswith(f"early: record {len(TRAIL)} is of 1 ms after")


@pytest.mark.parametrize(("committed", "early"), [(45, False), (44, True)])
def test_an_end_that_was_committed_before_it_happened_is_found_by_a_millisecond(committed: int, early: bool) -> None:
    *before, last = TRAIL
    trail = [*before, Committed(replace(last.record, at_ms=44), committed)]
    assert bool(held_against(GOOD_LOG, trail, DELIVERED, NOW).early) is early
