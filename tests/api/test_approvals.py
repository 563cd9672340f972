"""Approvals over the wire: an agent at its door, people at theirs, and the SDK that waits between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

import broker.client
from broker.api.v1 import access_request_pb2 as requests_pb
from broker.api.v1 import access_review_pb2 as review_pb
from broker.api.v1.admin_service_pb2_grpc import AdminServiceStub
from broker.client import AccessRequest, ApprovalNeeded, AsyncClient
from broker.errors import Reason, WrongState
from tests.api.served import (
    ANALYST,
    CA,
    DECIDING,
    Served,
    approval,
    ask,
    error_info,
    gate,
    people_changes,
    person,
    reason,
    serve,
    start_task,
    svid,
)
from tests.client.fake_broker import svid_files
from tests.patience import PATIENCE

ASK: dict[str, Any] = {
    "account": "dev",
    "environment": "staging",
    "resource": "orders",
    "ttl": "60s",
    "intent": "count the orders",
}
DENIED, WRONG = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.FAILED_PRECONDITION


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serve(tmp_path, **{**people_changes(tmp_path), "roles": DECIDING}) as running:
        gate(running, staging=("sre",))
        yield running


@pytest.fixture
async def agent(served: Served) -> AsyncIterator[AsyncClient]:
    async with connect(served) as client:
        yield client


def connect(served: Served, **options: Any) -> AsyncClient:
    files = svid_files(served.root / "client" / "analyst", svid(ANALYST), CA)
    identity = {"certificate": files.certificate, "key": files.key, "bundle": files.bundle}
    return broker.client.connect(f"127.0.0.1:{served.port}", "localhost", **identity, **options)


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return reason(caught.value)


def no(filed: Any, **changes: Any) -> review_pb.DenyAccessRequestRequest:
    fields = {"access_request_id": filed.id, "digest": filed.digest, "request_id": "v1", **changes}
    return review_pb.DenyAccessRequestRequest(**fields)


async def one_open(people: AdminServiceStub) -> Any:
    """The request that people are asked about, once there is one."""
    async with asyncio.timeout(PATIENCE):
        while True:
            page = await people.ListAccessRequests(requests_pb.ListAccessRequestsRequest(open_only=True))
            if page.access_requests:
                return page.access_requests[0]
            await asyncio.sleep(0.01)


async def test_the_whole_story_on_the_wire(served: Served) -> None:
    stub, sam = served.stub(ANALYST), person(served, "sam")
    task = await start_task(stub)
    answer = await stub.RequestCredential(ask(task, environment="staging", plan="1. count"))
    filed = answer.access_request
    assert (answer.decision.effect, list(answer.decision.approvals)) == (answer.decision.EFFECT_NEEDS_APPROVAL, ["sre"])
    assert (filed.state, filed.lease_id, answer.HasField("lease")) == (filed.STATE_AWAITING_APPROVAL, "", False)
    assert [each.missing for each in filed.approvals] == ["sre: 1 of operations"]

    review = await sam.GetAccessRequest(requests_pb.GetAccessRequestRequest(access_request_id=filed.id))
    assert review.plan == "1. count"
    assert "It can select on orders." in review.effect
    approved = await sam.ApproveAccessRequest(approval(served, "sam", filed))
    assert approved.state == approved.STATE_APPROVED

    redeem = requests_pb.RedeemAccessRequestRequest(access_request_id=filed.id, request_id="redeem-1")
    granted = await stub.RedeemAccessRequest(redeem)
    assert granted.credential.database_login.password
    assert granted.lease.state == granted.lease.STATE_ACTIVE
    again = requests_pb.RedeemAccessRequestRequest(access_request_id=filed.id, request_id="redeem-2")
    assert await refused(stub.RedeemAccessRequest(again)) == (WRONG, "ACCESS_REQUEST_REDEEMED")
    assert len(served.upstream.alive) == 1


async def test_only_approvers_who_are_asked_decide_whatever_else_they_are(served: Served) -> None:
    """Kim answers for security, and Dana owns the agent: no role of theirs is a way around."""
    stub = served.stub(ANALYST)
    filed = (await stub.RequestCredential(ask(await start_task(stub), environment="staging"))).access_request
    kim, dana = person(served, "kim"), person(served, "dana")
    assert await refused(kim.ApproveAccessRequest(approval(served, "kim", filed))) == (DENIED, "ROLE_REQUIRED")
    assert await refused(kim.DenyAccessRequest(no(filed))) == (DENIED, "ROLE_REQUIRED")
    assert await refused(dana.ApproveAccessRequest(approval(served, "dana", filed))) == (DENIED, "SELF_APPROVAL")
    assert (await dana.DenyAccessRequest(no(filed, note="mine, and no"))).state == filed.STATE_DENIED


async def test_nobody_decides_at_the_agents_door(served: Served) -> None:
    channel = served.channel(svid(ANALYST))
    for name in ("ApproveAccessRequest", "DenyAccessRequest"):
        call = channel.unary_unary(f"/broker.api.v1.AdminService/{name}")(b"")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("digest", ["", "0" * 63, "G" * 64, "0" * 65, "\u0660" * 64])
async def test_a_digest_that_is_none_is_no_yes(served: Served, digest: str) -> None:
    stub = served.stub(ANALYST)
    filed = (await stub.RequestCredential(ask(await start_task(stub), environment="staging"))).access_request
    call = person(served, "sam").ApproveAccessRequest(approval(served, "sam", filed, digest=digest))
    assert await refused(call) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")


async def test_a_digest_with_other_bytes_is_refused(served: Served) -> None:
    stub = served.stub(ANALYST)
    filed = (await stub.RequestCredential(ask(await start_task(stub), environment="staging"))).access_request
    other = f"{int(filed.digest, 16) ^ 1:064x}"
    call = person(served, "sam").ApproveAccessRequest(approval(served, "sam", filed, digest=other))
    assert await refused(call) == (grpc.StatusCode.ALREADY_EXISTS, "APPROVAL_DIGEST_MISMATCH")


async def test_validate_only_tells_what_people_would_be_asked(agent: AsyncClient, served: Served) -> None:
    async with agent.task("count") as task:
        decision = await task.validate("orders-readonly", **ASK)
        assert (decision.effect, decision.approvals) == ("NEEDS_APPROVAL", ("sre",))
        assert await agent.access_requests() == ()


# ------------------------------------------------------------------ the SDK


async def test_the_sdk_waits_for_people_and_redeems(agent: AsyncClient, served: Served) -> None:
    sam, told = person(served, "sam"), []
    async with agent.task("count") as task:
        wait = {"wait_for_approval": timedelta(minutes=1), "on_waiting": told.append}
        asking = asyncio.create_task(task.request("orders-readonly", plan="look", **wait, **ASK))
        filed = await one_open(sam)
        await sam.ApproveAccessRequest(approval(served, "sam", filed))
        grant = await asking
        assert [(each.id, each.state) for each in told] == [(filed.id, "AWAITING_APPROVAL")]
        assert grant.lease.state == "ACTIVE"
        assert grant.lease.confirm_by is None  # confirmed
        assert grant.decision.effect == "ALLOW"
        (request,) = await agent.access_requests()
        assert (request.state, request.lease_id) == ("REDEEMED", grant.lease.id)


async def test_the_sdk_waits_for_a_sealed_credential_too(served: Served) -> None:
    sam = person(served, "sam")
    async with connect(served, seal=True) as agent, agent.task("count") as task:
        asking = asyncio.create_task(task.request("orders-readonly", wait_for_approval=timedelta(minutes=1), **ASK))
        filed = await one_open(sam)
        assert filed.sealed
        await sam.ApproveAccessRequest(approval(served, "sam", filed))
        assert (await asking).database.password.reveal()
        with pytest.raises(broker.errors.InvalidInput) as refusal:
            await agent.redeem(filed.id)
        assert refusal.value.reason is Reason.RECIPIENT_KEY_INVALID


async def test_a_no_ends_the_waiting_with_what_was_said(agent: AsyncClient, served: Served) -> None:
    sam = person(served, "sam")
    async with agent.task("count") as task:
        asking = asyncio.create_task(task.request("orders-readonly", wait_for_approval=timedelta(minutes=1), **ASK))
        await sam.DenyAccessRequest(no(await one_open(sam), note="Not tonight."))
        with pytest.raises(WrongState) as refusal:
            await asking
    assert refusal.value.reason is Reason.ACCESS_REQUEST_DENIED
    assert "Not tonight." in refusal.value.message
    assert served.upstream.calls == []


async def test_who_does_not_wait_gets_the_request_and_redeems_it_later(agent: AsyncClient, served: Served) -> None:
    sam = person(served, "sam")
    async with agent.task("count") as task:
        with pytest.raises(ApprovalNeeded) as waiting:
            await task.request("orders-readonly", **ASK)
        filed = waiting.value.access_request
        assert isinstance(filed, AccessRequest)
        assert (waiting.value.reason, filed.missing) == (Reason.APPROVAL_NEEDED, ("sre: 1 of operations",))
        with pytest.raises(ApprovalNeeded):
            await task.request(
                "orders-readonly", wait_for_approval=timedelta(milliseconds=50), request_id=filed.request_id, **ASK
            )
        with pytest.raises(WrongState) as early:
            await agent.redeem(filed.id)
        assert early.value.reason is Reason.ACCESS_REQUEST_PENDING
        await sam.ApproveAccessRequest(approval(served, "sam", filed))
        assert (await agent.redeem(filed.id)).lease.state == "ACTIVE"


async def test_following_access_requests(agent: AsyncClient, served: Served) -> None:
    async with agent.task("count") as task:
        with pytest.raises(ApprovalNeeded) as waiting:
            await task.request("orders-readonly", **ASK)
        await agent.withdraw(waiting.value.access_request.id)
        seen = []
        async for event in agent.watch_access_requests(after_sequence=0):
            assert event.access_request is not None
            seen.append((event.type, event.access_request.id))
            if event.type == "access.withdrawn":
                break
    filed = waiting.value.access_request.id
    assert seen == [("access.requested", filed), ("access.withdrawn", filed)]


async def test_a_refusal_names_what_is_missing(served: Served) -> None:
    stub = served.stub(ANALYST)
    filed = (await stub.RequestCredential(ask(await start_task(stub), environment="staging"))).access_request
    redeem = requests_pb.RedeemAccessRequestRequest(access_request_id=filed.id, request_id="x")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.RedeemAccessRequest(redeem)
    assert dict(error_info(caught.value).metadata)["accessRequestId"] == filed.id
