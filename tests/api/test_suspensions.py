"""The kill switch on a running brokerd: who may, what stops at once, what goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from broker.api.admin_server import ADMIN_SERVICE
from broker.api.authorization import ROLES as METHOD_ROLES
from broker.api.v1 import access_request_pb2, contract_pb2, lease_pb2
from broker.api.v1 import admin_service_pb2 as admin
from broker.api.v1 import broker_service_pb2 as pb
from broker.api.v1.suspension_pb2 import Suspension
from broker.keys import new_key
from broker.lease.credential import ContractClass
from tests.api.served import (
    ANALYST,
    MIGRATOR,
    OTHER,
    Served,
    admin_stub,
    ask,
    error_info,
    people_changes,
    person,
    private,
    reason,
    resumption,
    serve,
    start_task,
    svid,
)
from tests.connectors.fake import IssueMishap, contract
from tests.patience import becomes_true, eventually

DENIED = grpc.StatusCode.PERMISSION_DENIED
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serve(tmp_path, **people_changes(tmp_path)) as running:
        yield running


def stop(kind: str, value: str = "", name: str = "s1", **fields: Any) -> admin.SuspendRequest:
    return admin.SuspendRequest(request_id=name, kind=f"KIND_{kind}", value=value, reason="it went mad", **fields)


def resume(suspension: str, name: str = "r1") -> admin.ResumeRequest:
    return admin.ResumeRequest(request_id=name, suspension_id=suspension, reason="it is well")


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return reason(caught.value)


# ------------------------------------------------------------------ who may


REQUESTS = {
    "GetOperator": admin.GetOperatorRequest(),
    "Suspend": stop("TASK", "task-of-nobody"),
    "Resume": resume("susp-none"),
    "ListSuspensions": admin.ListSuspensionsRequest(),
}


@pytest.mark.parametrize("method", [each.name for each in ADMIN_SERVICE.methods if each.name in REQUESTS])
@pytest.mark.parametrize("who", ["nobody", "dana", "sam", "kim"])
async def test_principals_and_rpcs(served: Served, method: str, who: str) -> None:
    """Dana is a viewer, Sam an operator, Kim security."""
    roles = {"nobody": set(), "dana": {"viewer"}, "sam": {"operator"}, "kim": {"security"}}[who]
    stub = admin_stub(served, "x" * 44) if who == "nobody" else person(served, who)
    before = len([r for r in await served.audit() if r["type"].startswith("suspension")])
    taken = METHOD_ROLES[f"/{ADMIN_SERVICE.full_name}/{method}"]
    call = getattr(stub, method)(REQUESTS[method])
    if who == "nobody":
        assert await refused(call) == (grpc.StatusCode.UNAUTHENTICATED, "ID_TOKEN_MALFORMED")
    elif taken and not taken & roles:
        assert await refused(call) == (DENIED, "ROLE_REQUIRED")
        assert ("https://id.dev.broker.internal#dana", "ROLE_REQUIRED") in await served.refusals()
    elif method == "Resume":
        assert await refused(call) == (DENIED, "FRESH_LOGIN_REQUIRED")
        call = stub.Resume(resumption(served, who, "susp-none"))
        assert await refused(call) == (grpc.StatusCode.NOT_FOUND, "SUSPENSION_NOT_FOUND")
    else:
        await call
        return
    assert len([r for r in await served.audit() if r["type"].startswith("suspension")]) == before


# ------------------------------------------------------------------ what stops, what goes on


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("AGENT", ANALYST),
        ("ENTRY", "analyst"),
        ("OWNER", "dana"),
        ("OWNER", "https://id.dev.broker.internal#dana"),
        ("TEMPLATE", "orders-readonly"),
        ("CONNECTOR", "openbao-orders"),
        ("ACCOUNT", "dev"),
        ("TRUST_DOMAIN", "dev.broker.internal"),
        ("EVERYTHING", ""),
    ],
)
async def test_a_suspension_kills_what_lives_and_refuses_what_comes(served: Served, kind: str, value: str) -> None:
    agent = served.stub()
    task = await start_task(agent)
    grant = await agent.RequestCredential(ask(task))
    assert grant.lease.attempt_id in served.upstream.alive
    answer = await person(served, "sam").Suspend(stop(kind, value))
    assert (answer.attempts_ended, answer.unknown_value) == (1, False)
    assert answer.suspension.state == Suspension.STATE_IN_FORCE

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await agent.RequestCredential(ask(task, "r2"))
    assert reason(caught.value) == (DENIED, "SUSPENDED")
    assert "it went mad" in (caught.value.details() or "")
    assert error_info(caught.value).metadata["ask"] == "Sam Lindqvist"
    assert await refused(agent.RequestCredential(ask(task, "r3", validate_only=True))) == (DENIED, "SUSPENDED")
    if kind in ("AGENT", "ENTRY", "OWNER", "TRUST_DOMAIN", "EVERYTHING"):
        assert await refused(agent.StartTask(pb.StartTaskRequest(request_id="t2", purpose="p"))) == (
            DENIED,
            "SUSPENDED",
        )

    # Reading, ending and giving back go on.
    assert (await agent.WhoAmI(pb.WhoAmIRequest())).spiffe_id == ANALYST
    await agent.ListTemplates(pb.ListTemplatesRequest())
    await agent.GetTask(pb.GetTaskRequest(task_id=task))
    revoked = await agent.RevokeLease(pb.RevokeLeaseRequest(lease_id=grant.lease.id, wait={"seconds": 60}))
    assert (revoked.state, revoked.end_cause) == (lease_pb2.Lease.STATE_REVOKED, "SUSPENDED")
    assert served.upstream.alive == {}
    assert len((await agent.ListLeases(pb.ListLeasesRequest())).leases) == 1
    await agent.CompleteTask(pb.CompleteTaskRequest(task_id=task))


async def test_what_only_time_ends_is_told_when_it_is_stopped(served: Served) -> None:
    """An STS session lives on, also one whose task was completed: nobody shall take "0 being ended" for dead."""
    agent = served.stub()
    task = await start_task(agent)
    served.upstream.contract = contract(ContractClass.EXPIRY_ONLY)
    lease = (await agent.RequestCredential(ask(task))).lease
    await agent.CompleteTask(pb.CompleteTaskRequest(task_id=task))
    answer = await person(served, "sam").Suspend(stop("EVERYTHING"))
    assert (answer.attempts_ended, len(answer.still_alive)) == (0, 1)
    (alive,) = answer.still_alive
    assert (alive.connector, alive.credentials, alive.last_expire_time) == ("openbao-orders", 1, lease.expire_time)
    assert alive.contract_class == contract_pb2.CONTRACT_CLASS_EXPIRY_ONLY
    assert not alive.HasField("bound_on_revoke")


async def test_who_is_stopped_hears_that_and_not_what_policy_would_say(served: Served) -> None:
    agent = served.stub()
    asked = ask(await start_task(agent), template="orders-readwrite", reason="r", ticket="T-1")
    assert await refused(agent.RequestCredential(asked)) == (DENIED, "POLICY_DENIED")
    await person(served, "sam").Suspend(stop("AGENT", ANALYST))
    assert await refused(agent.RequestCredential(asked)) == (DENIED, "SUSPENDED")


async def test_a_suspended_task_stops_alone(served: Served) -> None:
    agent = served.stub()
    one, other = await start_task(agent), await start_task(agent, "t2")
    await agent.RequestCredential(ask(one))
    answer = await person(served, "sam").Suspend(stop("TASK", one))
    assert answer.attempts_ended == 1
    assert await refused(agent.RequestCredential(ask(one, "r2"))) == (DENIED, "SUSPENDED")
    assert (await agent.RequestCredential(ask(other, "r3"))).lease.state == lease_pb2.Lease.STATE_ACTIVE
    assert await refused(agent.HoldTask(pb.HoldTaskRequest(task_id=one)).read()) == (DENIED, "SUSPENDED")
    hold = agent.HoldTask(pb.HoldTaskRequest(task_id=other))
    await hold.read()
    hold.cancel()


async def test_others_hear_nothing_of_a_suspended_task(served: Served) -> None:
    """Not even that there is such a task: what is not theirs is not found, suspended or not."""
    task = await start_task(served.stub())
    await person(served, "sam").Suspend(stop("TASK", task))
    theirs = served.stub(OTHER)
    not_found = (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")
    assert await refused(theirs.RequestCredential(ask(task))) == not_found
    assert await refused(theirs.HoldTask(pb.HoldTaskRequest(task_id=task)).read()) == not_found
    denied = ask(task, template="orders-readwrite", reason="r", ticket="T-1")
    assert (await refused(theirs.RequestCredential(denied)))[1] in ("POLICY_DENIED", "TASK_NOT_FOUND")


async def test_its_streams_are_cut_at_once_and_others_are_not(served: Served) -> None:
    agent, other = served.stub(), served.stub(OTHER)
    watch = agent.WatchLeases(pb.WatchLeasesRequest())
    hold = agent.HoldTask(pb.HoldTaskRequest(task_id=await start_task(agent), grace={"seconds": 60}))
    requests = agent.WatchAccessRequests(access_request_pb2.WatchAccessRequestsRequest())
    theirs = other.WatchLeases(pb.WatchLeasesRequest())
    for call in (watch, hold, requests, theirs):
        await call.read()
    reading = asyncio.ensure_future(theirs.read())
    await person(served, "kim").Suspend(stop("AGENT", ANALYST))
    for call in (watch, hold, requests):
        assert await refused(_drained(call)) == (DENIED, "SUSPENDED")
    assert not reading.done()
    reading.cancel()
    assert await refused(agent.WatchLeases(pb.WatchLeasesRequest()).read()) == (DENIED, "SUSPENDED")
    again = agent.WatchAccessRequests(access_request_pb2.WatchAccessRequestsRequest())
    assert await refused(again.read()) == (DENIED, "SUSPENDED")


async def _drained(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_a_grant_in_flight_is_never_delivered(tmp_path: Path) -> None:
    limits = {"issue_timeout": "1s", "drain_timeout": "2s"}  # how long the upstream's silence is borne
    async with serve(tmp_path, limits=limits, **people_changes(tmp_path)) as served:
        agent = served.stub()
        task = await start_task(agent)
        served.upstream.issue_mishaps.append(IssueMishap.HANG)
        asking = asyncio.ensure_future(agent.RequestCredential(ask(task)))
        await served.upstream.hanging.wait()
        await person(served, "kim").Suspend(stop("ACCOUNT", "dev"))
        with pytest.raises(grpc.aio.AioRpcError):
            await asking
        await becomes_true(lambda: not served.upstream.alive)
        types = [r["type"] for r in await served.audit()]
        assert "lease.issued" not in types


async def test_only_what_it_covers(served: Served) -> None:
    await person(served, "sam").Suspend(stop("AGENT", ANALYST))
    theirs = served.stub(MIGRATOR)
    task = await start_task(theirs)
    assert (await theirs.RequestCredential(ask(task))).lease.state == lease_pb2.Lease.STATE_ACTIVE


# ------------------------------------------------------------------ ending


async def test_everything_is_resumed_by_two(served: Served) -> None:
    sam, kim, agent = person(served, "sam"), person(served, "kim"), served.stub()
    suspension = (await sam.Suspend(stop("EVERYTHING"))).suspension.id
    first = (await sam.Resume(resumption(served, "sam", suspension))).suspension
    assert first.state == Suspension.STATE_RESUME_BEGUN
    assert first.first_resumed_by == "https://id.dev.broker.internal#sam"
    assert await refused(sam.Resume(resumption(served, "sam", suspension, request_id="r2"))) == (
        DENIED,
        "SECOND_PERSON_REQUIRED",
    )
    assert await refused(agent.StartTask(pb.StartTaskRequest(request_id="t", purpose="p"))) == (DENIED, "SUSPENDED")
    assert (await kim.Resume(resumption(served, "kim", suspension))).suspension.state == Suspension.STATE_LIFTED
    await agent.RequestCredential(ask(await start_task(agent)))
    assert not (await kim.ListSuspensions(admin.ListSuspensionsRequest())).suspensions
    (over,) = (await kim.ListSuspensions(admin.ListSuspensionsRequest(include_ended=True))).suspensions
    assert over.resumed_by == "https://id.dev.broker.internal#kim"


async def test_it_survives_a_restart_and_ends_by_its_time(tmp_path: Path) -> None:
    private(tmp_path / "keys" / "kept.key", new_key())
    changes = {**people_changes(tmp_path), "keys": {"ledger": ["file:keys/kept.key"]}}
    async with serve(tmp_path, **changes) as served:
        await person(served, "sam").Suspend(stop("AGENT", ANALYST, duration={"seconds": 3600}))
        await person(served, "sam").Suspend(stop("OWNER", "dana", "s2", duration={"seconds": 1}))
    async with serve(tmp_path, **changes) as served:
        asked = served.stub().StartTask(pb.StartTaskRequest(request_id="t", purpose="p"))
        assert await refused(asked) == (DENIED, "SUSPENDED")

        async def expired() -> bool:
            return "suspension.expired" in [r["type"] for r in await served.audit()]

        await eventually(expired)
        (left,) = (await person(served, "kim").ListSuspensions(admin.ListSuspensionsRequest())).suspensions
        assert left.value == ANALYST


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (stop("AGENT", "analyst"), "SUSPENSION_VALUE_INVALID"),
        (stop("AGENT", ""), "SUSPENSION_VALUE_INVALID"),
        (stop("AGENT", ANALYST + "/"), "SUSPENSION_VALUE_INVALID"),
        (stop("OWNER", "nobody"), "SUSPENSION_VALUE_INVALID"),
        (stop("TRUST_DOMAIN", "spiffe://dev.broker.internal"), "SUSPENSION_VALUE_INVALID"),
        (stop("EVERYTHING", "x"), "SUSPENSION_VALUE_INVALID"),
        (stop("TEMPLATE", ""), "SUSPENSION_VALUE_INVALID"),
        (stop("TEMPLATE", "x" * 2049), "FIELD_INVALID"),
        (stop("UNSPECIFIED", "x"), "FIELD_INVALID"),
        (admin.SuspendRequest(request_id="s", kind=99, value="x", reason="r"), "FIELD_INVALID"),  # type: ignore[arg-type]
        (admin.SuspendRequest(request_id="s", kind="KIND_TASK", value="x"), "FIELD_INVALID"),
        (admin.SuspendRequest(kind="KIND_TASK", value="x", reason="r"), "FIELD_INVALID"),
        (admin.SuspendRequest(request_id="s", kind="KIND_TASK", value="x", reason=" \u200b\n"), "FIELD_INVALID"),
        (stop("TASK", "x", duration={"seconds": 0}), "FIELD_INVALID"),
        (stop("TASK", "x", duration={"seconds": -5}), "FIELD_INVALID"),
        (stop("TASK", "x", duration={"seconds": 400 * 86400}), "FIELD_INVALID"),
    ],
)
async def test_bad_input_stops_nothing(served: Served, request_: admin.SuspendRequest, expected: str) -> None:
    assert await refused(person(served, "sam").Suspend(request_)) == (INVALID, expected)
    assert not (await person(served, "sam").ListSuspensions(admin.ListSuspensionsRequest())).suspensions


async def test_a_name_that_nothing_has_is_taken_and_told(served: Served) -> None:
    for number, (kind, value) in enumerate(
        [
            ("TEMPLATE", "orders-readnoly"),
            ("ENTRY", "analist"),
            ("AGENT", ANALYST + "s"),
            ("ACCOUNT", "x"),
            ("TASK", "task-of-nobody"),
        ]
    ):
        answer = await person(served, "sam").Suspend(stop(kind, value, f"s{number}"))
        assert answer.unknown_value
        assert answer.suspension.state == Suspension.STATE_IN_FORCE
    task = await start_task(served.stub())
    assert not (await person(served, "sam").Suspend(stop("TASK", task, "s9"))).unknown_value


async def test_the_same_again_is_one_suspension(served: Served) -> None:
    sam = person(served, "sam")
    first, again = await sam.Suspend(stop("AGENT", ANALYST)), await sam.Suspend(stop("AGENT", ANALYST))
    assert first.suspension == again.suspension
    assert await refused(sam.Suspend(stop("AGENT", OTHER))) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    bad = admin.ListSuspensionsRequest(page_token="susp-none")
    assert await refused(sam.ListSuspensions(bad)) == (INVALID, "PAGE_TOKEN_INVALID")


async def test_an_agent_cannot_lift_what_stops_it(served: Served) -> None:
    suspension = (await person(served, "sam").Suspend(stop("AGENT", ANALYST))).suspension.id
    channel = served.channel(svid(ANALYST))
    method = f"/{ADMIN_SERVICE.full_name}/Resume"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(method)(resume(suspension).SerializeToString())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
