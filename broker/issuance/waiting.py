"""Waiting for the ledger to say something, without polling it idly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from broker.lease.credential import ContractClass
from broker.lease.machine import State
from broker.ports.lease_store import LeaseStore
from broker.ports.leases import Lease

# After a wake-up that did not settle the question, the least time before the next look: under load
# every commit of anybody wakes every waiter.
_PAUSE = 0.005


async def until(condition: Callable[[], Awaitable[bool]], store: LeaseStore, seconds: float) -> bool:
    """Whether ``condition`` came true within ``seconds``, looked at after each change of the ledger."""
    try:
        async with asyncio.timeout(max(seconds, 0)):
            head = await store.changed(-1)
            while not await condition():
                head = await store.changed(head)
                await asyncio.sleep(_PAUSE)
            return True
    except TimeoutError:
        return await condition()


def only_time_ends(lease: Lease) -> bool:
    """Whether waiting for this lease is pointless: it must die, and nothing but its deadline does it."""
    return lease.state is State.REVOKING and lease.contract_class == ContractClass.EXPIRY_ONLY
