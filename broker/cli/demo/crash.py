"""Step: brokerd dies at the worst moment, when OpenBao has made a login and brokerd has not heard of it."""

from __future__ import annotations

import asyncio
import time

from broker.audit.event import EventType
from broker.cli.demo.database import seconds_until
from broker.cli.demo.narrator import failed, refusal
from broker.cli.demo.proxy import HoldingProxy
from broker.cli.demo.trail import events_of
from broker.cli.demo.world import READ_ORDERS, World
from broker.client import Lease
from broker.errors import Reason

_HELD_SECONDS = 15.0
# brokerd's limits in the embedded default: a call may take 5 s, and may land until twice that.
_SWEPT_SECONDS = 30.0


async def orphan_is_swept(world: World) -> None:
    """A login whose name nobody knows is ended by what the ledger noted before it was made."""
    tell, bao = world.tell, world.facts.openbao
    async with HoldingProxy(bao.address, bao.mount, READ_ORDERS.template) as proxy:
        await world.stack.stop_brokerd()
        await world.start_brokerd({"BROKER_DEV_OPENBAO_ADDR": proxy.address})
        before = await world.database.logins()
        task = await world.agent("analyst").start_task("ask, just as brokerd dies")
        asking = asyncio.create_task(world.ask(world.agent("analyst"), READ_ORDERS, task.id))
        orphan = await _orphan(world, proxy, asking, before)
        await world.kill_brokerd()
        tell.checked(await _exists(world, orphan), "brokerd is killed with -9. The login lives on.")
        error = await refusal(asking, Reason.BROKER_UNREACHABLE, "the agent's request")
        tell.told(f"The agent has no credential. It is told: {error.message}")
    tell.checked(await _exists(world, orphan), "brokerd is dead, the agent empty-handed, and the login still there.")
    begun = time.perf_counter()
    await world.start_brokerd()
    await seconds_until(lambda: _is_gone(world, orphan), _SWEPT_SECONDS, "the orphan is gone from PostgreSQL")
    tell.checked(
        not await world.database.sessions(orphan),
        f"brokerd is started again, and {time.perf_counter() - begun:.1f} s later the orphan is gone from PostgreSQL,"
        f" long before its TTL of {READ_ORDERS.ttl.total_seconds() / 60:g} minutes.",
    )
    await _ledger_knows(world, task.id, orphan)
    world.tell.told(f"({time.perf_counter() - begun:.1f} s after the start: only then can nothing land late any more.)")
    await world.agent("analyst").complete_task(task.id)


async def _orphan(world: World, proxy: HoldingProxy, asking: asyncio.Task[object], before: frozenset[str]) -> str:
    """The login that OpenBao has made while the proxy keeps its answer."""
    held = asyncio.create_task(proxy.held.wait())
    await asyncio.wait({held, asking}, timeout=_HELD_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    held.cancel()
    if not proxy.held.is_set():
        failed("OpenBao's answer never came by the proxy.")
    made = await world.database.logins() - before
    world.tell.checked(
        len(made) == 1,
        f"A proxy keeps OpenBao's answer back: the login {', '.join(made)} exists, and brokerd has not heard of it.",
        f"while the answer was kept back, PostgreSQL had {len(made)} new logins.",
    )
    (orphan,) = made
    return orphan


async def _exists(world: World, login: str) -> bool:
    return login in await world.database.logins()


async def _is_gone(world: World, login: str) -> bool:
    return not await _exists(world, login)


async def _ledger_knows(world: World, task_id: str, orphan: str) -> None:
    analyst = world.agent("analyst")

    async def is_over() -> bool:
        return not any(lease.may_be_alive for lease in await analyst.leases(task_id=task_id))

    await seconds_until(is_over, _SWEPT_SECONDS, "the ledger proves the end of what was asked for")
    lease = await _only_lease(world, task_id)
    types = await asyncio.to_thread(events_of, world.facts.ledger, lease.id)
    expected = [EventType.LEASE_INTENT, EventType.LEASE_REVOKING, EventType.LEASE_REVOKED]
    world.tell.checked(
        (lease.state, lease.end_cause) == ("REVOKED", "OUTCOME_UNKNOWN")
        and lease.attempt_id in orphan
        and types == expected,
        f"The ledger says of {lease.attempt_id}, the mark in its name: {', '.join(types)}, cause {lease.end_cause}."
        " Nobody ever got it.",
        f"the ledger says {lease.state}, cause {lease.end_cause}, events {types}.",
    )


async def _only_lease(world: World, task_id: str) -> Lease:
    leases = await world.agent("analyst").leases(task_id=task_id)
    if len(leases) != 1:
        failed(f"the ledger has {len(leases)} leases of that task.")
    return leases[0]
