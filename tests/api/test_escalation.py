"""Escalation detection as agents meet it: over real mTLS, through the door."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from broker.api.v1 import access_request_pb2 as requests_pb
from broker.api.v1 import broker_service_pb2 as pb
from broker.api.v1 import lease_pb2
from tests.api.served import (
    ANALYST,
    DOMAIN,
    MIGRATOR,
    OTHER,
    Served,
    ask,
    gate,
    private,
    reason,
    serve,
    start_task,
    svid,
    write_config,
)
from tests.forge import authority
from tests.patience import eventually

RULES = """\
rules:
  denied: {counts: refusals, threshold: 3, within: 10m, mode: enforce, answer: cool_down, cool_down: 30m}
  others: {counts: foreign_ids, threshold: 2, within: 10m, mode: observe, answer: suspend}
"""
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    write_config(tmp_path)
    private(tmp_path / "deploy" / "escalation.yaml", RULES)
    async with serve(tmp_path) as running:
        yield running


def retry_after(error: grpc.aio.AioRpcError) -> float:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    info = error_details_pb2.RetryInfo()
    (packed,) = [each for each in status.details if each.Is(info.DESCRIPTOR)]
    packed.Unpack(info)
    return float(info.retry_delay.ToTimedelta().total_seconds())


async def refused(call: grpc.aio.UnaryUnaryCall) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def firings(served: Served) -> list[dict[str, object]]:
    return [each["data"] for each in await served.audit() if each["type"] == "escalation.detected"]


async def test_a_refused_agent_cools_down_and_can_still_give_back(served: Served) -> None:
    stub = served.stub()
    task = await start_task(stub)
    for name in ("POLICY_DENIED", "POLICY_DENIED", "ENVIRONMENT_NOT_IN_TEMPLATE"):
        changes = {"environment": "production"} if name.startswith("ENV") else {"template": "orders-readwrite"}
        error = await refused(stub.RequestCredential(ask(task, reason="r", ticket="T-1", **changes)))
        assert reason(error)[1] == name
    error = await refused(stub.RequestCredential(ask(task)))
    assert reason(error) == (EXHAUSTED, "COOLING_DOWN")
    assert 1790 < retry_after(error) <= 1800
    assert reason(await refused(stub.StartTask(pb.StartTaskRequest(request_id="t2", purpose="p")))) == (
        EXHAUSTED,
        "COOLING_DOWN",
    )
    assert not served.upstream.calls
    assert (await stub.CompleteTask(pb.CompleteTaskRequest(task_id=task))).task.id == task
    await start_task(served.stub(MIGRATOR))  # nobody else is meant
    (found,) = await firings(served)
    assert (found["agent"], found["rule"], found["took"]) == (ANALYST, "denied", "cool_down")
    assert found["reasons"] == {"POLICY_DENIED": 2, "ENVIRONMENT_NOT_IN_TEMPLATE": 1}
    metrics = (await served.daemon._scrape()).decode()
    assert 'broker_escalations_total{mode="enforce",rule="denied",took="cool_down"} 1.0' in metrics


async def test_malformed_requests_count_without_growing_anything(served: Served) -> None:
    stub = served.stub()
    for _ in range(3):
        await refused(stub.RequestCredential(pb.RequestCredentialRequest(template="x" * 60_000)))
    (found,) = await firings(served)
    assert found["reasons"] == {"FIELD_INVALID": 3}
    assert found["templates"] == []  # what was not read is not quoted


async def test_nobody_is_locked_out_by_whom_nobody_knows(served: Served) -> None:
    """Neither a stranger's CA that writes the agent's name, nor an agent without an entry, counts for anybody."""
    forged = authority(DOMAIN).svid(ANALYST)
    for _ in range(5):
        with pytest.raises(grpc.aio.AioRpcError):
            await served.stub(forged).RequestCredential(pb.RequestCredentialRequest())
        error = await refused(served.stub(f"spiffe://{DOMAIN}/agent/unknown").WhoAmI(pb.WhoAmIRequest()))
        assert reason(error)[1] == "AGENT_NOT_REGISTERED"
    assert await firings(served) == []
    assert len(served.daemon._watch._detector) == 0
    await start_task(served.stub())


async def test_a_rule_that_suspends_stops_the_one_agent_and_ends_what_it_holds(tmp_path: Path) -> None:
    write_config(tmp_path)
    rule = "{counts: refusals, threshold: 2, within: 10m, mode: enforce, answer: suspend}"
    private(tmp_path / "deploy" / "escalation.yaml", f"rules:\n  stop: {rule}\n")
    async with serve(tmp_path) as served:
        stub = served.stub()
        task = await start_task(stub)
        granted = await stub.RequestCredential(ask(task))
        for number in range(2):
            changes = {"template": "orders-readwrite", "reason": "r", "ticket": "T-1"}
            await refused(stub.RequestCredential(ask(task, f"no-{number}", **changes)))
        error = await refused(stub.RequestCredential(ask(task, "more")))
        assert reason(error) == (grpc.StatusCode.PERMISSION_DENIED, "SUSPENDED")
        (found,) = await firings(served)
        assert (found["agent"], found["took"]) == (ANALYST, "suspend")

        async def ended() -> bool:
            lease = await stub.GetLease(pb.GetLeaseRequest(lease_id=granted.lease.id))
            return bool(lease.state == lease_pb2.Lease.STATE_REVOKED)

        await eventually(ended)
        await start_task(served.stub(MIGRATOR))


async def test_another_agents_task_is_not_found_and_noticed(served: Served) -> None:
    task = await start_task(served.stub())
    stub = served.stub(svid(OTHER))
    for _ in range(2):
        assert reason(await refused(stub.GetTask(pb.GetTaskRequest(task_id=task))))[1] == "TASK_NOT_FOUND"

    async def noticed() -> bool:
        return bool(await firings(served))

    await eventually(noticed)
    (found,) = await firings(served)
    assert (found["agent"], found["rule"], found["mode"], found["took"]) == (OTHER, "others", "observe", "none")


async def test_another_agents_approval_is_not_found_and_noticed(served: Served) -> None:
    """Redeemed, withdrawn or looked at by who did not ask for it: one answer for all, and each is counted."""
    gate(served, dev=("sre",))
    task = await start_task(served.stub())
    filed = (await served.stub().RequestCredential(ask(task))).access_request
    other, named = served.stub(svid(OTHER)), {"access_request_id": filed.id}
    for call in (
        other.RedeemAccessRequest(requests_pb.RedeemAccessRequestRequest(request_id="x", **named)),
        other.WithdrawAccessRequest(requests_pb.WithdrawAccessRequestRequest(**named)),
    ):
        assert reason(await refused(call))[1] == "ACCESS_REQUEST_NOT_FOUND"

    async def noticed() -> bool:
        return bool(await firings(served))

    await eventually(noticed)
    (found,) = await firings(served)
    assert (found["agent"], found["rule"], found["count"]) == (OTHER, "others", 2)
