"""People break glass: for themselves, and for an agent's task. They end it, forget it, and review each other's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import fields
from datetime import timedelta
from typing import Any

from broker.approval.intent_digest import BREAK_GLASS, REVIEW_BREAK_GLASS, nonce_of
from broker.breakglass.intent import review_fields, use_fields
from broker.dev.identity_provider import CLIENT_ID
from broker.errors import BrokerError, Defect
from broker.issuance.break_glass_order import BreakGlassOrder
from broker.issuance.issue import Grant
from broker.ports.leases import Lease
from tests.simulation.broker import SimulatedBroker
from tests.simulation.glass import USERS
from tests.simulation.leaks import look_at
from tests.simulation.process import Gone
from tests.simulation.world import World

_REVIEWERS = ("eli", "fay", "eli", "fay", *USERS)
_PATIENCE = 12.0  # seconds: longer than an issue may take
Work = Callable[[SimulatedBroker], Coroutine[Any, Any, Any]]


async def emergencies(world: World, going: Callable[[], bool]) -> None:
    """Some at once: what one waits for does not keep the next from it."""
    under_way: set[asyncio.Task[None]] = set()
    while going():
        await world.later(0.3, 3)
        if going():
            task = asyncio.create_task(_emergency(world, world.chance.one_of(*USERS)))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
    for task in list(under_way):
        await task


async def _emergency(world: World, key: str) -> None:
    chance = world.chance
    task = chance.one_of(*world.tasks) if world.tasks and chance.often(0.7) else ""
    ttl = timedelta(seconds=int(chance.between(4, 40)))
    account = chance.one_of("dev", "prod")
    order = BreakGlassOrder(
        chance.id(), "orders-read", account, "dev", "orders", ttl, "orders are locked", "INC-1", task_id=task
    )
    for _ in range(3):
        grant = await _ask(world, lambda broker: _use(world, broker, key, order))
        if isinstance(grant, Grant) and grant.lease is not None:
            await _work(world, key, grant.lease)
            if not chance.sometimes("glass broken again for the same", 0.2):
                return
        await asyncio.sleep(chance.between(0, 2))


async def _use(world: World, broker: SimulatedBroker, key: str, order: BreakGlassOrder) -> Grant:
    asked = {each.name: getattr(order, each.name) for each in fields(order) if each.name != "request_id"}
    token = _login(world, key, BREAK_GLASS, use_fields(**asked))
    grant = await broker.glass.use(world.person(key, broker), order, fresh_id_token=token)
    world.chance.told["glass broken"] += 1
    world.chance.told["glass broken for an agent's task"] += bool(order.task_id)
    if grant.lease is not None and grant.credential is not None:
        world.delivered(grant.lease.attempt_id, broker.process)
    return grant


async def _work(world: World, key: str, lease: Lease) -> None:
    chance = world.chance
    if not chance.sometimes("an emergency's delivery never confirmed", 0.3):
        await _ask(world, lambda broker: broker.glass.confirm(world.person(key, broker), lease.id, lease.attempt_id))
    await asyncio.sleep(chance.between(0, 2))
    if chance.often(0.8):
        await _ask(world, lambda broker: broker.glass.end(world.person(key, broker), lease.id, timedelta(seconds=1)))


async def reviewers(world: World, going: Callable[[], bool]) -> None:
    """Now and then somebody looks at what is owed, and reviews one of it; some try that with their own."""
    chance = world.chance
    while going():
        await world.later(0.2, 2)
        if not going():
            return
        key = chance.one_of(*_REVIEWERS)
        owed = await _ask(world, lambda broker, key=key: _unsettled(world, broker, key))
        if owed:
            lease = chance.one_of(*owed)
            await _ask(world, lambda broker, key=key, lease=lease: _review(world, broker, key, lease))


async def _unsettled(world: World, broker: SimulatedBroker, key: str) -> list[str]:
    page, _ = await broker.glass.list(world.person(key, broker), unsettled=True, after="", limit=20)
    return [use.lease_id for use, _ in page]


async def _review(world: World, broker: SimulatedBroker, key: str, lease: str) -> None:
    findings = "was needed"
    token = _login(world, key, REVIEW_BREAK_GLASS, review_fields(lease, findings))
    person = world.person(key, broker)
    await broker.reviews.review(person, lease, world.chance.id(), findings, fresh_id_token=token)
    world.chance.told["an emergency reviewed"] += 1


def _login(world: World, key: str, action: str, about: dict[str, str]) -> str:
    """For exactly this, and another one each time."""
    return world.provider.id_token(key, CLIENT_ID, nonce_of(action, about), claims={"jti": world.chance.id()})


async def _ask(world: World, work: Work) -> Any:
    """The answer; None: refused, or the broker is gone. Raises Defect."""
    broker = world.any_broker()
    if broker is None:
        await world.later(0.5, 0.5)
        return None
    try:
        async with asyncio.timeout(_PATIENCE):
            return await world.ask(work(broker), broker)
    except (Gone, TimeoutError):
        return None
    except Defect:
        raise
    except BrokerError as refused:
        look_at("what a person is told", str(refused).encode())
        world.chance.told[f"refused: {refused.reason}"] += 1
        return None
