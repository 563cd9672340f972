"""Operators' automation: who comes in by an SVID, what it may look at and stop, and that it decides nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from broker.api.admin_server import ADMIN_SERVICE
from broker.api.authorization import AUTOMATION
from broker.api.authorization import ROLES as METHOD_ROLES
from broker.api.server import methods_of
from broker.api.v1 import admin_service_pb2 as pb
from broker.api.v1.admin_service_pb2_grpc import AdminServiceStub
from broker.dev.loopback import free_port
from tests.api.served import (
    ANALYST,
    CA,
    DOMAIN,
    Served,
    ask,
    people_changes,
    person,
    private,
    reason,
    resumption,
    serve,
    start_task,
    svid,
    token,
    write_config,
)

DENIED, UNAUTHENTICATED = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED
GUARD = f"spiffe://{DOMAIN}/ops/guard"
DASHBOARD = f"spiffe://{DOMAIN}/ops/dashboard"
REGISTERED = {
    "guard": {"spiffe_id": GUARD, "owner": "sam", "roles": ["operator", "approver"], "description": "guard"},
    "dashboard": {"spiffe_id": DASHBOARD, "owner": "lee", "roles": ["viewer"]},
}


def register(root: Path, automation: dict[str, Any]) -> None:
    path = root / "deploy" / "people.yaml"
    private(path, yaml.safe_dump({**yaml.safe_load(path.read_text()), "automation": automation}))


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    changes = people_changes(tmp_path)
    changes["listen"]["automation"] = f"127.0.0.1:{free_port()}"
    write_config(tmp_path, **changes)
    register(tmp_path, REGISTERED)
    async with serve(tmp_path, **changes) as running:
        yield running


def channel(served: Served, spiffe_id: str, **defects: Any) -> grpc.aio.Channel:
    made = svid(spiffe_id, **defects)
    credentials = grpc.ssl_channel_credentials(CA.pem, made.key_pem, made.pem + made.chain_pem)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", "localhost")]
    opened = grpc.aio.secure_channel(f"127.0.0.1:{served.daemon.doors.automation_port}", credentials, options=options)
    served.channels.append(opened)
    return opened


def automation(served: Served, spiffe_id: str = GUARD, **defects: Any) -> AdminServiceStub:
    return AdminServiceStub(channel(served, spiffe_id, **defects))


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return reason(caught.value)


async def test_it_stops_an_agent_and_a_person_starts_it_again(served: Served) -> None:
    agent, guard = served.stub(), automation(served)
    await agent.RequestCredential(ask(await start_task(agent)))
    told = await guard.GetOperator(pb.GetOperatorRequest())
    assert (told.key, told.subject, told.authenticated_by) == ("", GUARD, "x509-svid")
    stop = pb.SuspendRequest(request_id="s1", kind="KIND_AGENT", value=ANALYST, reason="it scans")
    stopped = await guard.Suspend(stop)
    assert (stopped.suspension.author, stopped.attempts_ended) == (GUARD, 1)
    assert stopped.suspension.author_name == "guard (automation of Sam Lindqvist)"
    lift = resumption(served, "sam", stopped.suspension.id)
    assert await refused(guard.Resume(lift)) == (DENIED, "PERSON_REQUIRED")
    assert (GUARD, "PERSON_REQUIRED") in await served.refusals()
    await person(served, "sam").Resume(lift)


async def test_principals_and_rpcs(served: Served) -> None:
    """Whatever is called, with an empty request: who is let in hears about its fields, everybody else about itself."""
    known = {GUARD: {"operator", "approver"}, DASHBOARD: {"viewer"}}
    for spiffe_id in (*known, ANALYST, f"spiffe://{DOMAIN}/ops/guard2"):
        opened = channel(served, spiffe_id)
        for method in methods_of(ADMIN_SERVICE):
            try:
                await opened.unary_unary(method)(b"")
                answer = (grpc.StatusCode.OK, "")
            except grpc.aio.AioRpcError as error:
                answer = reason(error)
            assert answer in expected(method, known.get(spiffe_id)), (spiffe_id, method)


def expected(method: str, roles: set[str] | None) -> set[tuple[grpc.StatusCode, str]]:
    if roles is None:
        return {(DENIED, "AUTOMATION_UNKNOWN")}
    if method not in AUTOMATION:
        return {(DENIED, "PERSON_REQUIRED")}
    if METHOD_ROLES[method] and not METHOD_ROLES[method] & roles:
        return {(DENIED, "ROLE_REQUIRED")}
    return {(grpc.StatusCode.OK, ""), (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")}


def test_automation_never_does_what_takes_a_person() -> None:
    takes_a_person = {"Resume", "ApproveAccessRequest", "DenyAccessRequest", "BreakGlass", "ReviewBreakGlass"}
    assert not takes_a_person & {method.rpartition("/")[2] for method in AUTOMATION}


async def test_neither_a_token_nor_a_bad_svid_is_a_way_in(served: Served) -> None:
    bearer = (("authorization", f"Bearer {token(served, 'kim')}"),)
    call = automation(served).GetOperator(pb.GetOperatorRequest(), metadata=bearer)
    assert await refused(call) == (UNAUTHENTICATED, "JWT_SVID_UNEXPECTED")
    bad = automation(served, ca=True, usage=("digital_signature", "key_cert_sign"))
    assert await refused(bad.GetOperator(pb.GetOperatorRequest())) == (UNAUTHENTICATED, "SVID_IS_CA")


async def test_it_is_out_when_it_is_taken_out_or_its_owner_is(served: Served) -> None:
    guard, dashboard = automation(served), automation(served, DASHBOARD)
    over = {**REGISTERED["guard"], "until": "2026-01-01T00:00:00Z"}
    register(served.root, {"guard": over})
    assert await served.daemon.reloader.reload()
    for stub in (guard, dashboard):
        assert await refused(stub.GetOperator(pb.GetOperatorRequest())) == (DENIED, "AUTOMATION_UNKNOWN")


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"owner": "nobody"}, "nobody is not in people.yaml"),
    ({"spiffe_id": DASHBOARD}, "is the same workload as"),
    ({"spiffe_id": "spiffe://X/y"}, "automation.guard.spiffe_id"),
    ({"roles": []}, "automation.guard.roles"),
    ({"roles": ["root"]}, "automation.guard.roles"),
)


async def test_a_registration_that_is_wrong_changes_nothing(served: Served) -> None:
    for changes, told in WRONG:
        register(served.root, {**REGISTERED, "guard": {**REGISTERED["guard"], **changes}})
        assert not await served.daemon.reloader.reload()
        assert told in (served.root / "state" / "reload.json").read_text()
    assert (await automation(served).GetOperator(pb.GetOperatorRequest())).subject == GUARD
