"""A connector whose root credential is refused stops issuing, tells it, and comes back by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.audit.record import decode
from broker.daemon.pool import ConnectorPool
from broker.errors import BrokerError, NotReady, Reason, UpstreamFailed
from broker.lease.breaker import FAILURES
from broker.lease.root import Work
from broker.ports.deploys import ConnectorSpec
from tests.connectors.fake import IssueMishap, RevokeMishap
from tests.issuance.world import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World.open(tmp_path)
    yield made
    await made.close()


async def refusal(world: World, name: str) -> BrokerError | None:
    task = await world.task(name=f"task-{name}")
    try:
        await world.grant(task, name=name)
    except (NotReady, UpstreamFailed) as error:
        return error
    return None


async def told(world: World) -> list[tuple[str, dict[str, Any]]]:
    await world.upkeep.tell_roots()
    records = [decode(body) for body in await world.store.audit_since(0, 1_000)]
    return [(each.type, dict(each.data)) for each in records if each.type.startswith("connector.")]


async def tend(world: World) -> None:
    """What the daemon does once a minute."""
    pool = ConnectorPool(lambda spec: world.upstream, world.roots, world.clock)
    await pool.activate(pool.prepare({"fake": ConnectorSpec("fake", "fake", {}, "d")}, frozenset()))
    await pool.tend()


async def test_after_a_refused_issue_nothing_more_is_asked_of_it(world: World) -> None:
    world.upstream.issue_mishaps.append(IssueMishap.ROOT_REFUSED)
    first = await refusal(world, "r1")
    assert first is not None
    assert first.reason is Reason.UPSTREAM_ROOT_REFUSED
    calls = list(world.upstream.calls)
    intents = len(await world.store.audit_since(0, 1_000))
    task = await world.task(name="second")
    with pytest.raises(NotReady) as second:
        await world.grant(task, name="r2")
    assert second.value.reason is Reason.CONNECTOR_ROOT_REFUSED
    assert world.upstream.calls == calls  # nothing was asked of the upstream
    assert len(await world.store.audit_since(0, 1_000)) == intents + 1  # and nothing intended: the task alone
    ((type_, data),) = await told(world)
    assert (type_, data["connector"], data["seen_by"]) == ("connector.root_refused", "fake", "issue")


async def test_it_comes_back_by_itself_when_it_is_tended_and_issuing_works(world: World) -> None:
    world.upstream.issue_mishaps.append(IssueMishap.ROOT_REFUSED)
    await refusal(world, "r1")
    await tend(world)
    assert await refusal(world, "r2") is None
    assert await refusal(world, "r3") is None
    assert [type_ for type_, _ in await told(world)] == ["connector.root_refused", "connector.root_restored"]


async def test_the_log_says_once_that_it_began_and_that_it_ended(world: World) -> None:
    """Who looks at the log at 3 a.m. finds what to look at, and no line for each request."""
    world.upstream.issue_mishaps.append(IssueMishap.ROOT_REFUSED)
    with capture_logs() as logged:
        for name in ("r1", "r2"):
            await refusal(world, name)
            await told(world)
        await tend(world)
        assert await refusal(world, "r3") is None
        await told(world)
    began, ended = (line for line in logged if line.get("connector") == "fake" and line["event"] != "rpc")
    assert (began["log_level"], ended["log_level"]) == ("error", "warning")
    assert "refuses the broker's own credential" in began["event"] and began["why"] and "doctor" in began["hint"]
    assert "grants resume" in ended["event"]


async def test_so_does_it_of_a_circuit(world: World) -> None:
    now = world.clock.now()
    with capture_logs() as logged:
        for number in range(FAILURES + 3):
            world.breakers.failed("fake", Work.ISSUE, f"a-{number}", "no answer", now, 0.5)
            await world.upkeep.tell_circuits()
        world.breakers.works("fake", Work.ISSUE)
        for _ in range(3):
            await world.upkeep.tell_circuits()
    began, ended = logged
    assert (began["log_level"], began["connector"], began["why"]) == ("error", "fake", "no answer")
    assert "grants resume" in ended["event"]


async def test_a_trial_that_is_refused_closes_it_again_without_more_news(world: World) -> None:
    world.upstream.issue_mishaps.extend([IssueMishap.ROOT_REFUSED] * 2)
    await refusal(world, "r1")
    await tend(world)
    again, closed = await refusal(world, "r2"), await refusal(world, "r3")
    assert again is not None
    assert closed is not None
    assert (again.reason, closed.reason) == (Reason.UPSTREAM_ROOT_REFUSED, Reason.CONNECTOR_ROOT_REFUSED)
    assert len(await told(world)) == 1


async def test_what_cannot_be_ended_is_not_issued_until_it_is_ended(world: World) -> None:
    task = await world.task()
    await world.grant(task)
    world.upstream.revoke_mishaps.append(RevokeMishap.FORBIDDEN)
    await world.tasks.complete(world.caller(), task.id, timedelta(0))

    async def seen() -> bool:
        return "fake" in world.roots.standing

    await world.settle(seen)
    await tend(world)  # works, and is no proof that anything can be ended
    closed = await refusal(world, "r2")
    assert closed is not None
    assert closed.reason is Reason.CONNECTOR_ROOT_REFUSED
    await world.pass_time(timedelta(minutes=1))  # the revocation is tried again, and confirmed

    async def gone() -> bool:
        return "fake" not in world.roots.standing

    await world.settle(gone)
    assert await refusal(world, "r3") is None
    assert [(type_, data["seen_by"]) for type_, data in await told(world)] == [
        ("connector.root_refused", "revoke"),
        ("connector.root_restored", "revoke"),
    ]


async def test_a_refused_tending_stops_issuing_too(world: World) -> None:
    good = world.upstream.tend

    async def refused() -> None:
        raise UpstreamFailed(Reason.UPSTREAM_ROOT_REFUSED, "the token has expired")

    world.upstream.tend = refused  # type: ignore[method-assign]
    await tend(world)
    assert (await refusal(world, "r1")) is not None
    world.upstream.tend = good  # type: ignore[method-assign]
    await tend(world)
    assert (await refusal(world, "r2")) is None


async def test_an_upstream_that_is_merely_down_stops_nobody(world: World) -> None:
    async def down() -> None:
        raise UpstreamFailed(Reason.UPSTREAM_UNAVAILABLE, "no answer")

    world.upstream.tend = down  # type: ignore[method-assign]
    await tend(world)
    assert (await refusal(world, "r1")) is None


async def test_a_connector_that_is_taken_away_is_no_alarm(world: World) -> None:
    world.upstream.issue_mishaps.append(IssueMishap.ROOT_REFUSED)
    await refusal(world, "r1")
    pool = ConnectorPool(lambda spec: world.upstream, world.roots, world.clock)
    await pool.activate(pool.prepare({"other": ConnectorSpec("other", "fake", {}, "d")}, frozenset()))
    assert not world.roots.standing
