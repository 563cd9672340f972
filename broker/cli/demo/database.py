"""What PostgreSQL itself says: to its superuser, and to somebody who comes with a login.

The story believes PostgreSQL, never the broker, about who can still log in.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import AsyncConnection

from broker.cli.demo.narrator import failed
from broker.dev.orders import DATABASE
from broker.dev.postgres import PostgresFacts

LOOK_SECONDS = 0.02
_CONNECT_SECONDS = 5
# Anything else (no connections left, starting up, nobody listens) is no refusal of this login.
_REFUSED = re.compile(
    r"FATAL: +((?:password authentication failed for user|role) \"[^\"]+\""
    r"(?: is not permitted to log in| does not exist)?)"
)

Session = AsyncConnection[Any]


class Database:
    """The superuser's view. An asynchronous context manager, because it keeps a connection."""

    def __init__(self, server: PostgresFacts) -> None:
        self._conninfo = server.conninfo(DATABASE)
        self._connection: Session | None = None

    async def __aenter__(self) -> Self:
        self._connection = await AsyncConnection.connect(self._conninfo, autocommit=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def logins(self) -> frozenset[str]:
        """Every role that OpenBao made for an attempt (it puts ``token-`` before an attempt's id)."""
        rows = await self._rows("SELECT rolname FROM pg_roles WHERE starts_with(rolname, 'token-')")
        return frozenset(name for (name,) in rows)

    async def sessions(self, login: str) -> int:
        """How many sessions of ``login`` are open, or of a role that is gone: a dropped one has no name here."""
        rows = await self._rows(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = %s OR (usename IS NULL AND usesysid IS NOT NULL)",
            login,
        )
        return int(rows[0][0])

    async def owner(self, table: str) -> str | None:
        """Who owns ``table`` in schema public; None if there is no such table."""
        rows = await self._rows(
            "SELECT tableowner FROM pg_tables WHERE schemaname = 'public' AND tablename = %s", table
        )
        return str(rows[0][0]) if rows else None

    async def orders(self) -> int:
        """How many orders there are."""
        return int((await self._rows("SELECT count(*) FROM public.orders"))[0][0])

    async def _rows(self, query: str, *arguments: str) -> list[tuple[Any, ...]]:
        if self._connection is None:
            raise RuntimeError("the superuser's view is opened by entering its `with` block")
        return await (await self._connection.execute(query.encode(), arguments)).fetchall()


async def enter(conninfo: str) -> Session:
    """A session with this login. Raises :class:`psycopg.OperationalError`."""
    return await AsyncConnection.connect(conninfo, autocommit=True, connect_timeout=_CONNECT_SECONDS)


async def answers(session: Session) -> bool:
    """Whether an open session is still served."""
    try:
        await session.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


async def turned_away(conninfo: str) -> str | None:
    """PostgreSQL's words when it turns this login away; None if it lets it in.

    Raises :class:`StepFailed` where PostgreSQL says neither: a server that is down refuses nobody.
    """
    try:
        session = await enter(conninfo)
    except psycopg.OperationalError as error:
        return refusing_words(str(error))
    await session.close()
    return None


def refusing_words(error: str) -> str:
    """The part of libpq's message in which PostgreSQL refuses the login. Raises :class:`StepFailed` without one."""
    found = _REFUSED.search(error)
    return found[1] if found else failed(f"PostgreSQL neither let the login in nor refused it: {error.strip()}")


async def seconds_until(holds: Callable[[], Awaitable[object]], within: float, what: str) -> float:
    """Look until ``holds``; the seconds it took. Raises :class:`StepFailed` after ``within`` seconds."""
    begun = time.perf_counter()
    while not await holds():
        if time.perf_counter() - begun > within:
            failed(f"{what}: not so within {within:g} s.")
        await asyncio.sleep(LOOK_SECONDS)
    return time.perf_counter() - begun


async def stays(holds: Callable[[], Awaitable[object]], seconds: float, what: str) -> None:
    """Look for ``seconds``; raises :class:`StepFailed` when it does not hold at any look."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        if not await holds():
            failed(f"{what}: it did not stay so for {seconds:g} s.")
        await asyncio.sleep(LOOK_SECONDS)
