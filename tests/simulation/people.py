"""What people do: say yes, and stop something now and then, for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from broker.approval.intent_digest import APPROVE_ACCESS_REQUEST, RELEASE_RECOVERY, nonce_of
from broker.dev.identity_provider import CLIENT_ID
from broker.errors import BrokerError, Defect
from broker.issuance.suspending import SuspensionOrder
from broker.ports.access_requests import FiledRequest
from broker.suspension.suspension import Kind
from tests.simulation.broker import SimulatedBroker
from tests.simulation.process import Gone
from tests.simulation.world import AGENTS, World

_RELEASERS = ("bea", "cyd")
_PATIENCE = 5.0  # seconds


def approve(world: World, broker: SimulatedBroker, filed: FiledRequest, key: str) -> Coroutine[Any, Any, Any]:
    """One person's yes, by a login for exactly this."""
    nonce = nonce_of(APPROVE_ACCESS_REQUEST, {"access_request_id": filed.id, "digest": filed.digest})
    token = world.provider.id_token(key, CLIENT_ID, nonce)
    return broker.approvals.approve(world.person(key, broker), filed.id, filed.digest, fresh_id_token=token)


async def operators(world: World, going: Callable[[], bool]) -> None:
    """They suspend at one replica what others may be issuing."""
    chance = world.chance
    while going():
        await world.later(0.3, 4)
        broker = world.any_broker()
        if broker is None or not going():
            continue
        everything = chance.sometimes("everything suspended", 0.5)
        value = "" if everything else chance.one_of(*(str(each.spiffe_id) for each in AGENTS))
        chance.told["suspended"] += 1
        lasts = timedelta(seconds=int(chance.between(1, 2.5)))
        order = SuspensionOrder(chance.id(), Kind.EVERYTHING if everything else Kind.AGENT, value, "drill", lasts)
        await _ask(world, broker, broker.suspensions.suspend(world.person("cyd", broker), order))


async def _ask(world: World, broker: SimulatedBroker, work: Coroutine[Any, Any, Any]) -> None:
    """They try again another time. Raises Defect."""
    try:
        async with asyncio.timeout(_PATIENCE):
            await world.ask(work, broker)
    except Defect:
        raise
    except (Gone, BrokerError, TimeoutError):
        return


async def releasers(world: World, going: Callable[[], bool]) -> None:
    """They look at a recovery for some seconds, and say that grants may begin again; some say so twice."""
    chance = world.chance
    while going() and world.witness is not None:
        await world.later(0.1, 1)
        broker = world.any_broker()
        if broker is None or not going():
            continue
        await _ask(world, broker, _release(world, broker, chance.one_of(*_RELEASERS)))


async def _release(world: World, broker: SimulatedBroker, key: str) -> None:
    person = world.person(key, broker)
    recovery = await broker.recovery.show(person)
    if recovery is not None and recovery.open:
        said = {"recovery_id": recovery.id, "reason": "looked at it"}
        token = world.provider.id_token(key, CLIENT_ID, nonce_of(RELEASE_RECOVERY, said))
        await broker.recovery.release(person, **said, request_id=world.chance.id(), fresh_id_token=token)
