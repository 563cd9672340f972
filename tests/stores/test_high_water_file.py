"""The high-water mark in the file: over a restart, refreshed without commits of its own, and not to be forged."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from broker.ports.trail import HighWater
from broker.stores.invariants import LedgerChecks
from broker.stores.sqlite import SqliteStore
from tests.stores.contract_trail import event
from tests.stores.make import Keys, at


def change(path: Path, sql: str, *values: Any) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as theirs:
        assert theirs.execute(sql, values).rowcount == 1


def row(path: Path) -> Any:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT at_ms FROM high_water").fetchone()


async def test_it_is_there_after_a_restart(tmp_path: Path) -> None:
    """F39, I8: the next run begins where the last one was."""
    path = tmp_path / "l.sqlite3"
    store = await SqliteStore.open(path, Keys(), "w")
    await store.append([event()], at(1))
    await store.keep_time(at(100))
    await store.close()
    again = await SqliteStore.open(path, Keys(), "w")
    assert await again.high_water() == HighWater(at(100))
    await again.close()


async def test_batches_refresh_it_once_a_second(tmp_path: Path) -> None:
    """F39: a request's own transaction writes it, and hardly ever."""
    path = tmp_path / "l.sqlite3"
    store = await SqliteStore.open(path, Keys(), "w")
    seen = set()
    for tenth in range(31):
        await store.append([event()], at(10 + tenth / 10))
        seen.add(row(path))
    await store.close()
    assert len(seen) == 4  # at 10, 11, 12 and 13 s


async def test_a_forged_mark_is_not_believed_and_is_replaced(tmp_path: Path) -> None:
    """F34, F39: a mark of next century would end everything; the trail knows better."""
    path = tmp_path / "l.sqlite3"
    store = await SqliteStore.open(path, Keys(), "w")
    await store.append([event()], at(5))
    change(path, "UPDATE high_water SET at_ms = at_ms * 2")
    assert await store.high_water() == HighWater(at(5), intact=False)
    with LedgerChecks(path) as checks:
        assert [violation.where for violation in checks.violations(Keys())] == ["high_water 1/" + str(row(path)[0])]
    await store.keep_time(at(6))
    assert await store.high_water() == HighWater(at(6))
    await store.close()


async def test_a_record_that_is_not_ours_is_no_mark(tmp_path: Path) -> None:
    """F34: nor is a time that somebody wrote into the last record."""
    path = tmp_path / "l.sqlite3"
    store = await SqliteStore.open(path, Keys(), "w")
    await store.append([event()], at(5))
    change(
        path,
        "UPDATE audit SET body = CAST(replace(CAST(body AS TEXT), '\"at_ms\":1', '\"at_ms\":9') AS BLOB) WHERE seq = 1",
    )
    assert (await store.high_water()).at == at(5)
    await store.close()
