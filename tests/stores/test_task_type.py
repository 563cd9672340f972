"""What of a task came with later schemas: older rows are still ours, and no row can be given it or robbed of it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from broker.errors import Reason, Tampered
from broker.identity.behalf import Human
from broker.stores import migrate as migrating
from broker.stores.ledger_file import connect_writer, prepare_file
from broker.stores.queries import migrations
from broker.stores.seal import RowSeal
from broker.stores.sqlite import SqliteStore
from tests.stores.make import TENANT, Keys, new_task

OLD = """
INSERT INTO tasks (tenant, id, creator, request_id, request_digest, participants, purpose, ticket, sponsor, created_at,
    deadline, hold_grace, hold_until, state, cause, ended_at, ends_at, mac, mac_key_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


def change(path: Path, sql: str, *values: object) -> None:
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(sql, values).rowcount == 1
    connection.close()


async def opened(path: Path) -> SqliteStore:
    return await SqliteStore.open(path, Keys(), "w")


async def old_ledger(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger of the first schema with one task, its MAC made as that release made it."""
    prepare_file(path)
    connection = connect_writer(path)
    with monkeypatch.context() as patched:
        patched.setattr(migrating, "migrations", lambda: {1: migrations()[1]})
        assert migrating.migrate(connection) == 1
    values = (
        TENANT,
        "task-0",
        "spiffe://example.org/a",
        "r",
        "d",
        '["spiffe://example.org/a"]',
        "work",
        "",
        "",
        1,
        2**40,
    )
    state = (0, None, "OPEN", None, None, 2**40)
    connection.execute(OLD, (*values, *state, *RowSeal(Keys()).make("tasks", (*values, *state))))
    connection.close()


async def test_a_row_of_the_first_schema_still_verifies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await old_ledger(tmp_path / "l", monkeypatch)
    store = await opened(tmp_path / "l")
    task = await store.get_task(TENANT, "task-0")
    assert (task.purpose, task.task_type) == ("work", "")
    await store.close()


@pytest.mark.parametrize("given", ["report", ""])
async def test_it_cannot_be_given_a_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    await old_ledger(tmp_path / "l", monkeypatch)
    await (await opened(tmp_path / "l")).close()
    change(tmp_path / "l", "UPDATE tasks SET task_type = ?", given)
    await refused(tmp_path / "l", "task-0")


@pytest.mark.parametrize("said", ["report", ""])
@pytest.mark.parametrize("after", ["incident", "", None])
async def test_no_row_can_be_given_another(tmp_path: Path, said: str, after: str | None) -> None:
    store = await opened(tmp_path / "l")
    await store.start_task(new_task("task-1", task_type=said))
    assert (await store.get_task(TENANT, "task-1")).task_type == said
    await store.close()
    change(tmp_path / "l", "UPDATE tasks SET task_type = ?", after)
    if after == said:
        store = await opened(tmp_path / "l")
        assert (await store.get_task(TENANT, "task-1")).task_type == said
        await store.close()
    else:
        await refused(tmp_path / "l", "task-1")


async def refused(path: Path, task: str) -> None:
    store = await opened(path)
    with pytest.raises(Tampered) as caught:
        await store.get_task(TENANT, task)
    assert caught.value.reason is Reason.ROW_MAC_MISMATCH
    await store.close()


HUMAN = Human("https://idp.test", "bea", "Bea")
OTHER = '["https://idp.test","cyd","Cyd"]'


@pytest.mark.parametrize(
    "change_to",
    [
        ("UPDATE tasks SET on_behalf_of = ?", OTHER),
        ("UPDATE tasks SET on_behalf_of = ?", None),
        ("UPDATE tasks SET id_token = ?", "0" * 64),
        ("UPDATE tasks SET id_token = ?", None),
        ("UPDATE tasks SET on_behalf_of = NULL, id_token = ?", None),
    ],
)
async def test_no_row_can_be_given_another_human_or_robbed_of_its(
    tmp_path: Path, change_to: tuple[str, object]
) -> None:
    store = await opened(tmp_path / "l")
    await store.start_task(new_task("task-1", on_behalf_of=HUMAN, id_token="a" * 64))
    assert (await store.get_task(TENANT, "task-1")).on_behalf_of == HUMAN
    await store.close()
    change(tmp_path / "l", *change_to)
    await refused(tmp_path / "l", "task-1")


async def test_a_task_for_nobody_cannot_be_given_somebody(tmp_path: Path) -> None:
    store = await opened(tmp_path / "l")
    await store.start_task(new_task("task-1"))
    await store.close()
    change(tmp_path / "l", "UPDATE tasks SET on_behalf_of = ?", OTHER)
    await refused(tmp_path / "l", "task-1")
