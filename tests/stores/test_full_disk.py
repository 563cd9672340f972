"""No room left in the database (SQLITE_FULL): operations fail whole, and work again when there is room."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from broker.errors import NotReady, Reason
from broker.stores.audit_reader import AuditReader
from broker.stores.sqlite import SqliteStore
from tests.stores.make import TASK, TENANT, Keys, at, intent, new_task


def limit(store: SqliteStore, pages: int) -> None:
    """Let the file have so many pages more than it has now; SQLite then behaves as on a full disk."""
    connection: sqlite3.Connection = store._connection
    (count,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {count + pages}")


@pytest.mark.parametrize("pages", range(0, 24, 3))
async def test_full_at_every_place(tmp_path: Path, pages: int) -> None:
    """F36: the more pages are left, the later in its batch an operation meets the end of the disk."""
    path = tmp_path / "ledger.sqlite3"
    store = await SqliteStore.open(path, Keys(), "w")
    await store.start_task(new_task())
    limit(store, pages)
    calls = [store.open_intent(intent(f"{n}", max_live_leases=1000)) for n in range(100)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert failures
    assert {type(failure) for failure in failures} == {NotReady}
    assert {failure.reason for failure in failures if isinstance(failure, NotReady)} == {Reason.STORE_UNAVAILABLE}
    stored = {lease.id for lease in await store.task_leases(TENANT, TASK)}
    assert stored == {f"lease-{n}" for n, outcome in enumerate(outcomes) if not isinstance(outcome, BaseException)}

    limit(store, 10_000)
    again = await store.open_intent(intent("again", now=2, max_live_leases=1000))
    assert (await store.get_lease(TENANT, again.lease_id, intent().holder)).created_at == at(2)
    await store.close()
    with AuditReader(path) as audit:
        assert list(audit.verify(Keys().find)) == []
        told = [record.lease_id for record in audit.records() if record.type == "lease.intent"]
    assert sorted(told) == sorted({*stored, "lease-again"})
