"""More calls at once than there is room for: an answer with its reason, and people are served all the same."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from broker.api.v1 import admin_service_pb2 as admin
from broker.api.v1 import broker_service_pb2 as pb
from broker.client.errors import from_rpc_error
from broker.errors import Exhausted, Reason
from tests.api.served import ANALYST, Served, ask, error_info, people_changes, person, reason, serve, start_task
from tests.patience import becomes_true, eventually

ROOM = 4
LIMITS = {"issue_timeout": "60s", "drain_timeout": "60s", "max_concurrent_rpcs": ROOM}


async def all_in_hand(served: Served, task: str) -> list[asyncio.Task[Any]]:
    """As many calls as there is room for, none of which ends before ``served.released``."""
    stub, issue = served.stub(ANALYST), served.upstream.issue
    served.released = asyncio.Event()  # type: ignore[attr-defined]
    reached: list[object] = []

    async def slow(*args: Any) -> Any:
        reached.append(args)
        await served.released.wait()  # type: ignore[attr-defined]
        return await issue(*args)

    served.upstream.issue = slow  # type: ignore[method-assign]
    calls = [asyncio.ensure_future(stub.RequestCredential(ask(task, f"r{number}"))) for number in range(ROOM)]
    await becomes_true(lambda: len(reached) == ROOM)
    return calls


async def test_one_too_many_is_told_so_and_people_still_stop_agents(tmp_path: Path) -> None:
    """F25: a limit that answers, and a port and pool of its own for those who stop and revoke."""
    async with serve(tmp_path, **people_changes(tmp_path) | {"limits": LIMITS}) as served:
        stub = served.stub(ANALYST)
        task = await start_task(stub)
        calls = await all_in_hand(served, task)
        before = len(await served.audit())
        for _ in range(2 * ROOM):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.GetTask(pb.GetTaskRequest(task_id=task))
            told = grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CONCURRENT_REQUESTS"
            assert reason(refused.value) == told
            assert error_info(refused.value).metadata["limit"] == str(ROOM)
            assert isinstance(from_rpc_error(refused.value), Exhausted)
        assert len(await served.audit()) == before  # a flood fills no trail
        watch = stub.WatchLeases(pb.WatchLeasesRequest(after_sequence=-1))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await watch.read()
        assert reason(refused.value) == told
        said = await person(served, "sam").Suspend(
            admin.SuspendRequest(request_id="s1", kind="KIND_TASK", value=task, reason="it floods")
        )
        assert said.attempts_ended == ROOM
        served.released.set()  # type: ignore[attr-defined]
        await asyncio.gather(*calls, return_exceptions=True)

        async def room_again() -> bool:
            return (await stub.GetTask(pb.GetTaskRequest(task_id=task))).id == task

        await eventually(room_again)
        await becomes_true(lambda: not served.upstream.alive)


def test_the_transports_own_word_for_it_is_not_taken_for_a_size() -> None:
    failure = grpc.aio.AioRpcError(
        grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.aio.Metadata(), grpc.aio.Metadata(), "Concurrent RPC limit exceeded!"
    )
    told = from_rpc_error(failure)
    assert isinstance(told, Exhausted) and told.reason is Reason.TOO_MANY_CONCURRENT_REQUESTS
