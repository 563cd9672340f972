"""What people do: say yes, and stop something now and then, for a while."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from broker.approval.intent_digest import APPROVE_ACCESS_REQUEST, nonce_of
from broker.dev.identity_provider import CLIENT_ID
from broker.errors import BrokerError
from broker.issuance.suspending import SuspensionOrder
from broker.ports.access_requests import FiledRequest
from broker.suspension.suspension import Kind
from tests.simulation.broker import SimulatedBroker
from tests.simulation.world import AGENTS, Gone, World

APPROVERS = ("bea", "cyd")


def approve(world: World, broker: SimulatedBroker, filed: FiledRequest, key: str) -> Coroutine[Any, Any, Any]:
    """One person's yes, by a login for exactly this."""
    nonce = nonce_of(APPROVE_ACCESS_REQUEST, {"access_request_id": filed.id, "digest": filed.digest})
    token = world.provider.id_token(key, CLIENT_ID, nonce)
    return broker.approvals.approve(world.person(key, broker), filed.id, filed.digest, fresh_id_token=token)


async def operators(world: World, going: Callable[[], bool]) -> None:
    """They suspend at one replica what others may be issuing."""
    chance = world.chance
    while going():
        await asyncio.sleep(chance.between(0.3, 6))
        broker = world.any_broker()
        if broker is None or not going():
            continue
        everything = chance.sometimes("everything suspended", 0.5)
        value = "" if everything else chance.one_of(*(str(each.spiffe_id) for each in AGENTS))
        chance.told["suspended"] += 1
        lasts = timedelta(seconds=int(chance.between(1, 3)))
        order = SuspensionOrder(chance.id(), Kind.EVERYTHING if everything else Kind.AGENT, value, "drill", lasts)
        with contextlib.suppress(Gone, BrokerError):
            await world.ask(broker.suspensions.suspend(world.person("cyd", broker), order), broker)
