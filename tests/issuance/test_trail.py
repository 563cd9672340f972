"""A page of the trail: in order, never too large, and never stuck at a record that is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.audit.event import AuditEvent, EventType, Vouch
from broker.audit.record import decode
from broker.issuance.trail import TrailDesk
from tests.issuance.world import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World.gated(tmp_path)
    yield made
    await made.close()


async def test_pages_follow_each_other_to_the_end(world: World) -> None:
    def event(length: int) -> AuditEvent:
        return AuditEvent(EventType.TASK_REPORTED, "a", Vouch.AGENT, tenant="t", data={"x": "x" * length})

    long = 700_000  # two of them are more than a page has
    await world.store.append([event(each) for each in (1, long, long, 2 * long, 1, 1)], world.clock.now())
    desk, caller = TrailDesk(world.store), world.person("bea")
    pages, after, more = [], 0, True
    while more:
        page = await desk.read(caller, after, 2)
        pages.append([decode(each).seq for each in page.records])
        after, more = pages[-1][-1], page.more
    assert pages == [[1, 2], [3], [4], [5, 6]]
    assert await desk.read(caller, 6, 2) == ([], False)


async def test_each_event_says_whose_word_it_is(world: World) -> None:
    task = await world.task()
    lease = (await world.grant(task)).lease
    assert lease is not None
    await world.leases.confirm(world.caller(), lease.id, lease.attempt_id)
    await world.tasks.complete(world.caller(), task.id, timedelta(seconds=60))
    records = [decode(body) for body in await world.store.audit_since(0, 100)]
    assert {each.type: each.vouched_by for each in records} == {
        "task.started": "broker",
        "lease.intent": "broker",
        "lease.issued": "broker",
        "delivery.confirmed": "agent",
        "lease.revoking": "broker",
        "task.completed": "broker",
        "lease.revoked": "upstream",
    }
