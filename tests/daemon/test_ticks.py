"""The ticks: what a stop cuts short is no failure, whether it had begun or not."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from broker.daemon.ticks import Ticks


async def _hangs() -> None:
    await asyncio.Event().wait()


async def _fails() -> None:
    raise ValueError("it went wrong")


def make_due(ticks: Ticks) -> None:
    """In the loop's next round the job becomes a task, which takes its first step in the round after that."""
    ticks.start()
    ticks.scheduler.modify_job("job", next_run_time=datetime.now(UTC))
    asyncio.get_running_loop().call_soon(ticks.scheduler._process_jobs)


async def rounds(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("begun", [False, True], ids=["about to begin", "begun"])
async def test_what_a_stop_cuts_short_is_no_failure(caplog: pytest.LogCaptureFixture, begun: bool) -> None:
    ticks = Ticks([("job", _hangs, 60.0)])
    make_due(ticks)
    await rounds(3 if begun else 0)
    ticks.stop()
    await rounds(5)
    assert caplog.records == []


async def test_a_job_that_fails_is_told(caplog: pytest.LogCaptureFixture) -> None:
    ticks = Ticks([("job", _fails, 60.0)])
    make_due(ticks)
    await rounds(5)
    ticks.stop()
    assert "it went wrong" in caplog.text


async def test_what_was_missed_for_long_is_done_once_and_costs_nothing() -> None:
    """A machine that slept, or a wall clock that jumped: APScheduler asks for each time that was missed."""
    ticks = Ticks([("job", _hangs, 0.25)])
    ticks.start()
    job = ticks.scheduler.get_job("job")
    due, trigger = job.next_run_time, job.trigger
    for late in (timedelta(), timedelta(seconds=0.1), timedelta(seconds=0.25), timedelta(days=1000, seconds=0.3)):
        now = due + late
        following = trigger.get_next_fire_time(due, now)
        assert now < following <= now + timedelta(seconds=0.25)
    # What comes in time is as before: its own step later.
    assert trigger.get_next_fire_time(due, due) == due + timedelta(seconds=0.25)
    assert trigger.get_next_fire_time(due, due - timedelta(seconds=0.1)) == due + timedelta(seconds=0.25)
    ticks.stop()
