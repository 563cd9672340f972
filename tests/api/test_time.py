"""A brokerd whose machine's clock is set: what it grants, what it revokes, and what its operators see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from broker.api.v1 import admin_service_pb2 as admin
from broker.api.v1 import admin_view_pb2, plan_pb2
from broker.api.v1 import broker_service_pb2 as pb
from broker.clock import KeptClock, SystemClock
from broker.keys import new_key
from tests.api.served import (
    ANALYST,
    Served,
    ask,
    people_changes,
    person,
    private,
    reason,
    resumption,
    serve,
    start_task,
)
from tests.api.test_root_refused import metric
from tests.clock import Clocks
from tests.patience import eventually

HOUR = timedelta(hours=1)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
async def served(tmp_path: Path, clocks: Clocks) -> AsyncIterator[Served]:
    async with serve(tmp_path, clock=clocks.kept()) as running:
        yield running


async def told(served: Served) -> list[str]:
    return [each["type"] for each in await served.audit() if each["type"].startswith("clock.")]


async def test_set_back_nothing_is_granted_and_revocation_goes_on(served: Served, clocks: Clocks) -> None:
    """F39: /readyz, the metrics and the trail tell it; set right again, it is believed after its time."""
    agent = served.stub(ANALYST)
    task = await start_task(agent)
    lease = (await agent.RequestCredential(ask(task))).lease
    clocks.set_by = -HOUR
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await agent.RequestCredential(ask(task, "r2"))
    assert reason(refused.value) == (grpc.StatusCode.UNAVAILABLE, "CLOCK_DOUBTED")
    (problem,) = served.daemon._problems()
    assert "was set back by 3600 s" in problem
    await served.daemon._time.tick()  # type: ignore[union-attr]
    assert await metric(served, "broker_clock_doubted ") == "1.0"
    assert 3590 < float(await metric(served, "broker_clock_behind_seconds ")) < 3610
    # Confirmation is judged by broker time, which has not gone back: it is 30 s, not an hour and 30 s.
    assert served.upstream.alive
    clocks.slept = timedelta(seconds=40)

    async def revoked() -> bool:
        # In the trail, a moment after the upstream: only what is proven is recorded.
        return [each["lease_id"] for each in await served.audit() if each["type"] == "lease.revoked"] == [lease.id]

    await eventually(revoked)
    assert not served.upstream.alive
    clocks.set_by = timedelta(0)
    served.daemon._clock.now()
    assert served.daemon._problems()
    clocks.slept += timedelta(minutes=6)
    await served.daemon._time.tick()  # type: ignore[union-attr]
    assert served.daemon._problems() == []
    assert await metric(served, "broker_clock_doubts_total ") == "1.0"

    async def believed() -> bool:
        return await told(served) == ["clock.doubted", "clock.believed"]

    await eventually(believed)


async def test_set_forwards_what_is_due_by_it_is_revoked_and_nothing_is_granted(tmp_path: Path) -> None:
    """F38: the lease's minute is over by the wall clock, whoever set it."""
    clocks = Clocks()
    async with serve(tmp_path, clock=clocks.kept()) as served:
        agent = served.stub(ANALYST)
        await agent.RequestCredential(ask(await start_task(agent)))
        clocks.set_by = timedelta(minutes=2)

        async def revoked() -> bool:
            return not served.upstream.alive

        await eventually(revoked)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await agent.RequestCredential(ask(await start_task(agent, "t2"), "r2"))
        assert reason(refused.value)[1] == "CLOCK_DOUBTED"


async def test_a_machine_that_slept_revokes_at_once_and_grants(served: Served, clocks: Clocks) -> None:
    """F41: suspended for two minutes; both clocks say so."""
    agent = served.stub(ANALYST)
    task = await start_task(agent)
    await agent.RequestCredential(ask(task))
    clocks.slept = timedelta(minutes=2)

    async def revoked() -> bool:
        return not served.upstream.alive

    await eventually(revoked)
    assert (await agent.RequestCredential(ask(task, "r2"))).lease.id
    assert await told(served) == []


async def test_over_a_restart_time_does_not_go_back(tmp_path: Path) -> None:
    """F39, I8: the clock is set back while the broker is down; the ledger remembers, and nothing is granted."""
    clocks, keys = Clocks(), {"ledger": ["file:keys/kept.key"]}
    private(tmp_path / "keys" / "kept.key", new_key())
    async with serve(tmp_path, clock=clocks.kept(), keys=keys) as served:
        await start_task(served.stub(ANALYST))
        await served.daemon._time.keep()  # type: ignore[union-attr]
        before = served.daemon._clock.now()
    clocks.set_by = -HOUR
    async with serve(tmp_path, clock=clocks.kept(), keys=keys) as served:
        assert served.daemon._clock.now() >= before
        (problem,) = served.daemon._problems()
        assert "behind what the ledger has seen" in problem


async def test_after_a_clock_that_was_hours_fast_things_are_stopped_and_given_back(tmp_path: Path) -> None:
    """Every paper in the world has ended by broker time, brokerd's own too, until it is caught up with: in a day.

    Nothing is granted; but people stop things, agents give back, and a restart is as safe as ever.
    """
    clocks, private_keys = Clocks(), {"ledger": ["file:keys/kept.key"]}
    private(tmp_path / "keys" / "kept.key", new_key())
    changes = {**people_changes(tmp_path), "keys": private_keys}
    async with serve(tmp_path, clock=clocks.kept(), **changes) as served:
        task = await start_task(served.stub(ANALYST))
        for clocks.set_by in (3 * HOUR, timedelta(0)):
            await served.daemon._time.tick()  # type: ignore[union-attr]
        await served.daemon._time.keep()  # type: ignore[union-attr]
        await stops_and_gives_back(served, task, "s1")
        await served.stub(ANALYST).CompleteTask(pb.CompleteTaskRequest(task_id=task))
    async with serve(tmp_path, clock=clocks.kept(), **changes) as served:
        await stops_and_gives_back(served, task, "s2")


async def stops_and_gives_back(served: Served, task: str, name: str) -> None:
    """By new connections, and a login of now."""
    await asyncio.to_thread(served.daemon._identity.look)
    agent = served.stub(ANALYST)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await agent.StartTask(pb.StartTaskRequest(request_id=name, purpose="p"))
    assert reason(refused.value)[1] == "CLOCK_DOUBTED"
    assert (await agent.GetTask(pb.GetTaskRequest(task_id=task))).id == task
    assert served.provider is not None
    served.provider._clock = SystemClock()
    stop = admin.SuspendRequest(request_id=name, kind="KIND_TASK", value=task, reason="it went mad")
    suspension = (await person(served, "sam").Suspend(stop)).suspension
    # What starts anything again, decides, or erases takes a paper of broker time.
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await person(served, "sam").Resume(resumption(served, "sam", suspension.id))
    assert reason(refused.value)[1] == "CLOCK_DOUBTED"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await person(served, "sam").ReloadDeploy(admin_view_pb2.ReloadDeployRequest(request_id=f"r-{name}"))
    assert reason(refused.value)[1] == "CLOCK_DOUBTED"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await agent.ValidatePlan(plan_pb2.ValidatePlanRequest(plan_id="plan-1", digest="0" * 64, verdict=1))
    assert reason(refused.value)[1] == "CLOCK_DOUBTED"


async def test_the_real_clock_begins_undoubted(tmp_path: Path) -> None:
    async with serve(tmp_path, clock=KeptClock()) as served:
        assert served.daemon._problems() == []
