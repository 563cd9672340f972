"""Quotas and tool lists on the way of a request: refused by name, with when to try again, and nothing has changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import BrokerError, Denied, Exhausted, InvalidInput, NotFound, Reason
from broker.policy.quotas import Per, Quota, Rate
from broker.ports.tasks import Task
from tests.issuance.world import ALICE, BOB, EVE, World

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = await World.open(tmp_path)
    yield world
    await world.close()


def bounded(world: World, *quotas: Quota) -> None:
    world.deploy = replace(world.deploy, quotas=quotas)


async def refused(world: World, task: Task, reason: Reason, family: type[BrokerError], **asked: object) -> BrokerError:
    """The next request is refused for ``reason``, and neither ledger nor upstream know of it."""
    before = await world.store.changed(-1), dict(world.upstream.alive)
    with pytest.raises(family) as caught:
        await world.grant(task, **asked)  # type: ignore[arg-type]
    assert caught.value.reason is reason
    assert (await world.store.changed(-1), dict(world.upstream.alive)) == before
    return caught.value


async def test_a_rate_lets_so_many_through_and_tells_when_the_next_may_come(world: World) -> None:
    bounded(world, Quota("calm", Per.AGENT, rate=Rate(2, MINUTE)))
    task = await world.task()
    for name in "ab":
        await world.grant(task, name=name)
    error = await refused(world, task, Reason.QUOTA_REQUESTS, Exhausted, name="c")
    assert error.retry_after == 30  # 60 / 2
    assert error.metadata == {
        "quota": "calm",
        "per": "agent",
        "subject": "spiffe://test/agent/alice",
        "limit": "2",
        "within": "60s",
    }
    await world.grant(await world.task(BOB, name="t2"), BOB, name="b1")
    world.clock.advance(timedelta(seconds=30))
    world.gate.heartbeat = world.clock.now()
    await world.grant(task, name="c")


async def test_what_is_denied_counts_too_and_what_one_rate_refuses_counts_nowhere(world: World) -> None:
    bounded(
        world,
        Quota("each", Per.AGENT, rate=Rate(1, MINUTE)),
        Quota("all", Per.CONNECTOR, rate=Rate(2, MINUTE)),
    )
    task = await world.task(ALICE, BOB, EVE)
    await refused(world, task, Reason.POLICY_DENIED, Denied, name="a", resource="secret")
    for name in "bcd":
        await refused(world, task, Reason.QUOTA_REQUESTS, Exhausted, name=name)
    await world.grant(task, BOB, name="e")
    error = await refused(world, task, Reason.QUOTA_REQUESTS, Exhausted, who=EVE, name="f")
    assert error.metadata["quota"] == "all"


async def test_a_dry_run_counts(world: World) -> None:
    bounded(world, Quota("calm", Per.TEMPLATE, rate=Rate(1, MINUTE)))
    task = await world.task()
    await world.issuer.request(world.caller(), world.asked(task), validate_only=True)
    await refused(world, task, Reason.QUOTA_REQUESTS, Exhausted)


async def test_naming_anothers_task_uses_up_none_of_its_rate(world: World) -> None:
    bounded(world, Quota("per-task", Per.TASK, rate=Rate(1, MINUTE)))
    task = await world.task()
    for number in range(5):
        await refused(world, task, Reason.TASK_NOT_FOUND, NotFound, who=EVE, name=f"e{number}")
    await world.grant(task)
    await refused(world, task, Reason.QUOTA_REQUESTS, Exhausted, name="r2")


async def test_a_rate_that_operators_take_away_is_forgotten_and_one_that_stays_is_not(world: World) -> None:
    calm, other = Quota("calm", Per.AGENT, rate=Rate(1, MINUTE)), Quota("other", Per.OWNER, rate=Rate(100, MINUTE))
    bounded(world, calm, other)
    task = await world.task()
    await world.grant(task, name="a")
    bounded(world, other, calm)
    await refused(world, task, Reason.QUOTA_REQUESTS, Exhausted, name="b")
    bounded(world, other)
    await world.grant(task, name="b")
    bounded(world, calm)
    await world.grant(task, name="c")


@pytest.mark.parametrize("per", list(Per))
async def test_living_leases_are_bounded_by_whatever_they_are_counted_by(world: World, per: Per) -> None:
    bounded(world, Quota("few", per, live_leases=1))
    task = await world.task()
    first = await world.grant(task, name="a")
    assert first.lease is not None
    error = await refused(world, task, Reason.QUOTA_LIVE_LEASES, Exhausted, name="b")
    assert error.metadata["quota"] == "few"
    assert error.retry_after == 300  # its TTL is 5 minutes
    await world.leases.revoke(world.caller(), first.lease.id, timedelta(seconds=5))
    await world.grant(task, name="b")


async def test_all_agents_of_an_owner_share_one_quota(world: World) -> None:
    bounded(world, Quota("few", Per.OWNER, live_leases=2))
    task = await world.task(ALICE, BOB, EVE)
    await world.grant(task, ALICE, name="a")
    await world.grant(task, BOB, name="b")
    error = await refused(world, task, Reason.QUOTA_LIVE_LEASES, Exhausted, who=EVE, name="c")
    assert error.metadata["subject"] == "Ada"


async def test_leases_from_before_the_quota_count(world: World) -> None:
    task = await world.task()
    await world.grant(task, name="a")
    bounded(world, Quota("few", Per.TEMPLATE, live_leases=1))
    await refused(world, task, Reason.QUOTA_LIVE_LEASES, Exhausted, name="b")


@pytest.mark.parametrize(
    ("tool_call", "reason", "family"),
    [
        ('{"tool": "sql.write"}', Reason.TOOL_NOT_ALLOWED, Denied),
        ("", Reason.TOOL_CALL_MALFORMED, InvalidInput),
        ("sql.read", Reason.TOOL_CALL_MALFORMED, InvalidInput),
    ],
)
async def test_a_tool_that_is_not_on_the_list_gets_nothing(
    world: World, tool_call: str, reason: Reason, family: type[BrokerError]
) -> None:
    reader = replace(ALICE, tools=frozenset({"sql.read"}))
    task = await world.task()
    await refused(world, task, reason, family, who=reader, tool_call=tool_call)
    granted = await world.grant(task, reader, tool_call='{"tool": "sql.read", "sql": "select 1"}')
    assert granted.lease is not None
    bodies = b"".join(await world.store.audit_since(0, 100))
    assert b'"tool":"sql.read"' in bodies
    assert b"select 1" not in bodies
