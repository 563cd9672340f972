"""A brokerd whose disk fills up: grants stop, ends go on, operators hear of it, and it comes back."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from broker.api.v1 import broker_service_pb2 as pb
from tests.api.served import ANALYST, Served, ask, reason, serve, start_task
from tests.api.test_root_refused import metric
from tests.patience import eventually


async def fill(served: Served) -> None:
    """Until a commit finds no room: SQLite is told that its file has all the pages it may have."""
    store = served.daemon._store
    ballast = served.daemon._room.ballast
    assert store is not None and ballast is not None
    connection = store._connection
    made = ballast.make_room

    def make_room(error: Exception) -> bool:
        if not made(error):
            return False
        connection.execute("PRAGMA max_page_count = 1000000")
        return True

    ballast.make_room = make_room  # type: ignore[method-assign]
    ballast.free = lambda: 0  # type: ignore[method-assign]
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")


async def told(served: Served) -> list[str]:
    return [each["type"] for each in await served.audit() if each["type"].startswith("ledger.")]


async def test_grants_stop_and_ends_go_on(tmp_path: Path) -> None:
    """F36: the commit that finds no room commits all the same; after it nothing is granted until there is room."""
    async with serve(tmp_path) as served:
        agent = served.stub(ANALYST)
        task = await start_task(agent)
        await agent.RequestCredential(ask(task))
        await fill(served)
        ballast = served.daemon._room.ballast
        assert ballast is not None
        number = 0
        while ballast.held:
            await agent.RequestCredential(ask(task, f"more-{number}", resource="orders"))
            number += 1
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await agent.RequestCredential(ask(task, "last"))
        assert reason(refused.value) == (grpc.StatusCode.UNAVAILABLE, "LEDGER_FULL")
        (problem,) = served.daemon._problems()
        assert "the disk of the ledger is full" in problem
        assert await metric(served, "broker_ledger_full ") == "1.0"
        await agent.CompleteTask(pb.CompleteTaskRequest(task_id=task))

        async def dead() -> bool:
            return not served.upstream.alive

        await eventually(dead)
        look = served.daemon._ticks.scheduler.get_job("room")
        assert look is not None
        assert look.trigger.interval <= timedelta(seconds=5)
        await look.func()

        async def alarm() -> bool:
            return await told(served) == ["ledger.full"]

        await eventually(alarm)
        ballast.free = lambda: 10**9  # type: ignore[method-assign]
        await served.daemon._room.tick()
        assert served.daemon._problems() == []
        assert await told(served) == ["ledger.full", "ledger.room"]
        assert await metric(served, "broker_ledger_full ") == "0.0"
        assert (await agent.RequestCredential(ask(await start_task(agent, "t2"), "again"))).lease.id


async def test_without_room_for_the_ballast_it_starts_and_grants_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F36: what was left due is revoked; the gate is closed from the first moment."""
    monkeypatch.setattr("broker.stores.ballast.Ballast.free", lambda self: 0)
    async with serve(tmp_path) as served:
        (problem,) = served.daemon._problems()
        assert "the disk of the ledger is full" in problem


async def test_none_is_kept_where_none_is_wanted(tmp_path: Path) -> None:
    async with serve(tmp_path, state={"directory": "state", "ballast": "none"}) as served:
        assert served.daemon._problems() == []
        assert not list((tmp_path / "state").glob("*.ballast"))
        assert await metric(served, "broker_ledger_full") == ""
