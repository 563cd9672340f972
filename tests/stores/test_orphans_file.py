"""Orphans and marks in a SQLite file: what somebody with the file could do, and what is checked from outside."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from broker.errors import Reason, Tampered
from broker.lease.mark import Mark
from broker.ports.orphans import OrphanEnd
from broker.revocation.marking import own_mark
from broker.stores.invariants import MACS, LedgerChecks
from broker.stores.sqlite import SqliteStore
from tests.clock import ManualClock
from tests.stores.contract_orphans import CLAIM, OrphanContract, orphan, told
from tests.stores.make import TENANT, Keys, at


class TestSqliteOrphans(OrphanContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[SqliteStore]:
        store = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), "writer-1")
        yield store
        await store.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), "writer-1")
    yield store
    await store.close()


def change(tmp_path: Path, sql: str, *values: Any) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)) as theirs:
        assert theirs.execute(sql, values).rowcount >= 1


async def test_a_mark_survives_and_one_of_somebody_else_is_not_used(store: SqliteStore, tmp_path: Path) -> None:
    clock = ManualClock()
    ours = await own_mark(store, TENANT, clock)
    assert await own_mark(store, TENANT, clock) == ours
    change(tmp_path, "UPDATE marks SET mark = 'theirone'")
    with pytest.raises(Tampered) as seen:
        await store.mark(TENANT, "aaaaaaaa", at(0))
    assert seen.value.reason is Reason.ROW_MAC_MISMATCH
    with structlog.testing.capture_logs() as logged:
        fresh = await own_mark(store, TENANT, clock)
    assert fresh not in (ours, Mark("theirone"))
    assert [line["log_level"] for line in logged] == ["error"]


COLUMNS = {
    "handle": '{"lease":"another"}',
    "name": "another",
    "connector": "bao",
    "epoch": 7,
    "expires_at": 10**13,
    "attempt_id": "x",
}


@pytest.mark.parametrize("column", [name for name in COLUMNS if name != "connector"])
async def test_a_changed_row_ends_nothing_and_is_dropped(store: SqliteStore, tmp_path: Path, column: str) -> None:
    await store.add_orphans([orphan()])
    change(tmp_path, f"UPDATE upstream_orphans SET {column} = ?", COLUMNS[column])
    assert await store.orphans(TENANT, "", 10, living_only=False) == []
    assert await store.claim_orphans("bao", at(100), 10, CLAIM) == []
    ((_, _), (type_, data)) = await told(store)
    assert (type_, data["untrusted_row"]) == ("upstream.unknown_stuck", True)
    assert await store.connectors_in_use() == frozenset()
    assert len(await store.add_orphans([orphan(id="orphan-again")])) == 1


async def test_a_claim_whose_row_was_changed_meanwhile_records_nothing(store: SqliteStore, tmp_path: Path) -> None:
    await store.add_orphans([orphan()])
    (claimed,) = await store.claim_orphans("bao", at(100), 10, CLAIM)
    change(tmp_path, "UPDATE upstream_orphans SET name = 'another'")
    assert not await store.record_orphan(claimed, OrphanEnd.REVOKED, at(101), at(101), "", stuck=False)


@pytest.mark.parametrize("writer", ["writer-1", "nobody", None])
async def test_whose_work_it_is_said_to_be_decides_nothing(
    store: SqliteStore, tmp_path: Path, writer: str | None
) -> None:
    """It bears no MAC: whatever stands there, what is unknown is claimed, and ended."""
    await store.add_orphans([orphan()])
    change(tmp_path, "UPDATE upstream_orphans SET held_by = ?", writer)
    (claimed,) = await store.claim_orphans("bao", at(100), 10, CLAIM)
    change(tmp_path, "UPDATE upstream_orphans SET held_by = ?", writer)
    assert await store.record_orphan(claimed, OrphanEnd.REVOKED, at(101), at(101), "", False)


async def test_the_checks_from_outside_see_changed_rows(store: SqliteStore, tmp_path: Path) -> None:
    await store.add_orphans([orphan()])
    await store.mark(TENANT, "aaaaaaaa", at(0))
    path = tmp_path / "ledger.sqlite3"
    with LedgerChecks(path) as checks:
        assert list(checks.violations(Keys())) == []
    change(tmp_path, "UPDATE upstream_orphans SET name = 'another'")
    change(tmp_path, "UPDATE marks SET mark = 'theirone'")
    with LedgerChecks(path) as checks:
        found = list(checks.violations(Keys()))
    assert {each.invariant for each in found} == {MACS}
    assert {each.where.split()[0] for each in found} == {"marks", "upstream_orphans"}


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE upstream_orphans SET due_at = NULL",  # alive, and nobody's to end
        "UPDATE upstream_orphans SET ended_at = 1",
        "UPDATE upstream_orphans SET outcome = 'REVOKED'",
        "UPDATE upstream_orphans SET expires_at = created_at",
        "UPDATE upstream_orphans SET why = 'ADOPTED'",
        "INSERT INTO upstream_orphans SELECT 'other', id, connector, name, attempt_id, handle, why, created_at,"
        " expires_at, found_at, due_at, ended_at, outcome, epoch, failures, last_error, stuck, mac, mac_key_id, held_by"
        " FROM upstream_orphans",
    ],
)
async def test_what_the_database_itself_refuses(store: SqliteStore, tmp_path: Path, sql: str) -> None:
    await store.add_orphans([orphan()])
    with pytest.raises(sqlite3.IntegrityError):
        change(tmp_path, sql)
