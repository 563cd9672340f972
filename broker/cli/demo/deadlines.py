"""Steps: time ends a credential that nobody completes, also with brokerd dead."""

from __future__ import annotations

import socket
import time
from datetime import timedelta

from broker.cli.demo.database import seconds_until, turned_away
from broker.cli.demo.narrator import failed
from broker.cli.demo.world import READ_ORDERS, World
from broker.client import Grant, Lease
from broker.dev.loopback import LOOPBACK

TTL = timedelta(seconds=3)
# The upstream counts whole seconds and then has to end sessions and drop the role.
_LATE = timedelta(seconds=1)
_LEDGER_SECONDS = 10.0


async def time_ends_it(world: World) -> None:
    """Nobody completes the task; after its TTL the login is gone."""
    analyst = world.agent("analyst")
    async with analyst.task("ask, and forget about it") as task:
        asked = time.perf_counter()
        grant = await world.ask(analyst, READ_ORDERS, task.id, TTL)
        await _lives_and_dies(world, grant, asked)
        await _ledger_says_revoked(world, grant.lease.id)
        world.tell.checked((await analyst.get_task(task.id)).is_open, "Its task is still open: nobody completed it.")


async def time_ends_it_without_the_broker(world: World) -> None:
    """brokerd is killed right after issuing. OpenBao ends the login all the same, and the ledger catches up."""
    tell, analyst = world.tell, world.agent("analyst")
    task = await analyst.start_task("ask, just before brokerd dies")
    asked = time.perf_counter()
    grant = await world.ask(analyst, READ_ORDERS, task.id, TTL)
    await world.kill_brokerd()
    tell.checked(
        not _listens(world.facts.api_port),
        f"brokerd is killed with -9, {time.perf_counter() - asked:.1f} s after the agent asked.",
    )
    await _lives_and_dies(world, grant, asked)
    tell.checked(not _listens(world.facts.api_port), "brokerd was dead all the while.")
    await world.start_brokerd()
    await _ledger_says_revoked(world, grant.lease.id)
    await world.agent("analyst").complete_task(task.id)


async def _lives_and_dies(world: World, grant: Grant, asked: float) -> None:
    """The login works now, and not later than its TTL after the agent asked (perf_counter ``asked``)."""
    login = grant.database.username
    if await turned_away(grant.conninfo()) is not None:
        failed("the login did not work to begin with.")

    async def is_out() -> bool:
        return await turned_away(grant.conninfo()) is not None

    limit = (TTL + _LATE).total_seconds() - (time.perf_counter() - asked)
    await seconds_until(is_out, limit, f"a login with a TTL of {TTL.total_seconds():g} s is refused")
    took = time.perf_counter() - asked
    world.tell.checked(
        took <= (TTL + _LATE).total_seconds(),
        f"Asked for {TTL.total_seconds():g} s, granted {_granted(grant.lease):.0f} s (OpenBao counts whole seconds)."
        f" The login worked, and {took:.1f} s after it was asked for PostgreSQL refuses it.",
    )

    async def is_gone() -> bool:
        return login not in await world.database.logins()

    await seconds_until(is_gone, _LATE.total_seconds(), "the role is gone from PostgreSQL")
    world.tell.checked(
        await world.database.sessions(login) == 0, "Neither its role nor a session of it is left in PostgreSQL."
    )


def _granted(lease: Lease) -> float:
    if lease.expire_time is None or lease.create_time is None:
        failed("the lease does not say when it ends.")
    return (lease.expire_time - lease.create_time).total_seconds()


async def _ledger_says_revoked(world: World, lease_id: str) -> None:
    analyst = world.agent("analyst")

    async def is_over() -> bool:
        return not (await analyst.lease(lease_id)).may_be_alive

    await seconds_until(is_over, _LEDGER_SECONDS, "the ledger proves the lease's end")
    lease = await analyst.lease(lease_id)
    world.tell.checked(
        (lease.state, lease.end_cause) == ("REVOKED", "EXPIRED"),
        "The ledger says REVOKED, cause EXPIRED: brokerd looked, and OpenBao has the lease no more.",
        f"the ledger says {lease.state}, cause {lease.end_cause}.",
    )


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0
