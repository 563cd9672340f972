"""The ledger's file: who can open it, in which schema, with which guarantees."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from broker.errors import BrokerError, InvalidInput, NotFound, NotReady, Reason, Tampered
from broker.stores.audit_reader import AuditReader
from broker.stores.backup import back_up
from broker.stores.ledger_file import ProcessLock, connect_reader, connect_writer, prepare_file
from broker.stores.migrate import migrate, statements
from broker.stores.queries import migrations
from broker.stores.sqlite import SqliteStore
from tests.stores.make import TASK, TENANT, Keys, new_task


async def refused(path: Path, family: type[BrokerError], reason: Reason, keys: Keys | None = None) -> BrokerError:
    with pytest.raises(family) as caught:
        await SqliteStore.open(path, keys or Keys(), "w")
    assert caught.value.reason is reason
    return caught.value


async def filled(path: Path, keys: Keys | None = None) -> None:
    store = await SqliteStore.open(path, keys or Keys(), "w")
    await store.start_task(new_task())
    await store.close()


def change(path: Path, sql: str, *values: object) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(sql, values)
    connection.close()


async def test_it_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    kept = os.umask(0)
    try:
        store = await SqliteStore.open(path, Keys(), "w")
        await store.start_task(new_task())
        modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in tmp_path.iterdir()}
        await store.close()
    finally:
        os.umask(kept)
    assert {f"ledger.sqlite3{suffix}" for suffix in ("", "-wal", "-shm", ".lock")} == set(modes)
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
async def test_a_directory_that_others_write_to(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "state"
    directory.mkdir()
    directory.chmod(mode)
    await refused(directory / "ledger.sqlite3", InvalidInput, Reason.CONFIG_INVALID)
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
async def test_a_file_that_others_can_open(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "ledger.sqlite3"
    await filled(path)
    path.chmod(mode)
    await refused(path, InvalidInput, Reason.CONFIG_INVALID)


async def test_what_is_no_file_of_ours(tmp_path: Path) -> None:
    await refused(tmp_path / "absent" / "ledger.sqlite3", InvalidInput, Reason.CONFIG_INVALID)
    (tmp_path / "directory").mkdir()
    await refused(tmp_path / "directory", InvalidInput, Reason.CONFIG_INVALID)
    await filled(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    await refused(tmp_path / "link", InvalidInput, Reason.CONFIG_INVALID)
    garbage = tmp_path / "garbage"
    garbage.touch(mode=0o600)
    garbage.write_bytes(b"no database" * 1000)
    await refused(garbage, NotReady, Reason.STORE_UNAVAILABLE)


async def test_two_brokers_do_not_share_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    store = await SqliteStore.open(path, Keys(), "w")
    refusal = await refused(path, NotReady, Reason.STORE_UNAVAILABLE)
    assert refusal.metadata["process"] == str(os.getpid())
    await store.start_task(new_task())  # the first one is not disturbed
    await store.close()
    second = await SqliteStore.open(path, Keys(), "w")
    assert (await second.get_task(TENANT, TASK)).id == TASK
    await second.close()


async def test_the_lock_is_the_ledgers_own_too(tmp_path: Path) -> None:
    """Who finds a lock file that looks left over removes it."""
    path = tmp_path / "ledger.sqlite3"
    store = await SqliteStore.open(path, Keys(), "w")
    (tmp_path / "ledger.sqlite3.lock").unlink()
    await refused(path, NotReady, Reason.STORE_UNAVAILABLE)
    await store.close()
    # One of a process that is dead stands in nobody's way.
    (tmp_path / "ledger.sqlite3.lock").write_text("1\n")
    await filled(path)


async def test_a_lock_that_cannot_say_who_has_it_is_had_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F36: on a disk without a byte left; what was left due must be revoked."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    path = tmp_path / "ledger.sqlite3"
    store = await SqliteStore.open(path, Keys(), "w")
    assert (await refused(path, NotReady, Reason.STORE_UNAVAILABLE)).metadata["process"] == ""
    await store.close()


@pytest.mark.parametrize("moved", [False, True])
async def test_where_there_was_a_ledger_no_new_one_is_begun(tmp_path: Path, moved: bool) -> None:
    """It would know nothing of what is alive. One that was moved to a server has a name for it."""
    path = tmp_path / "ledger.sqlite3"
    await filled(path)
    path.rename(tmp_path / ("ledger.sqlite3.moved" if moved else "mislaid"))
    refusal = await refused(path, InvalidInput, Reason.CONFIG_INVALID)
    assert ("ledger.dsn" if moved else "put it back") in refusal.hint and not path.exists()
    (tmp_path / "ledger.sqlite3.lock").unlink()  # a person means it
    await filled(path)


@pytest.mark.parametrize("emptied", [False, True])
async def test_a_backup_beside_the_log_of_another_ledger_is_not_opened(tmp_path: Path, emptied: bool) -> None:
    """SQLite would write the pages of that log into it: the ledger that was to be replaced, or a mixture of both."""
    path, log, backup = tmp_path / "ledger.sqlite3", tmp_path / "ledger.sqlite3-wal", tmp_path / "backup"
    await filled(path)
    back_up(path, backup)
    store = await SqliteStore.open(path, Keys(), "w")
    await store.start_task(new_task("task-2"))
    left = log.read_bytes()  # as of one that was killed
    await store.close()
    log.write_bytes(left)
    path.write_bytes(b"" if emptied else backup.read_bytes())
    refusal = await refused(path, InvalidInput, Reason.CONFIG_INVALID)
    assert "ledger.sqlite3-wal" in refusal.message + refusal.hint
    with pytest.raises(InvalidInput, match=r"ledger\.sqlite3-wal"):
        AuditReader(path)
    assert log.read_bytes() == left, "what was found is kept"
    log.unlink()
    path.write_bytes(backup.read_bytes())
    store = await SqliteStore.open(path, Keys(), "w")
    assert (await store.get_task(TENANT, TASK)).id == TASK
    with pytest.raises(NotFound):
        await store.get_task(TENANT, "task-2")
    await store.start_task(new_task("task-3"))  # its own log is not in its way
    with AuditReader(path) as reader:
        assert reader.head() is not None
    await store.close()


async def test_an_empty_file_where_there_was_a_ledger_is_none(tmp_path: Path) -> None:
    """Of a copy that found no room on the disk."""
    path = tmp_path / "ledger.sqlite3"
    await filled(path)
    path.write_bytes(b"")
    assert "is empty" in (await refused(path, InvalidInput, Reason.CONFIG_INVALID)).message
    assert path.read_bytes() == b""


async def test_a_first_start_that_was_killed_before_it_wrote_anything_begins_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    prepare_file(path)
    ProcessLock(path).release()
    await filled(path)


@pytest.mark.parametrize("name", ["ledger.sqlite3", "ledger.sqlite3-wal"])
async def test_what_was_removed_or_replaced_while_it_is_open_is_found(tmp_path: Path, name: str) -> None:
    path, elsewhere = tmp_path / name, tmp_path / "elsewhere"
    store = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), "w")
    assert not await store.displaced()
    await store.start_task(new_task())
    assert not await store.displaced()
    path.rename(elsewhere)
    assert await store.displaced() == name
    path.write_bytes(elsewhere.read_bytes())
    assert await store.displaced() == name
    # What can still be ended is: who has it open goes on.
    await store.start_task(new_task("task-2"))
    elsewhere.rename(path)
    assert not await store.displaced()
    await store.close()


async def test_a_refused_opening_lets_go_of_everything(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    await filled(path)
    change(path, "UPDATE audit_head SET seq = 7")
    before = set(Path("/proc/self/fd").iterdir())
    await refused(path, Tampered, Reason.AUDIT_CHAIN_BROKEN)
    assert set(Path("/proc/self/fd").iterdir()) == before


async def test_a_new_files_name_is_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F37: after a power cut the file must still have its name; its own syncs do not see to that (fsync(2))."""
    synced: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    await filled(tmp_path / "ledger.sqlite3")
    assert synced == [tmp_path.stat().st_ino]
    await filled_again(tmp_path / "ledger.sqlite3")
    assert len(synced) == 1


