"""The ticks: what a stop cuts short is no failure, whether it had begun or not."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

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
