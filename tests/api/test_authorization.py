"""Every RPC is decided about, and the decision holds: principals x RPCs x own and other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from broker.api import authorization
from broker.api.authorization import TABLE, Relation
from broker.api.server import BROKER_SERVICE
from broker.api.v1 import access_request_pb2 as requests_pb
from broker.api.v1 import broker_service_pb2 as pb
from broker.api.v1 import delegation_pb2, lease_pb2, plan_pb2, task_pb2
from broker.errors import Defect, Denied
from tests.api.served import ANALYST, MIGRATOR, OTHER, Served, ask, gate, reason, start_task, svid

METHODS = [method.name for method in BROKER_SERVICE.methods]
ACTION = plan_pb2.PlannedAction(
    step="s", template="orders-readonly", account="dev", environment="dev", resource="orders", ttl={"seconds": 60}
)
DENIED, NOT_FOUND = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND


def test_every_rpc_is_in_the_table() -> None:
    assert {f"/{BROKER_SERVICE.full_name}/{name}" for name in METHODS} <= set(TABLE)


def test_an_undecided_rpc_keeps_the_server_from_starting() -> None:
    with pytest.raises(Defect, match="Forgotten"):
        authorization.check_complete(["/broker.api.v1.BrokerService/Forgotten"])
    with pytest.raises(Denied):
        authorization.allowed("/broker.api.v1.BrokerService/Forgotten")


def request_for(name: str, task: str, lease: str, attempt: str, filed: str) -> Any:
    """A well-formed request of each RPC about this task, lease and access request."""
    return {
        "WhoAmI": pb.WhoAmIRequest(),
        "ListTemplates": pb.ListTemplatesRequest(),
        "StartTask": pb.StartTaskRequest(request_id="m", purpose="p"),
        "GetTask": pb.GetTaskRequest(task_id=task),
        "CompleteTask": pb.CompleteTaskRequest(task_id=task),
        "HoldTask": pb.HoldTaskRequest(task_id=task),
        "RequestCredential": ask(task, "matrix"),
        "ConfirmDelivery": pb.ConfirmDeliveryRequest(lease_id=lease, attempt_id=attempt),
        "GetLease": pb.GetLeaseRequest(lease_id=lease),
        "ListLeases": pb.ListLeasesRequest(task_id=task),
        "WatchLeases": pb.WatchLeasesRequest(),
        "RevokeLease": pb.RevokeLeaseRequest(lease_id=lease),
        "GetAccessRequest": requests_pb.GetAccessRequestRequest(access_request_id=filed),
        "ListAccessRequests": requests_pb.ListAccessRequestsRequest(),
        "WatchAccessRequests": requests_pb.WatchAccessRequestsRequest(),
        "WithdrawAccessRequest": requests_pb.WithdrawAccessRequestRequest(access_request_id=filed),
        "RedeemAccessRequest": requests_pb.RedeemAccessRequestRequest(access_request_id=filed, request_id="matrix"),
        "RegisterPlan": plan_pb2.RegisterPlanRequest(request_id="m", task_id=task, text="t", actions=[ACTION]),
        "ValidatePlan": plan_pb2.ValidatePlanRequest(plan_id="plan-1", digest="0" * 64, verdict=1),
        "GetPlan": plan_pb2.GetPlanRequest(plan_id="plan-1"),
        "ListPlans": plan_pb2.ListPlansRequest(task_id=task),
        "DelegateLease": delegation_pb2.DelegateLeaseRequest(request_id="m", lease_id=lease, delegate=MIGRATOR),
        "RevokeDelegation": delegation_pb2.RevokeDelegationRequest(delegation_id="delegation-1"),
        "ListDelegations": delegation_pb2.ListDelegationsRequest(task_id=task),
    }[name]


async def call(stub: Any, name: str, request: Any) -> Any:
    rpc = getattr(stub, name)(request)
    return await (rpc.read() if BROKER_SERVICE.methods_by_name[name].server_streaming else rpc)


@pytest.mark.parametrize("name", METHODS)
async def test_who_is_not_the_owner(served: Served, name: str) -> None:
    owner = served.stub(ANALYST)
    task = await start_task(owner, participants=[MIGRATOR])
    grant = await owner.RequestCredential(ask(task))
    gate(served, staging=("sre",))
    filed = (await owner.RequestCredential(ask(task, "r2", environment="staging"))).access_request.id
    assert filed
    asked = request_for(name, task, grant.lease.id, grant.lease.attempt_id, filed)
    for who, uri in {"unregistered": ANALYST + "2", "stranger": OTHER, "participant": MIGRATOR}.items():
        expected = _expected(who, TABLE[f"/{BROKER_SERVICE.full_name}/{name}"][1])
        if name == "GetPlan" and expected is None:
            expected = NOT_FOUND  # there is none
        if expected is None:
            answer = str(await call(served.stub(uri), name, asked))
            assert grant.lease.id not in answer, who
            assert filed not in answer, who
            assert ANALYST not in answer or name in ("GetTask", "RequestCredential"), who
        else:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(served.stub(uri), name, asked)
            assert refused.value.code() is expected, who
        lease = await owner.GetLease(pb.GetLeaseRequest(lease_id=grant.lease.id))
        assert lease.state == lease.STATE_ACTIVE, who
        assert (await owner.GetTask(pb.GetTaskRequest(task_id=task))).state == 1, who  # STATE_OPEN
        waiting = await owner.GetAccessRequest(requests_pb.GetAccessRequestRequest(access_request_id=filed))
        assert waiting.state == waiting.STATE_AWAITING_APPROVAL, who


def _expected(who: str, relation: Relation) -> grpc.StatusCode | None:
    if who == "unregistered":
        return DENIED
    if relation in (Relation.NONE, Relation.OWN_ONLY):
        return None
    if relation in (Relation.PLANNER, Relation.VALIDATOR):
        return DENIED  # for want of the role; tests/api/test_pipelines.py has those who have it
    holders = (Relation.LEASE_HOLDER, Relation.LEASE_CHAIN, Relation.DELEGATOR, Relation.REQUEST_HOLDER)
    if who == "stranger" or relation in holders:
        return NOT_FOUND
    return None if relation is Relation.TASK_PARTICIPANT else DENIED


async def test_a_lease_belongs_to_the_identity_and_not_to_the_certificate(served: Served) -> None:
    """Asked for with one SVID, used with the next: another key, another serial, the same SPIFFE ID."""
    before, after = svid(ANALYST), svid(ANALYST)
    assert before.pem != after.pem
    old = served.stub(before)
    grant = await old.RequestCredential(ask(await start_task(old)))
    lease, attempt, task = grant.lease.id, grant.lease.attempt_id, grant.lease.task_id
    new = served.stub(after)
    assert (await new.GetLease(pb.GetLeaseRequest(lease_id=lease))).id == lease
    assert [each.id for each in (await new.ListLeases(pb.ListLeasesRequest())).leases] == [lease]
    watch = new.WatchLeases(pb.WatchLeasesRequest())
    await new.ConfirmDelivery(pb.ConfirmDeliveryRequest(lease_id=lease, attempt_id=attempt))
    seen = [await watch.read()]
    while seen[-1].type != "delivery.confirmed":
        seen.append(await watch.read())
    assert {event.lease.id for event in seen if event.lease.id} == {lease}
    watch.cancel()
    # Request ids are the identity's, too: this one is taken, whichever certificate asks.
    with pytest.raises(grpc.aio.AioRpcError) as repeated:
        await new.StartTask(pb.StartTaskRequest(request_id="t1", purpose="something else"))
    assert repeated.value.code() is grpc.StatusCode.ALREADY_EXISTS
    await new.RevokeLease(pb.RevokeLeaseRequest(lease_id=lease, wait={"seconds": 60}))
    assert (await old.GetLease(pb.GetLeaseRequest(lease_id=lease))).state == lease_pb2.Lease.STATE_REVOKED
    assert (await new.CompleteTask(pb.CompleteTaskRequest(task_id=task))).task.state == task_pb2.Task.STATE_COMPLETED


async def test_not_yours_and_not_there_are_one_answer(served: Served) -> None:
    owner, stranger = served.stub(ANALYST), served.stub(OTHER)
    task = await start_task(owner)
    lease = (await owner.RequestCredential(ask(task))).lease.id
    answers = []
    for lease_id in (lease, "lease-" + "a" * 26):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stranger.GetLease(pb.GetLeaseRequest(lease_id=lease_id))
        answers.append((reason(refused.value), (refused.value.details() or "").replace(lease_id, "ID")))
    assert answers[0] == answers[1]


async def test_health_and_reflection_want_an_svid_too(served: Served) -> None:
    good, bad = served.channel(), served.channel(svid(ANALYST, ca=True))
    health = await health_pb2_grpc.HealthStub(good).Check(health_pb2.HealthCheckRequest())
    assert health.status == health.SERVING
    watch = health_pb2_grpc.HealthStub(good).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == health.SERVING
    watch.cancel()
    listed = await _services(good)
    assert "broker.api.v1.BrokerService" in listed
    attempts: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: health_pb2_grpc.HealthStub(bad).Check(health_pb2.HealthCheckRequest()),
        lambda: _services(bad),
    )
    for attempt in attempts:
        assert await _refusal(attempt) is grpc.StatusCode.UNAUTHENTICATED


async def _refusal(attempt: Callable[[], Awaitable[object]]) -> grpc.StatusCode:
    """What it is refused with. gRPC's client says INTERNAL of itself where a stream ended before it had sent."""
    while True:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await attempt()
        if "execute_batch" not in str(refused.value.debug_error_string()):
            code: grpc.StatusCode = refused.value.code()
            return code


async def _services(channel: grpc.aio.Channel) -> list[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    stream = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    async for answer in stream:
        return [each.name for each in answer.list_services_response.service]
    return []
