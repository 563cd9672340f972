"""A ledger moves from a file to a server: all of it, in its order, checked there, once."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from broker.errors import InvalidInput, NotReady, Reason, Tampered
from broker.ports.leases import LeaseFilter
from broker.stores import moving
from broker.stores.invariants import LedgerChecks
from broker.stores.moving import move
from broker.stores.sqlite import SqliteStore
from tests.stores.conftest import LedgerDatabase
from tests.stores.make import ALICE, TENANT, Keys, intent, new_task


async def filled(path: Path) -> SqliteStore:
    store = await SqliteStore.open(path, Keys(), "writer-0")
    for task in ("task-2", "task-1"):
        await store.start_task(new_task(task))
    for number in range(3):
        await store.open_intent(intent(str(number)))
    return store


@pytest.fixture
async def source(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite3"
    await (await filled(path)).close()
    return path


def rows(database: LedgerDatabase, table: str) -> int:
    with database.session() as session:
        found = session.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert found is not None
        return int(str(found[0]))


async def test_everything_goes_on_there(source: Path, ledger_database: LedgerDatabase) -> None:
    moved = move(source, ledger_database.owner, Keys())
    assert (moved.rows["tasks"], moved.rows["leases"], moved.rows["audit"]) == (2, 3, rows(ledger_database, "audit"))
    assert not source.exists() and moved.kept.exists()
    store = await ledger_database.open()
    found = await store.list_leases(LeaseFilter(TENANT, ALICE), "", 10)
    assert [lease.request_id for lease in found]
    await store.open_intent(intent("later"))
    with ledger_database.session() as session:
        order = session.execute("SELECT id FROM tasks ORDER BY rowid").fetchall()
    assert order == [("task-2",), ("task-1",)]
    await store.close()
    with LedgerChecks(ledger_database.owner) as checks:
        assert list(checks.violations(Keys())) == []


async def test_a_target_that_is_not_empty_is_left_alone(source: Path, ledger_database: LedgerDatabase) -> None:
    store = await ledger_database.open()
    await store.start_task(new_task("mine"))
    await store.close()
    with pytest.raises(InvalidInput, match="not empty"):
        move(source, ledger_database.owner, Keys())
    assert source.exists() and rows(ledger_database, "tasks") == 1 and rows(ledger_database, "leases") == 0


async def test_a_file_that_a_broker_has_is_not_moved(tmp_path: Path, ledger_database: LedgerDatabase) -> None:
    store = await filled(tmp_path / "ledger.sqlite3")
    with pytest.raises(NotReady):
        move(tmp_path / "ledger.sqlite3", ledger_database.owner, Keys())
    await store.close()
    assert rows(ledger_database, "tasks") == 0


async def test_what_is_interrupted_is_begun_again(
    source: Path, ledger_database: LedgerDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(moving, "_check", interrupted)
        move(source, ledger_database.owner, Keys())
    assert source.exists() and rows(ledger_database, "audit") == 0
    assert move(source, ledger_database.owner, Keys()).rows["tasks"] == 2


@pytest.mark.parametrize("since", ["", "the file", "the server"])
async def test_what_was_interrupted_after_its_commit_is_finished(
    source: Path, ledger_database: LedgerDatabase, monkeypatch: pytest.MonkeyPatch, since: str
) -> None:
    """All of it is there, and the file still has the name by which a broker would begin it again."""

    def interrupted(kept: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(moving, "_put_aside", interrupted)
        move(source, ledger_database.owner, Keys())
    assert source.exists() and rows(ledger_database, "tasks") == 2
    if not since:
        moved = move(source, ledger_database.owner, Keys())
        assert (moved.rows["tasks"], moved.rows["leases"]) == (2, 3)
        assert not source.exists() and moved.kept.exists()
        return
    # Two lives of one ledger: which of them counts is for people to say.
    store = await (ledger_database.open() if since == "the server" else SqliteStore.open(source, Keys(), "w"))
    await store.start_task(new_task("later"))
    await store.close()
    with pytest.raises(InvalidInput, match="not empty"):
        move(source, ledger_database.owner, Keys())
    assert source.exists()


async def test_what_arrives_changed_is_not_committed(
    source: Path, ledger_database: LedgerDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = moving._copy

    def changed(ledger: sqlite3.Connection, server: moving.PostgresConnection, table: str) -> int:
        count = copied(ledger, server, table)
        if table == "leases":
            server.execute("UPDATE leases SET account = 'another' WHERE request_id = 'request-1'")
        return count

    monkeypatch.setattr(moving, "_copy", changed)
    with pytest.raises(Tampered) as refused:
        move(source, ledger_database.owner, Keys())
    assert refused.value.reason is Reason.ROW_MAC_MISMATCH
    assert source.exists() and rows(ledger_database, "leases") == 0


async def test_damage_is_moved_as_it_is(source: Path, ledger_database: LedgerDatabase) -> None:
    """A row that failed its MAC before goes on failing it: it is still to be revoked."""
    with closing(sqlite3.connect(source)) as theirs, theirs:
        theirs.execute("UPDATE leases SET account = 'another' WHERE request_id = 'request-1'")
    move(source, ledger_database.owner, Keys())
    with LedgerChecks(ledger_database.owner) as checks:
        assert [each.detail for each in checks.violations(Keys())] == ["it fails its MAC"]


async def test_another_key_takes_nothing(source: Path, ledger_database: LedgerDatabase) -> None:
    with pytest.raises(Tampered):
        move(source, ledger_database.owner, Keys(other=b"o" * 32))
    assert source.exists() and rows(ledger_database, "audit") == 0
    with psycopg.connect(ledger_database.server.conninfo(ledger_database.name)) as session:
        assert session.execute("SELECT count(*) FROM tasks").fetchone() == (0,)
