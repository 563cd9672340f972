"""A session of its own on which a PostgreSQL server tells that somebody's transaction moved the trail.

What is told while nobody listens, because the session was lost or is being made again, is not told later: that is what
looking is for (:mod:`broker.stores.others_commits`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
import structlog
from psycopg.abc import PQGen
from psycopg.conninfo import make_conninfo

from broker.stores.others_commits import EVERY
from broker.stores.postgres_connection import PATIENCE, WAY, ServerAddress

log = structlog.get_logger("broker.stores")

# As the trigger names it (migrations/postgres).
CHANNEL = "jit_broker_head"
# A word is waited for no longer, so that a session that has died without a word is found out.
_SILENCE = 30.0


async def hear(address: ServerAddress, wake: Callable[[], None], own: Callable[[], int]) -> None:
    """Call ``wake`` on the event loop whenever somebody else committed, until cancelled. Never raises for the database.

    ``own``: the server's process that writes for us, of whose commits we know.
    """
    while True:
        try:
            await _session(address, wake, own)
        except psycopg.Error as error:
            log.warning("commits of others are not told for now; they are looked for", why=type(error).__name__)
            await asyncio.sleep(EVERY)


T = TypeVar("T")


class _Session(psycopg.AsyncConnection[tuple[Any, ...]]):
    """One that waits no longer for the answer to a question than any other of brokerd's sessions."""

    async def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:  # noqa: ASYNC109
        """See psycopg.AsyncConnection.wait. Raises OperationalError, and then the session is closed."""
        if timeout is not None:  # a word is waited for
            return await super().wait(gen, interval, timeout)
        try:
            return await super().wait(gen, interval, PATIENCE)
        except psycopg.OperationalError:
            await self.close()
            raise


async def _session(address: ServerAddress, wake: Callable[[], None], own: Callable[[], int]) -> None:
    dsn = make_conninfo(address.dsn.reveal(), application_name="brokerd hearing", **WAY)
    beside = own()
    async with await _Session.connect(dsn, autocommit=True) as session:
        await session.execute(f"LISTEN {CHANNEL}")
        # Where the writer had to look for a server anew, this one may be a primary of before, which says nothing more.
        while beside == own():
            # What happened before the session listened.
            wake()
            async for word in session.notifies(timeout=_SILENCE):
                if word.pid != own():
                    wake()
            await session.execute("SELECT 1")
