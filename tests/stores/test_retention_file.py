"""Retention on a SQLite file: nothing that refers to a task is left, and nothing that was tampered with goes."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from broker.stores import retention_ops
from broker.stores.queries import SQL, migrations
from broker.stores.sqlite import SqliteStore
from tests.stores.contract import revoke_all
from tests.stores.contract_pipelines import EVERYBODY, cited, confirmed, granted, hand_on
from tests.stores.contract_retention import LATER, completed, over
from tests.stores.make import BOB, TASK, TENANT, Keys, at, intent, new_task

# What a task consists of; whatever refers to one of these has to go with it.
OF_A_TASK = {"tasks", "leases", "attempts", "access_requests", "plans", "delegations"}


async def opened(path: Path) -> SqliteStore:
    return await SqliteStore.open(path / "ledger.sqlite3", Keys(), "writer-1")


def edit(path: Path, statement: str, *values: Any) -> list[Any]:
    """What an intruder does, or looks at."""
    connection = sqlite3.connect(path / "ledger.sqlite3")
    with connection:
        found = connection.execute(statement, values).fetchall()
    connection.close()
    return found


def test_every_table_that_refers_to_a_task_goes_with_it() -> None:
    database = sqlite3.connect(":memory:")
    for _, text in sorted(migrations().items()):
        database.executescript(text)
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    referring = {
        table
        for table in tables
        for key in database.execute(f"PRAGMA foreign_key_list({table})")
        if key[2] in OF_A_TASK
    }
    deleted = [SQL[query].split()[2] for query in retention_ops.DELETES]
    assert referring | OF_A_TASK <= set(deleted)
    assert len(set(deleted)) == len(deleted)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE leases SET resource = 'other'",
        "UPDATE attempts SET connector = 'other'",
        "UPDATE tasks SET purpose = 'other'",
        # To have the broker forget a credential that lives: the rows are made to look over.
        "UPDATE attempts SET handle = '{}'",
    ],
)
async def test_a_row_that_was_tampered_with_keeps_its_task(tmp_path: Path, statement: str) -> None:
    store = await opened(tmp_path)
    await over(store)
    await over(store, "whole", "2")
    named = {"tasks": "id = 'task-1'", "leases": "id = 'lease-1'", "attempts": "lease_id = 'lease-1'"}
    edit(tmp_path, f"{statement} WHERE {named[statement.split()[1]]}")
    assert await store.delete_ended(LATER, LATER) == 1  # the other one
    assert [row[0] for row in edit(tmp_path, "SELECT id FROM leases")] == ["lease-1"]
    await store.close()


async def test_a_pipeline_goes_whole(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.start_task(new_task(participants=EVERYBODY))
    await confirmed(store)
    await granted(store, cited(intent(), plan="plan-1"))
    await store.delegate(hand_on())
    part = intent("2", holder=BOB, entry="bob", now=4, ttl=30)
    await granted(store, cited(part, delegation="delegation-1"))
    await completed(store)
    assert await store.delete_ended(LATER, LATER) == 0
    await revoke_all(store, now=101)
    assert await store.delete_ended(LATER, LATER) == 0  # the plan can still be read
    await store.erase_texts_before(at(1_000), 10, LATER)
    assert await store.delete_ended(LATER, LATER) == 1
    for table in ("tasks", "leases", "attempts", "lease_origins", "plans", "delegations"):
        assert edit(tmp_path, f"SELECT * FROM {table}") == [], table
    await store.close()


async def test_texts_are_erased_by_their_own_way_first(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await over(store)
    edit(tmp_path, "INSERT INTO task_text_keys VALUES (?, ?, zeroblob(60), 'k1', 0)", TENANT, TASK)
    assert await store.delete_ended(LATER, LATER) == 0
    await store.erase_texts_before(at(1), 10, LATER)
    assert await store.delete_ended(LATER, LATER) == 1
    await store.close()


async def test_many_go_in_small_transactions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention_ops, "PORTION", 3)
    monkeypatch.setattr(retention_ops, "ROWS", 4)
    store = await opened(tmp_path)
    for number in range(8):
        if number % 3:
            await over(store, f"t{number}", str(number))
        else:
            await store.start_task(new_task(f"t{number}"))
    assert await store.delete_ended(LATER, LATER) == 5
    assert [row[0] for row in edit(tmp_path, "SELECT id FROM tasks ORDER BY id")] == ["t0", "t3", "t6"]
    counted = edit(tmp_path, "SELECT body FROM audit WHERE CAST(body AS TEXT) LIKE '%retention.deleted%'")
    assert len(counted) > 1
    await store.close()
