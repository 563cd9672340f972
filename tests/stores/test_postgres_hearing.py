"""Daemons on one PostgreSQL hear of each other's commits: told, or by looking, also after their session was lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from broker.stores import others_commits
from broker.stores.postgres import PostgresStore
from tests.patience import PATIENCE
from tests.stores.conftest import LedgerDatabase
from tests.stores.make import new_task

_LISTENING = (
    "SELECT pid FROM pg_stat_activity WHERE application_name = 'brokerd hearing' AND datname = current_database()"
)


@asynccontextmanager
async def two(database: LedgerDatabase) -> AsyncIterator[tuple[PostgresStore, PostgresStore]]:
    a, b = await database.open("a"), await database.open("b")
    try:
        yield a, b
    finally:
        await a.close()
        await b.close()


@pytest.fixture
def only_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks by himself."""
    monkeypatch.setattr(others_commits, "EVERY", 3600.0)


async def hears(waiting: PostgresStore, committing: PostgresStore, number: int) -> None:
    """What ``committing`` does ends the waiting of the other, which then sees it."""
    head = await waiting.changed(-1)
    waits = asyncio.ensure_future(waiting.changed(head))
    await asyncio.sleep(0)
    await committing.start_task(new_task(f"task-{number}"))
    assert await asyncio.wait_for(waits, PATIENCE) > head
    assert (await waiting.get_task("default", f"task-{number}")).id == f"task-{number}"


async def test_who_waits_is_told_of_the_others_commits(ledger_database: LedgerDatabase, only_told: None) -> None:
    """F48: by the transaction that made the change."""
    others = listeners(ledger_database)
    async with two(ledger_database) as (a, b):
        await both_listen(ledger_database, others)
        await hears(a, b, 1)
        await hears(b, a, 2)


async def test_where_nobody_tells_it_is_found_by_looking(ledger_database: LedgerDatabase) -> None:
    """F48: the bound holds without a single word of the database's."""
    with ledger_database.session() as session:
        session.execute("DROP TRIGGER audit_head_moved ON audit_head")
    async with two(ledger_database) as (a, b):
        await hears(a, b, 1)
        await hears(b, a, 2)


@pytest.mark.slow  # a session that has died without a word is found out after half a minute
async def test_a_session_that_was_lost_is_made_again(
    ledger_database: LedgerDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = listeners(ledger_database)
    async with two(ledger_database) as (a, b):
        before = await both_listen(ledger_database, others)
        with ledger_database.session() as session:
            for pid in before:
                session.execute("SELECT pg_terminate_backend(%s)", (pid,))
        await both_listen(ledger_database, others | before)
        monkeypatch.setattr(others_commits, "EVERY", 3600.0)
        await hears(a, b, 1)


async def test_looking_does_not_take_back_what_a_daemon_itself_has_committed(ledger_database: LedgerDatabase) -> None:
    async with two(ledger_database) as (a, _):
        await a.start_task(new_task("task-1"))
        head = await a.changed(-1)
        a._others_committed(head - 1)
        assert await a.changed(-1) == head


def listeners(database: LedgerDatabase) -> frozenset[int]:
    """The sessions on which daemons listen."""
    with database.session() as session:
        return frozenset(int(str(pid)) for (pid,) in session.execute(_LISTENING).fetchall())


async def both_listen(database: LedgerDatabase, others: frozenset[int]) -> frozenset[int]:
    """The sessions of two daemons, once they have them; ``others`` are not theirs."""
    async with asyncio.timeout(PATIENCE):
        while len(found := listeners(database) - others) < 2:
            await asyncio.sleep(0.01)
    return found
