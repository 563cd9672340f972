"""brokerd as it is wired tells a real receiver, through its failures and its own restart, and is not held up by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.api.v1 import broker_service_pb2 as pb
from broker.api.v1 import lease_pb2
from broker.clock import SystemClock
from broker.config import load_config
from broker.daemon.wiring import Brokerd
from broker.errors import InvalidInput
from tests.api.served import Served, ask, private, serve, start_task
from tests.connectors.fake import FakeConnector
from tests.patience import PATIENCE, eventually
from tests.webhooks.receiver import HANG, SECRET, Receiver


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    await made.start()
    yield made
    await made.stop()


def notify(root: Path, receiver: Receiver, *events: str, timeout: str = "30s") -> dict[str, Any]:
    private(root / "keys" / "hook", SECRET)
    return {"soc": {"url": receiver.url, "secrets": ["file:keys/hook"], "events": list(events), "timeout": timeout}}


async def test_what_happens_is_told_through_failures_and_restarts(receiver: Receiver, tmp_path: Path) -> None:
    settings = notify(tmp_path, receiver, "task.*")
    receiver.answer(500)
    async with serve(tmp_path, notify=settings) as served:
        stub = served.stub()
        task = await start_task(stub)
        await stub.CompleteTask(pb.CompleteTaskRequest(task_id=task))
        (first, second) = await receiver.until(2)
        assert [each["type"] for each in (first, second)] == ["broker.jit.task.started", "broker.jit.task.completed"]
        assert first["subject"] == task

        async def counted() -> bool:
            # What is delivered is counted when the receiver has said so, a moment after it has it.
            return 'broker_webhooks_total{destination="soc",result="delivered"} 2.0' in await _metrics(served)

        await eventually(counted)
        assert 'broker_webhooks_total{destination="soc",result="failed"} 1.0' in await _metrics(served)
        await receiver.stop()
        await start_task(stub, "while-nobody-listens")
    await receiver.start()
    again = Brokerd(load_config(tmp_path / "brokerd.yaml"), SystemClock(), lambda spec: FakeConnector(SystemClock()))
    await again.start()
    try:
        third = (await receiver.until(3))[2]
        assert third["type"] == "broker.jit.task.started"
        assert len({each["id"] for each in receiver.seen}) == 3
    finally:
        await again.stop()


async def _metrics(served: Served) -> str:
    return (await served.daemon._scrape()).decode()


async def test_a_receiver_that_hangs_holds_up_no_grant_and_no_revocation(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answer(*[HANG] * 1000)
    async with serve(tmp_path, notify={**notify(tmp_path, receiver, "*", timeout="300ms")}) as served:
        stub = served.stub()
        task = await start_task(stub)
        async with asyncio.timeout(PATIENCE):
            granted = await stub.RequestCredential(ask(task))
            ended = await stub.CompleteTask(pb.CompleteTaskRequest(task_id=task, wait={"seconds": 60}))
        assert granted.lease.id
        assert [lease.state for lease in ended.leases] == [lease_pb2.Lease.STATE_REVOKED]
        assert receiver.seen == []


async def test_a_secret_that_is_none_keeps_brokerd_from_starting(receiver: Receiver, tmp_path: Path) -> None:
    settings = notify(tmp_path, receiver, "*")
    private(tmp_path / "keys" / "hook", "hunter2")
    with pytest.raises(InvalidInput, match="is no webhook secret"):
        async with serve(tmp_path, notify=settings):
            pass
