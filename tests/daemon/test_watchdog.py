"""Ticks that have stopped: nothing is granted, somebody hears of it, and they come back by themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from broker.daemon.watchdog import Watchdog
from tests.api.served import ANALYST, Served, ask, reason, serve, start_task
from tests.api.test_root_refused import metric
from tests.clock import Clocks
from tests.patience import becomes_true, eventually


def test_it_restarts_after_its_patience_and_then_again() -> None:
    """F49: patience is 5 s; 6 s of silence are a restart, and 6 s more another."""
    now, restarts = [0.0], []
    dog = Watchdog(lambda: now[0], 5.0, lambda: restarts.append(now[0]))
    for moment, ticks in ((4.0, True), (9.0, False), (9.5, False), (14.5, False), (15.0, True), (20.0, False)):
        now[0] = moment
        dog.look()
        if ticks:
            dog.ticked()
    assert (restarts, dog.restarts) == ([9.5, 15.0], 2)


def test_a_machine_that_stood_still_is_no_silence() -> None:
    """F49: after twenty seconds without the processor the ticks have their chance first; a little lateness is none."""
    now, restarts = [0.0], []
    dog = Watchdog(lambda: now[0], 5.0, lambda: restarts.append(now[0]))
    now[0] = 21.0
    dog.forgive(20.0)
    dog.look()
    now[0] = 25.5
    dog.forgive(0.5)
    dog.look()
    assert restarts == [25.5]


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
async def served(tmp_path: Path, clocks: Clocks) -> AsyncIterator[Served]:
    async with serve(tmp_path, clock=clocks.kept()) as running:
        running.daemon.gate.max_heartbeat_age = timedelta(seconds=60)
        yield running


async def refused(served: Served, task: str, request: str) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub(ANALYST).RequestCredential(ask(task, request))
    return reason(caught.value)[1]


def lose_timer(scheduler: AsyncIOScheduler) -> None:
    """Its wake-up is gone: it ticks no more and says nothing."""
    scheduler._stop_timer()


def set_back(scheduler: AsyncIOScheduler) -> None:
    """What a wall clock that is set back by an hour does to it: everything it plans is an hour away."""
    for job in scheduler.get_jobs():
        job.modify(next_run_time=job.next_run_time + timedelta(hours=1))


@pytest.mark.parametrize("stop", [lose_timer, set_back])
async def test_a_scheduler_that_ticks_no_more(
    served: Served, clocks: Clocks, stop: Callable[[AsyncIOScheduler], None]
) -> None:
    """F49, F39: APScheduler plans by the wall clock, and by one timer; revocation must not depend on either."""
    daemon = served.daemon
    task = await start_task(served.stub(ANALYST))
    lost = daemon._ticks.scheduler
    stop(lost)
    await becomes_true(lambda: not lost._executors["default"]._pending_futures)  # a tick under way still beats
    clocks.slept = timedelta(seconds=61)  # of silence, by broker time
    assert await refused(served, task, "r1") == "REVOKER_STALLED"
    assert "the revoker has not run lately" in daemon._problems()[0]
    assert await metric(served, "broker_revoker_stalled ") == "1.0"
    daemon._watchdog._patience = 0.0
    daemon._watchdog.look()
    daemon._watchdog._patience = 3600.0
    assert daemon._ticks.scheduler is not lost

    async def ready() -> bool:
        return daemon._problems() == []

    await eventually(ready)
    assert await metric(served, "broker_revoker_stalled ") == "0.0"
    assert await metric(served, "broker_ticks_restarted_total ") == "1.0"
    assert (await served.stub(ANALYST).RequestCredential(ask(await start_task(served.stub(ANALYST), "t2")))).lease.id


async def test_a_lane_that_hangs_is_named(served: Served, clocks: Clocks) -> None:
    """F49: it was told to look and does not come round; the next time that it does, it is well again."""
    daemon = served.daemon
    task = await start_task(served.stub(ANALYST))
    for _ in range(2):
        daemon._revoker.liveness.asked("openbao-hangs", daemon._clock.now())
    clocks.slept = timedelta(seconds=61)
    assert await refused(served, task, "r1") == "REVOKER_STALLED"

    async def named() -> bool:
        return "of openbao-hangs" in daemon._problems()[0]

    await eventually(named)
    daemon._revoker.liveness.came_round("openbao-hangs")

    async def ready() -> bool:
        return daemon._problems() == []

    await eventually(ready)
