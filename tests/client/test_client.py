"""What the SDK asks, and what it makes of the answers."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool

from broker.api.v1 import broker_service_pb2 as pb
from broker.api.v1 import task_pb2
from broker.client import AsyncClient, Grant, TaskFacts, read
from broker.errors import Defect, Denied, InvalidInput, NotReady, Reason, WrongState
from broker.scope.request import AccessRequest
from tests.client.fake_broker import AGENT, REVOKED, REVOKING, FakeBroker
from tests.patience import PATIENCE

ASK: dict[str, Any] = {"account": "shop", "environment": "dev", "resource": "orders", "ttl": "5m"}


async def test_whoami_tells_what_the_broker_knows(client: AsyncClient) -> None:
    identity = await client.whoami()
    assert (identity.spiffe_id, identity.owner, identity.roles) == (AGENT, "Ada", ("reader",))
    assert identity.svid_expire_time == datetime(2031, 5, 1, tzinfo=UTC)


async def test_templates_are_read_with_their_nested_messages(client: AsyncClient) -> None:
    (template,) = await client.templates()
    assert template.max_ttl == timedelta(minutes=15)
    assert template.resource is not None
    assert (template.resource.type, template.parameters[0].name) == ("enum", "schema")
    assert template.contract is not None
    assert template.contract.contract_class == "IMMEDIATE"
    assert template.contract.bound_on_revoke is None


async def test_a_task_is_started_used_confirmed_and_completed(client: AsyncClient, fake: FakeBroker) -> None:
    async with client.task("count orders", participants=["spiffe://example.org/agent/two"], ticket="T-1") as task:
        grant = await task.request("orders-readonly", **ASK, parameters={"schema": "public"}, step="plan", prompt="hm")
        assert grant.database.username == f"token-{grant.lease.attempt_id}"
        assert grant.database.password.reveal() == fake.secrets[0]
    assert [name for name, _ in fake.calls] == ["StartTask", "RequestCredential", "ConfirmDelivery", "CompleteTask"]
    started, asked, confirmed, completed = (request for _, request in fake.calls)
    assert (started.purpose, started.ticket, list(started.participants)) == (
        "count orders",
        "T-1",
        ["spiffe://example.org/agent/two"],
    )
    assert (asked.task_id, asked.ttl.seconds, dict(asked.parameters)) == (task.id, 300, {"schema": "public"})
    assert (asked.step, asked.prompt, asked.validate_only) == ("plan", "hm", False)
    assert (confirmed.lease_id, confirmed.attempt_id) == (grant.lease.id, grant.lease.attempt_id)
    assert completed.task_id == task.id
    assert task.outcome is not None
    assert [lease.state for lease in task.outcome.leases] == ["REVOKED"]
    assert task.outcome.may_be_alive == ()


async def test_every_request_has_an_id_of_its_own(client: AsyncClient, fake: FakeBroker) -> None:
    async with client.task("twice") as task:
        await task.request("orders-readonly", **ASK)
        await task.request("orders-readonly", **ASK)
    first, second = fake.asked("RequestCredential")
    assert first.request_id != second.request_id
    assert len(first.request_id) == 34  # 40 bits of time and 128 of chance in base32: ceil(168 / 5)


async def test_the_callers_request_id_is_used(client: AsyncClient, fake: FakeBroker) -> None:
    async with client.task("named", request_id="start-1") as task:
        await task.request("orders-readonly", **ASK, request_id="ask-1")
    assert fake.asked("StartTask")[0].request_id == "start-1"
    assert fake.asked("RequestCredential")[0].request_id == "ask-1"


async def test_validate_issues_nothing(client: AsyncClient, fake: FakeBroker) -> None:
    async with client.task("would it work?") as task:
        decision = await task.validate("orders-readonly", **ASK)
    assert (decision.policies, decision.policy_digest) == (("read-dev",), "d1g")
    assert fake.asked("RequestCredential")[0].validate_only
    assert fake.leases == {}
    assert fake.asked("ConfirmDelivery") == []


async def test_a_task_is_completed_when_its_block_raises(client: AsyncClient, fake: FakeBroker) -> None:
    with pytest.raises(ZeroDivisionError):
        async with client.task("fails") as task:
            await task.request("orders-readonly", **ASK)
            _ = 1 / 0
    assert len(fake.asked("CompleteTask")) == 1
    assert task.outcome is not None


async def test_a_task_is_completed_when_it_is_cancelled_twice(client: AsyncClient, fake: FakeBroker) -> None:
    inside = asyncio.Event()
    completing, finish = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow() -> None:
        loop.call_soon_threadsafe(completing.set)
        asyncio.run_coroutine_threadsafe(finish.wait(), loop).result(PATIENCE)

    fake.before["CompleteTask"] = slow

    async def work() -> None:
        async with client.task("is cancelled"):
            inside.set()
            await asyncio.Event().wait()

    running = asyncio.create_task(work())
    await inside.wait()
    running.cancel()
    await completing.wait()
    running.cancel()
    finish.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [task.state for task in fake.tasks.values()] == [2]  # STATE_COMPLETED


async def test_a_failing_completion_does_not_hide_the_blocks_own_error(
    client: AsyncClient, fake: FakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    fake.faults["CompleteTask"] = [Denied(Reason.NOT_TASK_CREATOR, "It is not yours.")]
    with pytest.raises(ZeroDivisionError):
        async with client.task("fails twice"):
            _ = 1 / 0
    assert "could not be completed: It is not yours." in caplog.text


async def test_a_failing_completion_is_raised_when_the_block_was_fine(client: AsyncClient, fake: FakeBroker) -> None:
    fake.faults["CompleteTask"] = [Denied(Reason.NOT_TASK_CREATOR, "It is not yours.")]
    with pytest.raises(Denied, match="It is not yours"):
        async with client.task("cannot be completed"):
            pass


async def test_a_task_that_ended_by_itself_still_reports_its_leases(client: AsyncClient, fake: FakeBroker) -> None:
    fake.faults["CompleteTask"] = [WrongState(Reason.TASK_ENDED, "It has ended.")]
    async with client.task("overdue") as task:
        for _ in range(3):  # with two to a page, two pages
            await task.request("orders-readonly", **ASK)
    assert task.outcome is not None
    assert len(task.outcome.leases) == 3
    assert len(fake.asked("ListLeases")) == 2


async def test_leases_not_proven_dead_are_reported(
    client: AsyncClient, fake: FakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    fake.expiry_only = True
    async with client.task("with STS") as task:
        grant = await task.request("deploy", **ASK)
    assert task.outcome is not None
    (left,) = task.outcome.may_be_alive
    assert (left.id, left.state, left.only_time_ends_it) == (grant.lease.id, "REVOKING", True)
    assert f"lease {left.id} of completed task {task.id} is still REVOKING" in caplog.text
    assert fake.leases[left.id].state == REVOKING


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("rpc", ["WhoAmI", "StartTask", "RequestCredential", "ConfirmDelivery", "CompleteTask"])
async def test_unavailable_is_retried_with_the_same_message(client: AsyncClient, fake: FakeBroker, rpc: str) -> None:
    fake.faults[rpc] = [grpc.StatusCode.UNAVAILABLE, NotReady(Reason.STORE_UNAVAILABLE, "Disk.")]
    await client.whoami()
    async with client.task("retries") as task:
        await task.request("orders-readonly", **ASK)
    requests = fake.asked(rpc)
    assert len(requests) == 3  # two faults, then the answer
    assert requests[0] == requests[1] == requests[2]


@pytest.mark.parametrize(
    "fault",
    [
        Denied(Reason.POLICY_DENIED, "No."),
        Defect(Reason.INTERNAL, "Oh."),
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ],
)
async def test_nothing_else_is_retried(client: AsyncClient, fake: FakeBroker, fault: Any) -> None:
    fake.faults["WhoAmI"] = [fault]
    with pytest.raises(Exception, match=r"."):
        await client.whoami()
    assert len(fake.asked("WhoAmI")) == 1


@pytest.mark.usefixtures("hasty")
async def test_retries_end(client: AsyncClient, fake: FakeBroker) -> None:
    fake.faults["WhoAmI"] = [NotReady(Reason.SHUTTING_DOWN, "Bye.")] * 9
    with pytest.raises(NotReady) as refused:
        await client.whoami()
    assert refused.value.reason is Reason.SHUTTING_DOWN
    assert len(fake.asked("WhoAmI")) == 4  # the first, and one after each of three waits


async def test_too_large_a_request_is_refused_here(client: AsyncClient, fake: FakeBroker) -> None:
    async with client.task("large") as task:
        with pytest.raises(InvalidInput) as refused:
            await task.request("orders-readonly", **ASK, plan="x" * 65536)
    assert refused.value.reason is Reason.MESSAGE_TOO_LARGE
    assert int(refused.value.metadata["bytes"]) > 65536
    assert fake.asked("RequestCredential") == []


@pytest.mark.parametrize(
    "ttl", ["nan", "0s", "0", "-5m", "5", "", "inf", "1e3s", "5 m", "５m", timedelta(), timedelta(-1), timedelta.max]
)
async def test_impossible_ttls_are_refused_before_anything_is_asked(
    client: AsyncClient, fake: FakeBroker, ttl: Any
) -> None:
    async with client.task("ttl") as task:
        with pytest.raises(InvalidInput) as refused:
            await task.request("orders-readonly", **{**ASK, "ttl": ttl})
    assert refused.value.reason is Reason.TTL_INVALID
    assert fake.asked("RequestCredential") == []


async def test_an_answer_without_a_credential_is_not_confirmed(client: AsyncClient, fake: FakeBroker) -> None:
    fake.kind = "none"
    async with client.task("empty") as task:
        with pytest.raises(Defect, match="does not know"):
            await task.request("orders-readonly", **ASK)
    assert fake.asked("ConfirmDelivery") == []


async def test_a_credential_whose_arrival_cannot_be_confirmed_is_given_back(
    client: AsyncClient, fake: FakeBroker
) -> None:
    """Nobody is told which lease it was, and the broker may have heard that it arrived."""
    task = await client.start_task("unconfirmed")

    def asked() -> AccessRequest:
        ttl = timedelta(minutes=5)
        return AccessRequest(client.new_id(), "orders-readonly", task.id, "shop", "dev", "orders", ttl)

    fake.faults["ConfirmDelivery"] = [Denied(Reason.SUSPENDED, "stopped"), grpc.StatusCode.INTERNAL]
    for told in (Denied, Defect):
        with pytest.raises(told):
            await client.request(asked())
    assert [lease.state for lease in fake.leases.values()] == [REVOKED, REVOKED]
    # Where that fails, too, the first error is told.
    fake.faults["ConfirmDelivery"], fake.faults["RevokeLease"] = (
        [Denied(Reason.SUSPENDED, "stopped")],
        [grpc.StatusCode.INTERNAL],
    )
    with pytest.raises(Denied):
        await client.request(asked())


async def test_a_credential_without_its_secret_is_refused() -> None:
    answer = pb.RequestCredentialResponse()
    answer.credential.database_login.username = "u"
    with pytest.raises(Defect, match="without its secret"):
        read.grant(answer)


async def test_a_grant_prints_no_secret(client: AsyncClient, fake: FakeBroker) -> None:
    async with client.task("shy") as task:
        grant: Grant = await task.request("orders-readonly", **ASK)
    assert fake.secrets[0] not in f"{grant!r} {grant} {grant.credential}"
    with pytest.raises(TypeError, match="is a DatabaseLogin, not a AwsSession"):
        _ = grant.aws


def test_the_models_mirror_the_messages() -> None:
    pool = descriptor_pool.Default()
    for name, kind in read.MIRRORS.items():
        wire = {each.name for each in pool.FindMessageTypeByName(name).fields}
        assert {each.name for each in fields(kind)} == wire, name


def test_an_unknown_enum_value_stays_a_text() -> None:
    task = task_pb2.Task(id="t")
    task.MergeFromString(bytes([9 << 3, 9]))  # field 9 (state) as a varint of 9: newer than this client
    assert read.read(TaskFacts, task).state == "9"
    assert read.read(TaskFacts, task_pb2.Task()).state == ""


async def test_a_closed_client_says_so(client: AsyncClient) -> None:
    await client.whoami()
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await client.whoami()
