"""Tasks that act for a human, at a running brokerd with a provider of its own: Dana may have reading done in dev."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from broker.api.v1 import admin_service_pb2 as admin
from broker.api.v1 import broker_service_pb2 as pb
from broker.approval.intent_digest import task_nonce
from broker.dev.identity_provider import CLIENT_ID, ON_BEHALF_OF
from tests.api.served import ANALYST, Served, admin_stub, ask, people_changes, reason, serve, start_task
from tests.patience import eventually


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serve(tmp_path, **people_changes(tmp_path)) as running:
        yield running


def login(served: Served, who: str = "dana", name: str = "t1", audience: str = ON_BEHALF_OF) -> str:
    return served.identity_provider.id_token(who, audience, task_nonce(ANALYST, name))


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return reason(caught.value)


async def test_a_task_for_dana_gets_what_both_may_and_is_reviewed_when_she_may_less(served: Served) -> None:
    agent = served.stub()
    task = await start_task(agent, on_behalf_of_token=login(served))
    told = (await agent.GetTask(pb.GetTaskRequest(task_id=task))).on_behalf_of
    assert (told.issuer, told.subject, told.display_name) == ("https://id.dev.broker.internal", "dana", "Dana Okafor")
    granted = await agent.RequestCredential(ask(task))
    assert granted.lease.attempt_id in served.upstream.alive

    people = served.root / "deploy" / "people.yaml"
    people.write_text(people.read_text().replace("access: [read]", "access: [write]"))
    await served.daemon.reload()
    denied = (grpc.StatusCode.PERMISSION_DENIED, "ON_BEHALF_OF_EXCEEDED")
    assert await refused(agent.RequestCredential(ask(task, "r2"))) == denied

    async def told_of() -> bool:
        return any(each["type"] == "lease.policy_tightened" for each in await served.audit())

    await eventually(told_of)
    assert granted.lease.attempt_id in served.upstream.alive


async def test_who_is_taken_out_of_people_has_the_leases_ended(served: Served) -> None:
    people = served.root / "deploy" / "people.yaml"
    lee = "  lee:\n    issuer: https://id.dev.broker.internal\n    subject: lee\n"
    assert lee in people.read_text()
    may = "    may: {access: [read], environments: [dev]}\n"
    people.write_text(people.read_text().replace(lee, lee + may))
    await served.daemon.reload()
    agent = served.stub()
    task = await start_task(agent, on_behalf_of_token=login(served, "lee"))
    granted = await agent.RequestCredential(ask(task))
    people.write_text(people.read_text().replace(may, may + "    disabled: true\n"))
    await served.daemon.reload()

    async def dead() -> bool:
        return granted.lease.attempt_id not in served.upstream.alive

    await eventually(dead)
    lease = await agent.GetLease(pb.GetLeaseRequest(lease_id=granted.lease.id))
    assert lease.end_cause == "PERSON_DISABLED"
    nobody = (grpc.StatusCode.PERMISSION_DENIED, "ON_BEHALF_OF_NOBODY")
    assert await refused(agent.RequestCredential(ask(task, "r2"))) == nobody
    assert await refused(start_task(agent, "t2", on_behalf_of_token=login(served, "lee", "t2"))) == nobody


async def test_one_audience_is_never_taken_for_the_other(served: Served) -> None:
    wrong = (grpc.StatusCode.UNAUTHENTICATED, "ID_TOKEN_AUDIENCE")
    at_the_door = login(served, audience=CLIENT_ID)
    assert await refused(start_task(served.stub(), on_behalf_of_token=at_the_door)) == wrong
    operator = admin_stub(served, login(served, "sam"))
    assert await refused(operator.GetOperator(admin.GetOperatorRequest())) == wrong


async def test_the_token_is_nowhere_in_the_trail(served: Served) -> None:
    token = login(served)
    await start_task(served.stub(), on_behalf_of_token=token)
    assert await refused(start_task(served.stub(), "t2", on_behalf_of_token=token)) == (
        grpc.StatusCode.UNAUTHENTICATED,
        "ID_TOKEN_NONCE",
    )
    trail = str(await served.audit())
    assert "https://id.dev.broker.internal#dana" in trail
    assert token not in trail and token.rpartition(".")[2] not in trail


async def test_a_broker_without_providers_takes_no_such_token(tmp_path: Path) -> None:
    async with serve(tmp_path) as running:
        call = start_task(running.stub(), on_behalf_of_token="a.b.c")
        assert await refused(call) == (grpc.StatusCode.INVALID_ARGUMENT, "ON_BEHALF_OF_NOT_TAKEN")
