"""A replica whose deploy set others have replaced: what it refuses by rules that are over, and what it still does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from broker.api import authorization
from broker.api.v1 import access_request_pb2 as requests_pb
from broker.api.v1 import access_review_pb2 as review_pb
from broker.api.v1 import admin_service_pb2 as admin_pb
from broker.api.v1 import broker_service_pb2 as pb
from broker.ports.replicas import DeployInForce
from tests.api.served import (
    ANALYST,
    DECIDING,
    Served,
    approval,
    ask,
    gate,
    people_changes,
    person,
    reason,
    resumption,
    serve,
    start_task,
)

OVERTAKEN = (grpc.StatusCode.UNAVAILABLE, "DEPLOY_SET_OVERTAKEN")
STRANGER = "spiffe://dev.broker.internal/agent/of-the-newer-set"
JUST_NOW, LONG_AGO = timedelta(0), timedelta(hours=1)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serve(tmp_path, **people_changes(tmp_path) | {"roles": DECIDING}) as running:
        yield running


def overtake(served: Served, ago: timedelta) -> None:
    """Another replica has put another set in force, so long ago."""
    now = served.daemon._clock.now()
    served.daemon.gate.among.in_force = DeployInForce("0" * 64, 2, now - ago)


def follow(served: Served) -> None:
    among = served.daemon.gate.among
    among.in_force = DeployInForce(among.mine, 3, served.daemon._clock.now())


def test_what_is_still_done_behind_is_what_there_is_and_no_grant() -> None:
    assert set(authorization.TABLE) >= authorization.BEHIND
    assert not authorization.BEHIND & authorization.GRANTS


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return reason(caught.value)


async def test_past_the_time_nothing_is_decided_by_rules_that_are_over(served: Served) -> None:
    """F28: neither granted nor denied: a denial would be final to who asks, and is counted against them."""
    stub = served.stub()
    task = await start_task(stub)
    lease = (await stub.RequestCredential(ask(task))).lease
    overtake(served, LONG_AGO)
    for changed in ({}, {"validate_only": True}, {"template": "of-the-newer-set"}, {"environment": "prod"}):
        assert await refused(stub.RequestCredential(ask(task, "r2", **changed))) == OVERTAKEN
    assert await refused(stub.StartTask(pb.StartTaskRequest(request_id="t2", purpose="more"))) == OVERTAKEN
    assert await served.refusals() == []
    confirmed = await stub.ConfirmDelivery(pb.ConfirmDeliveryRequest(lease_id=lease.id, attempt_id=lease.attempt_id))
    assert confirmed.id == lease.id
    assert (await stub.RevokeLease(pb.RevokeLeaseRequest(lease_id=lease.id))).end_cause == "RELEASED"
    follow(served)
    assert (await stub.RequestCredential(ask(task, "r2"))).lease.id


@pytest.mark.parametrize("ago", [JUST_NOW, LONG_AGO])
async def test_whom_the_newer_set_may_know_is_sent_to_others(served: Served, ago: timedelta) -> None:
    """F28: not told that they are not registered, which is final."""
    stranger = served.stub(STRANGER)
    hold = pb.HoldTaskRequest(task_id="task-1")
    assert (await refused(stranger.HoldTask(hold).read()))[1] == "AGENT_NOT_REGISTERED"
    overtake(served, ago)
    assert await refused(stranger.HoldTask(hold).read()) == OVERTAKEN
    assert await refused(stranger.WhoAmI(pb.WhoAmIRequest())) == OVERTAKEN


async def test_what_people_agreed_to_under_a_newer_set_is_not_refused_for_good(served: Served) -> None:
    """F28: within the grace, too: asked again here it would be asked under rules that are over."""
    older = served.daemon._files.current
    gate(served, dev=("sre",))
    newer = served.daemon._files.current
    stub = served.stub()
    task = await start_task(stub)
    filed = (await stub.RequestCredential(ask(task))).access_request
    redeem = requests_pb.RedeemAccessRequestRequest(access_request_id=filed.id, request_id="redeem-1")
    served.daemon._files.adopt(older)
    overtake(served, JUST_NOW)
    assert await refused(person(served, "sam").ApproveAccessRequest(approval(served, "sam", filed))) == OVERTAKEN
    served.daemon._files.adopt(newer)
    await person(served, "sam").ApproveAccessRequest(approval(served, "sam", filed))
    served.daemon._files.adopt(older)
    assert await refused(stub.RedeemAccessRequest(redeem)) == OVERTAKEN
    follow(served)
    assert (await refused(stub.RedeemAccessRequest(redeem)))[1] == "APPROVAL_POLICY_CHANGED"
    served.daemon._files.adopt(newer)
    assert (await stub.RedeemAccessRequest(redeem)).lease.access_request_id == filed.id


async def test_past_the_time_people_only_look_and_stop(served: Served) -> None:
    """F28: who may do what is said by the newer set; it may have disabled whoever lifts a suspension here."""
    people = person(served, "sam")
    stop = admin_pb.SuspendRequest(request_id="s1", kind="KIND_AGENT", value=ANALYST, reason="it scans")
    first = (await people.Suspend(stop)).suspension
    gate(served, dev=("sre",))
    overtake(served, LONG_AGO)
    assert await refused(people.Resume(resumption(served, "sam", first.id))) == OVERTAKEN
    stop = admin_pb.SuspendRequest(request_id="s2", kind="KIND_TEMPLATE", value="orders-readonly", reason="it scans")
    second = (await people.Suspend(stop)).suspension
    told = (await people.ListSuspensions(admin_pb.ListSuspensionsRequest())).suspensions
    assert {each.id for each in told} == {first.id, second.id}
    follow(served)
    await people.Resume(resumption(served, "sam", first.id))


async def test_past_the_time_a_person_still_says_no(served: Served) -> None:
    """F28: it only takes away."""
    gate(served, dev=("sre",))
    stub = served.stub()
    task = await start_task(stub)
    filed = (await stub.RequestCredential(ask(task))).access_request
    people = person(served, "sam")
    await people.ApproveAccessRequest(approval(served, "sam", filed))
    overtake(served, LONG_AGO)
    no = review_pb.DenyAccessRequestRequest(access_request_id=filed.id, digest=filed.digest, request_id="n1")
    assert (await people.DenyAccessRequest(no)).state == requests_pb.AccessRequest.State.STATE_DENIED