async def filled_again(path: Path) -> None:
    store = await SqliteStore.open(path, Keys(), "w")
    assert (await store.get_task(TENANT, TASK)).id == TASK
    await store.close()


def test_durability_is_read_back(tmp_path: Path) -> None:
    """F37: on every connection, not once."""
    path = tmp_path / "ledger.sqlite3"
    prepare_file(path)
    writer = connect_writer(path)
    migrate(writer)
    reader = connect_reader(path)
    for connection in (writer, reader):
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with pytest.raises(sqlite3.OperationalError):
        reader.execute("DELETE FROM tasks")
    reader.close()
    writer.close()


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    """F50: no downgrade."""
    path = tmp_path / "ledger.sqlite3"
    await filled(path)
    newer = len(migrations()) + 1
    change(path, "UPDATE schema_version SET version = ?, readable_from = ?", newer, newer)
    refusal = await refused(path, Tampered, Reason.SCHEMA_VERSION)
    assert refusal.metadata == {"found": str(newer), "known": str(len(migrations()))}


def test_a_migration_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = migrations()
    broken = {**good, len(good) + 1: "CREATE TABLE halfway (a);\nCREATE TABLE tasks (a);\n"}
    monkeypatch.setattr("broker.stores.migrate.migrations", lambda: broken)
    path = tmp_path / "ledger.sqlite3"
    prepare_file(path)
    connection = connect_writer(path)
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection)
    assert connection.execute("SELECT version FROM schema_version").fetchone() == (len(good),)
    assert connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'halfway'").fetchone() is None
    connection.close()


