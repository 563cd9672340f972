"""Revoking beside replicas with a newer deploy set: what only they can end is left to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.lease.machine import State
from broker.ports.leases import Attempt
from broker.revocation.revoker import Revoker
from tests.clock import CountingRng
from tests.issuance.world import TENANT, World
from tests.patience import becomes_true, eventually


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = await World.open(tmp_path)
    yield world
    await world.close()


@pytest.mark.parametrize("left", [True, False])
async def test_who_does_not_run_a_connector_leaves_it_to_those_who_do(world: World, left: bool) -> None:
    """F10: it would claim what it cannot end, again and again, and keep from it who can.

    Where nobody has a newer set nobody else will do it either: then it is tried, fails, and becomes an alarm.
    """
    grant = await world.grant(await world.task())
    assert grant.lease is not None
    without = Revoker(
        world.store, lambda name: None, world.clock, CountingRng(), workers=1, others_do=lambda name: left
    )
    world.later(grant.lease.expires_at - world.clock.now())
    before = await attempt(world, grant.lease.id)
    without.liveness.asked("fake", world.clock.now())
    without.kick("fake")
    await becomes_true(lambda: not without.liveness._asked)  # it has looked
    if not left:
        await eventually(lambda: tried(world, grant.lease.id))  # type: ignore[union-attr]
    await without.close()
    after = await attempt(world, grant.lease.id)
    assert (after == before) is left
    assert (after.state, after.failures) == ((State.ACTIVE, 0) if left else (State.REVOKING, 1))


async def tried(world: World, lease_id: str) -> bool:
    return (await attempt(world, lease_id)).failures > 0


async def attempt(world: World, lease_id: str) -> Attempt:
    (found,) = await world.store.living_attempts(TENANT, lease_id)
    return found
