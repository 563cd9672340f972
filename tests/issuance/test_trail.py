"""A page of the trail: in order, never too large, and never stuck at a record that is."""

from __future__ import annotations

from collections.abc import AsyncIterator
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