def test_a_script_is_cut_into_statements() -> None:
    text = "-- one; two\nCREATE TABLE a (b); -- three\nINSERT INTO a\nVALUES (';');\n"
    assert [part.strip() for part in statements(text)] == [
        "-- one; two\nCREATE TABLE a (b); -- three",
        "INSERT INTO a\nVALUES (';');",
    ]


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM audit_head",
        "DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)",
        "DELETE FROM audit",
        "UPDATE audit_head SET mac = zeroblob(32)",
        "UPDATE audit_head SET hash = zeroblob(32)",
        "UPDATE audit_head SET seq = seq + 1",
        "UPDATE audit_head SET mac_key_id = 'unknown'",
    ],
)
async def test_an_audit_head_that_is_not_ours_is_not_continued(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "ledger.sqlite3"
    await filled(path)
    change(path, damage)
    with pytest.raises(Tampered):
        await SqliteStore.open(path, Keys(), "w")


async def test_keys_overlap(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    await filled(path, Keys(old=b"o" * 32))
    store = await SqliteStore.open(path, Keys(new=b"n" * 32, old=b"o" * 32), "w")
    assert (await store.get_task(TENANT, TASK)).id == TASK
    await store.start_task(new_task("task-2"))
    await store.close()
    # The old key gone, what it signed is not trusted any more, and what the new one signed is.
    store = await SqliteStore.open(path, Keys(new=b"n" * 32), "w")
    assert (await store.get_task(TENANT, "task-2")).id == "task-2"
    with pytest.raises(Tampered) as caught:
        await store.get_task(TENANT, TASK)
    assert caught.value.reason is Reason.ROW_MAC_MISMATCH
    await store.close()


async def test_a_closed_ledger_refuses(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), "w")
    await store.close()
    await store.close()
    with pytest.raises(NotReady) as caught:
        await store.start_task(new_task())
    assert caught.value.reason is Reason.SHUTTING_DOWN
    for read in (lambda: store.get_task(TENANT, TASK), lambda: store.task_leases(TENANT, TASK)):
        with pytest.raises(NotReady):
            await read()
