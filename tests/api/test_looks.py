"""Whatever people are shown at their door is told in the trail, whichever method shows it; and only that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from broker.api.admin_server import ADMIN_SERVICE
from broker.api.authorization import LOOKS
from broker.api.server import methods_of
from broker.api.v1 import admin_view_pb2 as pb
from broker.api.v1 import break_glass_pb2
from broker.api.v1 import broker_service_pb2 as service
from broker.errors import NotReady, Reason
from tests.api.served import ANALYST, Served, ask, people_changes, person, serve, start_task

DANA = "https://id.dev.broker.internal#dana"
PREFIX = f"/{ADMIN_SERVICE.full_name}/"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serve(tmp_path, **people_changes(tmp_path)) as running:
        yield running


async def told(served: Served, kind: str = "admin.read") -> list[dict[str, Any]]:
    return [each for each in await served.audit() if each["type"] == kind]


def test_every_method_that_shows_something_is_told() -> None:
    showing = {
        name
        for name in methods_of(ADMIN_SERVICE)
        if name.rpartition("/")[2].startswith(("Get", "List", "Read", "Examine"))
    }
    assert LOOKS | {PREFIX + "GetTaskTexts"} == showing  # which has an event of its own


async def test_a_look_is_told_with_what_was_looked_at(served: Served) -> None:
    agent = served.stub()
    lease = (await agent.RequestCredential(ask(await start_task(agent)))).lease
    stub = person(served, "dana")
    await stub.GetLease(service.GetLeaseRequest(lease_id=lease.id))
    await stub.ListLeases(pb.AdminServiceListLeasesRequest(holder=ANALYST, living_only=True))
    await stub.GetTask(service.GetTaskRequest(task_id=lease.task_id))
    assert [(each["actor"], each["data"], each["lease_id"], each["task_id"]) for each in await told(served)] == [
        (DANA, {"method": PREFIX + "GetLease", "about": {"lease_id": lease.id}}, lease.id, ""),
        (DANA, {"method": PREFIX + "ListLeases", "about": {"holder": ANALYST}}, "", ""),
        (DANA, {"method": PREFIX + "GetTask", "about": {"task_id": lease.task_id}}, "", lease.task_id),
    ]


async def test_the_same_again_is_counted_and_told_in_the_end(served: Served) -> None:
    stub = person(served, "dana")
    for _ in range(4):
        await stub.ListTasks(pb.ListTasksRequest())
    assert len(await told(served)) == 1
    await served.daemon._upkeep.summarise_looks(every=True)
    (summed,) = await told(served, "admin.reads_summarised")
    assert (summed["actor"], summed["data"]) == (DANA, {"counts": {PREFIX + "ListTasks": 3}})
    await served.daemon._upkeep.summarise_looks(every=True)
    assert len(await told(served, "admin.reads_summarised")) == 1


async def test_what_was_not_shown_is_no_look(served: Served) -> None:
    """A refusal is told as one. What changes something has events of its own, and agents are not people."""
    stub = person(served, "dana")
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.GetLease(service.GetLeaseRequest(lease_id="lease-none"))
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.ListBreakGlassCodes(break_glass_pb2.ListBreakGlassCodesRequest())  # takes another role
    await person(served, "sam").ReloadDeploy(pb.ReloadDeployRequest(request_id="q1"))
    await served.stub().ListLeases(service.ListLeasesRequest())
    assert await told(served) == []


async def test_people_can_look_while_the_ledger_takes_nothing(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: Any) -> None:
        raise NotReady(Reason.STORE_UNAVAILABLE, "the disk is full.")

    with monkeypatch.context() as broken:
        broken.setattr(served.daemon._store, "append", full)
        await person(served, "dana").ListLeases(pb.AdminServiceListLeasesRequest())
    assert await told(served) == []
