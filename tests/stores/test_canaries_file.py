"""A measurement that somebody else wrote is none: nobody measured that."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from broker.stores.invariants import MACS, LedgerChecks
from broker.stores.sqlite import SqliteStore
from tests.stores.contract_canaries import measurement
from tests.stores.make import TENANT, Keys


@pytest.mark.parametrize(
    "change", ["measured_ms = 1", "outcome = 'LATE'", "connector = 'aws'", "why = 'x'", "told_at = 9"]
)
async def test_a_row_that_was_changed_is_not_shown_and_is_found(tmp_path: Path, change: str) -> None:
    path = tmp_path / "ledger.sqlite3"
    store = await SqliteStore.open(path, Keys(), "writer-1")
    await store.record_measurement(measurement(1))
    await store.record_measurement(measurement(2))
    with sqlite3.connect(path) as database:
        assert database.execute(f"UPDATE canary_measurements SET {change} WHERE id = 'canary-0002'").rowcount == 1
    database.close()
    assert await store.measurements(TENANT, "bao", 10) == [measurement(1)]
    assert await store.measurements(TENANT, "aws", 10) == []
    await store.close()
    with LedgerChecks(path) as checks:
        (violation,) = checks.violations(Keys())
    assert (violation.invariant, violation.where) == (MACS, f"canary_measurements {TENANT}/canary-0002")
