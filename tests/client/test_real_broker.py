"""The SDK against brokerd itself, with a fake upstream: the two ends of the wire agree."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import broker.client
from broker.client import AsyncClient
from broker.errors import BrokerError, Denied, InvalidInput, NotFound, Reason, WrongState
from tests.api.served import ANALYST, CA, MIGRATOR, Served, serve, svid
from tests.client.fake_broker import svid_files
from tests.clock import StoppableClock
from tests.patience import PATIENCE

ASK: dict[str, Any] = {
    "account": "dev",
    "environment": "dev",
    "resource": "orders",
    "ttl": "60s",
    "intent": "count the orders",
}


@pytest.fixture
def clock() -> StoppableClock:
    """The broker's."""
    return StoppableClock()


@pytest_asyncio.fixture
async def served(tmp_path: Path, clock: StoppableClock) -> AsyncIterator[Served]:
    async with serve(tmp_path, clock=clock) as running:
        yield running


def connect(served: Served, who: str) -> AsyncClient:
    files = svid_files(served.root / "client" / who.rpartition("/")[2], svid(who), CA)
    return broker.client.connect(
        f"127.0.0.1:{served.port}", "localhost", certificate=files.certificate, key=files.key, bundle=files.bundle
    )


@pytest_asyncio.fixture
async def analyst(served: Served) -> AsyncIterator[AsyncClient]:
    async with connect(served, ANALYST) as client:
        yield client


async def test_the_main_story(analyst: AsyncClient, served: Served) -> None:
    assert (await analyst.whoami()).spiffe_id == ANALYST
    assert "orders-readonly" in {template.name for template in await analyst.templates()}
    async with analyst.task("count orders", hold=True) as task:
        grant = await task.request("orders-readonly", **ASK)
        assert grant.lease.state == "ACTIVE"
        assert grant.lease.confirm_by is None  # confirmed
        assert grant.lease.attempt_id in served.upstream.alive
        assert grant.decision.policies
        assert grant.conninfo().count("=") == 5
    assert task.outcome is not None
    assert (task.outcome.task.state, [each.state for each in task.outcome.leases]) == ("COMPLETED", ["REVOKED"])
    assert served.upstream.alive == {}
    assert [each.id for each in await analyst.leases(task_id=task.id)] == [grant.lease.id]
    assert await analyst.leases(living_only=True) == ()


async def test_validate_leaves_nothing(analyst: AsyncClient, served: Served) -> None:
    async with analyst.task("would it?") as task:
        decision = await task.validate("orders-readonly", **ASK)
        assert decision.policies
        assert decision.policy_digest
    assert served.upstream.alive == {}
    assert await analyst.leases() == ()


@pytest.mark.parametrize(
    ("changes", "family", "reason"),
    [
        ({"ttl": timedelta(hours=9)}, InvalidInput, Reason.TTL_TOO_LONG),
        ({"environment": "prod"}, InvalidInput, Reason.ENVIRONMENT_NOT_IN_TEMPLATE),
        ({"account": "'; --"}, InvalidInput, Reason.ACCOUNT_NOT_IN_TEMPLATE),
        ({"intent": ""}, InvalidInput, Reason.FIELD_REQUIRED_BY_TEMPLATE),
        ({"parameters": {"x": "1"}}, InvalidInput, Reason.PARAMETER_UNKNOWN),
        ({"account": ""}, InvalidInput, Reason.FIELD_INVALID),
    ],
)
async def test_refusals_come_as_their_own_types(
    analyst: AsyncClient, changes: dict[str, Any], family: type[BrokerError], reason: Reason
) -> None:
    async with analyst.task("refused") as task:
        with pytest.raises(family) as refused:
            await task.request("orders-readonly", **{**ASK, **changes})
    assert refused.value.reason is reason
    assert refused.value.message
    assert "hint" not in refused.value.metadata
    assert not refused.value.hint or refused.value.hint not in refused.value.message


async def test_a_template_that_is_not_there(analyst: AsyncClient) -> None:
    async with analyst.task("refused") as task:
        with pytest.raises(NotFound) as refused:
            await task.request("nothing", **ASK)
    assert refused.value.reason is Reason.TEMPLATE_NOT_FOUND


async def test_policy_says_no(analyst: AsyncClient) -> None:
    async with analyst.task("write") as task:
        with pytest.raises(Denied) as refused:
            await task.request("orders-readwrite", **ASK, reason="because", ticket="T-1")
    assert refused.value.reason is Reason.POLICY_DENIED


