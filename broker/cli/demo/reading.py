"""Step: an agent proves who it is, gets a login, reads with it, and cannot write."""

from __future__ import annotations

import asyncio
from datetime import datetime

import psycopg
from psycopg import errors
from spiffe import WorkloadApiClient

from broker.cli.demo.database import Session, enter
from broker.cli.demo.narrator import failed
from broker.cli.demo.world import READ_ORDERS, World, agent_id

_WORKLOAD_API_SECONDS = 10.0


async def reads_but_cannot_write(world: World) -> None:
    """The SVID is real, the login is real, and its limits are PostgreSQL's own."""
    tell, analyst = world.tell, world.agent("analyst")
    spiffe_id, ends = await asyncio.to_thread(_fetch_svid, world.facts.endpoints[agent_id("analyst")])
    minutes = (ends - world.clock.now()).total_seconds() / 60
    tell.checked(minutes > 0, f"py-spiffe fetched an X.509-SVID for {spiffe_id}, good for {minutes:.0f} minutes.")
    known = await analyst.whoami()
    tell.checked(
        known.spiffe_id == spiffe_id,
        f"The broker knows it over mTLS as {known.spiffe_id}: {known.tier}, owned by {known.owner}.",
    )
    async with analyst.task("count the open orders") as task:
        grant = await world.ask(analyst, READ_ORDERS, task.id)
        login = grant.database.username
        tell.checked(
            grant.lease.attempt_id in login and login in await world.database.logins(),
            f"Policy {', '.join(grant.decision.policies)} allows it. OpenBao made the PostgreSQL login {login}.",
        )
        async with await enter(grant.conninfo()) as session:
            await reads(world, session)
            await cannot_write(world, session)


def _fetch_svid(endpoint: str) -> tuple[str, datetime]:
    client = WorkloadApiClient(endpoint)
    try:
        svid = client.fetch_x509_svid(timeout=_WORKLOAD_API_SECONDS)
    finally:
        client.close()
    return str(svid.spiffe_id), svid.leaf.not_valid_after_utc


async def reads(world: World, session: Session) -> None:
    """The session sees every order."""
    row = await (await session.execute("SELECT count(*) FROM orders")).fetchone()
    there = await world.database.orders()
    world.tell.checked(row == (there,), f"It reads: all {there} orders.")


async def cannot_write(world: World, session: Session) -> None:
    """PostgreSQL refuses a DELETE for lack of privileges, and for no other reason."""
    before = await world.database.orders()
    try:
        await session.execute("DELETE FROM orders")
    except errors.InsufficientPrivilege as refused:
        words = refused.diag.message_primary
    except psycopg.Error as other:
        failed(f"its DELETE was refused for another reason than privileges: {other.diag.message_primary or other}")
    else:
        failed("PostgreSQL carried out a DELETE with a read-only login.")
    world.tell.checked(
        await world.database.orders() == before, f"PostgreSQL itself refuses its DELETE: {words}. Nothing changed."
    )