async def test_another_agent_sees_neither_lease_nor_task(analyst: AsyncClient, served: Served) -> None:
    async with analyst.task("mine") as task, connect(served, MIGRATOR) as other:
        grant = await task.request("orders-readonly", **ASK)
        for asking, reason in (
            (other.lease(grant.lease.id), Reason.LEASE_NOT_FOUND),
            (other.revoke(grant.lease.id), Reason.LEASE_NOT_FOUND),
            (other.get_task(task.id), Reason.TASK_NOT_FOUND),
            (other.complete_task(task.id), Reason.TASK_NOT_FOUND),
        ):
            with pytest.raises(NotFound) as refused:
                await asking
            assert refused.value.reason is reason
        assert (await analyst.lease(grant.lease.id)).state == "ACTIVE"


async def test_a_dropped_hold_ends_the_task(analyst: AsyncClient, served: Served, clock: StoppableClock) -> None:
    task = await analyst.start_task("held")
    async with analyst.hold(task.id, grace="60s"):
        assert (await analyst.get_task(task.id)).is_open
    async with asyncio.timeout(PATIENCE):
        while (await analyst.get_task(task.id)).is_open:
            # The grace is whole, and begins when the broker notices: at the latest by the next look.
            clock.stop_at(clock.now() + timedelta(seconds=61))
            await asyncio.sleep(0.05)
    with pytest.raises(WrongState) as refused:
        async with analyst.hold(task.id):
            pytest.fail("an ended task cannot be held")
    assert refused.value.reason is Reason.TASK_ENDED


async def test_watching_from_now_on_and_resuming(analyst: AsyncClient, served: Served) -> None:
    """Other records share the sequence, so the numbers jump; that is no gap."""
    async with analyst.task("watched") as task:
        await task.request("orders-readonly", **ASK)
        events = analyst.watch(after_sequence=0)
        first = [await anext(events) for _ in range(2)]
        await events.aclose()
        assert [event.type for event in first] == ["lease.intent", "lease.issued"]
        second = await task.request("orders-readonly", **ASK)
        events = analyst.watch(after_sequence=first[-1].sequence)
        seen: list[tuple[str, str]] = []
        async with asyncio.timeout(PATIENCE):
            async for event in events:
                assert event.lease is not None
                seen.append((event.type, event.lease.id))
                if event.type == "lease.issued" and event.lease.id == second.lease.id:
                    break
        await events.aclose()
        assert ("lease.intent", second.lease.id) in seen
        assert len(seen) == len(set(seen))


async def test_the_same_request_id_replaces_the_credential(analyst: AsyncClient, served: Served) -> None:
    async with analyst.task("again") as task:
        first = await task.request("orders-readonly", **ASK, request_id="r-1")
        again = await task.request("orders-readonly", **ASK, request_id="r-1")
        assert again.lease.id == first.lease.id
        assert again.lease.attempt_id != first.lease.attempt_id
        assert set(served.upstream.alive) == {again.lease.attempt_id}


async def test_an_unconfirmed_credential_is_taken_back(tmp_path: Path) -> None:
    async with (
        serve(tmp_path / "impatient", limits={"confirm_within": "1s"}) as impatient,
        connect(impatient, ANALYST) as client,
        client.task("silent") as task,
    ):
        grant = await task.request("orders-readonly", **ASK, confirm=False)
        async with asyncio.timeout(PATIENCE):
            while impatient.upstream.alive:
                await asyncio.sleep(0.05)
        with pytest.raises(WrongState) as refused:
            await client.confirm(grant)
    assert refused.value.reason is Reason.LEASE_ENDED


async def test_what_a_task_made_and_changed_is_told_with_its_end(analyst: AsyncClient, served: Served) -> None:
    async with analyst.task("count orders") as task:
        task.made("s3://reports/orders.csv", sha256="ab" * 32, media_type="text/csv")
        task.changed("table orders_daily", "UPDATED", count=3)
    (told,) = [each for each in await served.audit() if each["type"] == "task.reported"]
    assert (told["actor"], told["vouched_by"], told["task_id"]) == (ANALYST, "agent", task.id)
    assert told["data"] == {
        "artifacts": [{"uri": "s3://reports/orders.csv", "sha256": "ab" * 32, "media_type": "text/csv"}],
        "mutations": [{"resource": "table orders_daily", "action": "UPDATED", "count": 3}],
    }
