"""Rows that somebody else changed: seen on every read, never granted on, and revoked all the same."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.audit.record import decode
from broker.errors import BrokerError, Reason, Tampered
from broker.identity.behalf import Human
from broker.lease.machine import Event, State
from broker.ports.leases import EndCause, LeaseFilter, Selector
from broker.ports.tasks import TaskState
from broker.ports.views import LeaseSearch, TaskSearch
from broker.stores.audit_reader import AuditReader
from broker.stores.rows import AttemptRow, LeaseRow
from broker.stores.sqlite import SqliteStore
from tests.stores.contract import activate, grant, revoke_all
from tests.stores.make import ALICE, BOB, TASK, TENANT, Keys, at, intent, new_task


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), "w")
    yield store
    await store.close()


async def change(store: SqliteStore, sql: str, *values: Any) -> None:
    """What somebody with the file could do: on a connection of their own, beside the running broker."""
    (_, _, path) = store._connection.execute("PRAGMA database_list").fetchone()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as theirs:
        assert theirs.execute(sql, values).rowcount >= 1


async def tampered(call: Any) -> None:
    with pytest.raises(Tampered) as caught:
        await call
    assert caught.value.reason is Reason.ROW_MAC_MISMATCH


COLUMNS = {
    "tasks": {"deadline": 10**13, "participants": '["spiffe://example.org/mallory"]', "state": "OPEN", "purpose": "x"},
    "leases": {"expires_at": 10**13, "holder": "spiffe://example.org/mallory", "resource": "*", "access": "write"},
    "attempts": {"expires_at": 10**13, "handle": '{"attempt":"another"}', "epoch": 77, "upstream": "x", "number": 3},
}


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [(table, column, value) for table, columns in COLUMNS.items() for column, value in columns.items()],
)
async def test_any_changed_column_fails_the_mac(store: SqliteStore, table: str, column: str, value: Any) -> None:
    """F34: every column is under the MAC: whatever is read of the row refuses."""
    await store.start_task(new_task())
    await grant(store)
    if (table, column) == ("tasks", "state"):
        await store.end_task(TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(3))
        await change(store, "UPDATE tasks SET state = 'OPEN', cause = NULL, ended_at = NULL, ends_at = deadline")
    else:
        await change(store, f"UPDATE {table} SET {column} = ?", value)
    if table == "tasks":
        await tampered(store.get_task(TENANT, TASK))
        await tampered(store.open_intent(intent("2", now=3)))
        await tampered(store.check_intent(intent("2", now=3)))
        await tampered(store.hold_task(TENANT, TASK, timedelta(seconds=1), at(5), at(4)))
    elif table == "leases":
        holder = "spiffe://example.org/mallory" if column == "holder" else ALICE
        await tampered(store.get_lease(TENANT, "lease-1", holder))
        await tampered(store.list_leases(LeaseFilter(TENANT, holder), "", 10))
        await tampered(store.task_leases(TENANT, TASK))
        await tampered(store.confirm_delivery(TENANT, "lease-1", holder, "attempt-1", at(3)))
    else:
        await tampered(store.confirm_delivery(TENANT, "lease-1", ALICE, "attempt-1", at(3)))
        await tampered(store.open_intent(intent("2", now=3, request_id="request-1")))


# Of no MAC: which replica has an attempt in hand, which says how soon something is tried again, and nothing else.
COURTESIES = {"held_by"}


async def test_every_column_is_under_the_mac(store: SqliteStore) -> None:
    """No column can be changed alone (a new column that is left out of the MAC fails here)."""
    await store.start_task(new_task(on_behalf_of=Human("https://idp.test", "bea", "Bea"), id_token="a" * 64))
    await grant(store)
    view = store._readers._own
    for table, query, parameters in (
        ("tasks", "task_by_id", {"tenant": TENANT, "task_id": TASK}),
        ("leases", "lease_by_id", {"tenant": TENANT, "lease_id": "lease-1"}),
        ("attempts", "attempts_of_lease", {"tenant": TENANT, "lease_id": "lease-1"}),
    ):
        (*values, mac, key_id) = view.all(query, parameters)[0]
        columns = {row[1] for row in view.connection.execute(f"PRAGMA table_info({table})")} - COURTESIES
        assert len(values) == len(columns) - 2
        assert view.seal.holds(table, values, mac, key_id)
        for index, value in enumerate(values):
            other = value + 1 if isinstance(value, int) else f"{value}x"
            assert not view.seal.holds(table, [*values[:index], other, *values[index + 1 :]], mac, key_id)
        for other_table in {"tasks", "leases", "attempts"} - {table}:
            assert not view.seal.holds(other_table, values, mac, key_id)
        assert not view.seal.holds(table, values, None, key_id)
        assert not view.seal.holds(table, values, mac, "unknown")


@pytest.mark.parametrize("writer", ["writer-1", "nobody", None])
async def test_whose_work_an_attempt_is_said_to_be_decides_nothing(store: SqliteStore, writer: str | None) -> None:
    """It bears no MAC: whatever stands there, what is issued becomes usable, and what is owed is revoked."""
    await store.start_task(new_task())
    opened = await store.open_intent(intent())
    await change(store, f"UPDATE attempts SET held_by = {'NULL' if writer is None else repr(writer)}")
    assert (await activate(store, opened, now=2)).state is State.ACTIVE
    await store.end_attempt(TENANT, "attempt-1", Event.END, EndCause.REVOKED_BY_OPERATOR, at(3))
    await change(store, f"UPDATE attempts SET held_by = {'NULL' if writer is None else repr(writer)}")
    (attempt,) = await store.claim_due("bao", at(3), 10, timedelta(seconds=30))
    assert await store.record_revocation(attempt, Event.REVOKE_CONFIRMED, at(3), at(3), "", False)


@pytest.mark.parametrize("table", ["tasks", "leases", "attempts"])
async def test_activation_on_a_tampered_row_is_refused_and_ended(store: SqliteStore, table: str) -> None:
    await store.start_task(new_task())
    opened = await store.open_intent(intent())
    column = {"tasks": "deadline", "leases": "expires_at", "attempts": "expires_at"}[table]
    await change(store, f"UPDATE {table} SET {column} = {column} + 1000")
    await tampered(activate(store, opened, now=2))
    (attempt,) = await store.claim_due("bao", at(2), 10, timedelta(seconds=30))
    assert (attempt.id, attempt.state, attempt.handle) == ("attempt-1", State.REVOKING, {"attempt": "attempt-1"})


@pytest.mark.parametrize("column", ["expires_at", "handle", "epoch", "cause"])
async def test_a_quarantined_attempt_is_revoked_for_ever_and_stops_nobody(store: SqliteStore, column: str) -> None:
    await store.start_task(new_task())
    await grant(store, "bad")
    await grant(store, "good", now=2)
    await store.end_task(TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(5))
    values = {"expires_at": 10**17, "handle": "no json", "epoch": 2**63 - 1, "cause": "whatever"}
    await change(store, f"UPDATE attempts SET {column} = ? WHERE id = 'attempt-bad'", values[column])
    claimed = await store.claim_due("bao", at(6), 10, timedelta(seconds=30))
    bad, good = sorted(claimed, key=lambda each: each.id)  # by a forged expiry it may be the last
    assert (bad.id, good.id) == ("attempt-bad", "attempt-good")
    assert bad.handle == ({} if column == "handle" else {"attempt": "attempt-bad"})
    assert (bad.state, bad.due_at) == (State.REVOKING, at(36))
    assert await store.record_revocation(good, Event.REVOKE_CONFIRMED, at(7), at(7), "", False)
    # The stored handle may be the forger's: that it is gone proves nothing.
    assert await store.record_revocation(bad, Event.REVOKE_CONFIRMED, at(7), at(7), "", False)
    leases = {lease.id: lease for lease in await store.task_leases(TENANT, TASK)}
    assert leases["lease-good"].state is State.REVOKED
    assert leases["lease-bad"].state is State.REVOKING
    (again,) = await store.claim_due("bao", at(7 + 60), 10, timedelta(seconds=30))
    assert again.id == "attempt-bad"
    figures = await store.figures(at(70))
    assert figures.stuck == 1
    stuck = [record for record in map(decode, await store.audit_since(0, 100)) if record.type == "lease.stuck"]
    assert [record.attempt_id for record in stuck] == ["attempt-bad"]
    # A claim that was lost is lost here too.
    assert not await store.record_revocation(bad, None, at(70), at(71), "x", False)


def of_another_type(path: Path, table: str, column: str) -> None:
    """As one bit of a value's header does it: the database itself would not write that."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as loose:
        loose.execute("PRAGMA writable_schema = ON")
        loose.execute("UPDATE sqlite_schema SET sql = replace(sql, ') STRICT', ')') WHERE name = ?", (table,))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as theirs:
        theirs.execute("PRAGMA ignore_check_constraints = ON")
        statement = f"UPDATE {table} SET {column} = CAST({column} AS BLOB) WHERE id = ? RETURNING {column}"
        ((value,),) = theirs.execute(statement, (f"{table[:-1]}-1",)).fetchall()
        assert value is None or isinstance(value, bytes)
        theirs.execute("PRAGMA writable_schema = ON")
        theirs.execute("UPDATE sqlite_schema SET sql = rtrim(sql, ';') || ' STRICT' WHERE name = ?", (table,))


# Those that a row is found by: where they are no texts, nothing finds it but the sweep of what is upstream.
KEYS = {"tenant", "id", "lease_id", "connector", "attempt_id"}


@pytest.mark.parametrize(
    ("table", "column"),
    [("leases", each.name) for each in fields(LeaseRow) if each.name not in KEYS | {"trusted"}]
    + [("attempts", each.name) for each in fields(AttemptRow) if each.name not in KEYS | {"trusted", "seen_epoch"}],
)
async def test_a_column_of_another_type_stops_nobody(tmp_path: Path, table: str, column: str) -> None:
    """F34: one bit makes a text, or a number, a blob: every other lease is ended."""
    path = tmp_path / "ledger.sqlite3"
    store = await SqliteStore.open(path, Keys(), "w")
    await store.start_task(new_task())
    for name in ("1", "2", "3"):
        await grant(store, name)
    await store.close()
    of_another_type(path, table, column)
    store = await SqliteStore.open(path, Keys(), "w2")
    claimed = {each.id for each in await store.claim_due("bao", at(1000), 10, timedelta(seconds=30))}
    assert {"attempt-2", "attempt-3"} <= claimed
    await store.close()


async def test_a_tampered_attempt_does_not_touch_another_lease(store: SqliteStore) -> None:
    await store.start_task(new_task())
    await grant(store, "bad")
    await grant(store, "good")
    await store.end_leases(Selector(TENANT, lease_id="lease-bad"), EndCause.RELEASED, ALICE, at(3))
    await change(store, "UPDATE attempts SET lease_id = 'lease-good', number = 9 WHERE id = 'attempt-bad'")
    await revoke_all(store, now=40)
    lease = await store.get_lease(TENANT, "lease-good", ALICE)
    assert (lease.attempts, lease.attempt_id) == (1, "attempt-good")


async def test_a_tampered_lease_does_not_keep_its_attempt_alive(store: SqliteStore) -> None:
    await store.start_task(new_task())
    await grant(store)
    await change(store, "UPDATE leases SET expires_at = expires_at + 1000000")
    assert await store.end_leases(Selector(TENANT, task_id=TASK), EndCause.RELEASED, ALICE, at(3)) == 1
    await revoke_all(store, now=3)
    assert await store.living_attempts(TENANT, "lease-1") == []
    # What was written to the tampered row did not make it ours again.
    await tampered(store.get_lease(TENANT, "lease-1", ALICE))


async def test_a_tampered_task_can_still_be_ended(store: SqliteStore) -> None:
    await store.start_task(new_task())
    await grant(store)
    await change(store, "UPDATE tasks SET deadline = deadline + 1000000, ends_at = ends_at + 1000000")
    task = await store.end_task(TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(3))
    assert task.state is TaskState.COMPLETED
    assert (await store.get_lease(TENANT, "lease-1", ALICE)).state is State.REVOKING
    await tampered(store.get_task(TENANT, TASK))


async def test_a_name_that_was_slipped_in_is_not_known(store: SqliteStore) -> None:
    await store.start_task(new_task())
    await grant(store)
    await change(store, "UPDATE attempts SET upstream = 'orphan'")
    assert await store.known_upstream("bao", ["orphan"]) == frozenset()


async def _one_lease(path: Path) -> None:
    store = await SqliteStore.open(path, Keys(), "w")
    await store.start_task(new_task())
    await grant(store)
    await store.confirm_delivery(TENANT, "lease-1", ALICE, "attempt-1", at(3))
    await store.close()


async def test_single_bits_of_the_file(tmp_path: Path) -> None:
    """F34: any bit of the lease row, flipped in the file itself: nothing is read from it any more."""
    whole = tmp_path / "whole"
    await _one_lease(whole)
    data = whole.read_bytes()
    mark = data.find(b"lease-1task-1spiffe://example.org/agent/alice")
    assert mark > 0
    end = data.find(b"k1", mark) + 2  # the row ends with its MAC and the id of the key
    assert 300 < end - mark < 500
    chance = random.Random(7)
    for turn in range(60):
        place, bit = chance.randrange(mark, end), chance.randrange(8)
        copy = tmp_path / f"copy-{turn}"
        copy.touch(0o600)
        copy.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
        store = await SqliteStore.open(copy, Keys(), "w")
        with pytest.raises(BrokerError):
            await store.get_lease(TENANT, "lease-1", ALICE)
        assert await store.end_task(TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(4))
        (attempt,) = await store.claim_due("bao", at(100), 10, timedelta(seconds=30))
        assert attempt.id == "attempt-1"  # and what it granted is revoked all the same
        await store.close()


async def test_every_flipped_byte_of_audit_bodies_is_located(tmp_path: Path) -> None:
    """In the file itself, at random places of the bodies: the finding names the record."""
    whole = tmp_path / "whole"
    await _one_lease(whole)
    with AuditReader(whole) as audit:
        bodies = {row.seq: row.body for row in audit.rows()}
        assert list(audit.verify(Keys().find)) == []
    data = whole.read_bytes()
    chance = random.Random(11)
    for turn in range(60):
        seq = chance.choice(sorted(bodies))
        # A body may continue on an overflow page: flip within its first 300 bytes, which lie together.
        start = data.find(bodies[seq][:300])
        assert start > 0
        place = start + chance.randrange(300)
        copy = tmp_path / f"copy-{turn}"
        shutil.copy(whole, copy)
        with copy.open("r+b") as file:
            file.seek(place)
            file.write(bytes([data[place] ^ chance.randrange(1, 256)]))
        with AuditReader(copy) as audit:
            findings = list(audit.verify(Keys().find))
        assert {finding.sequence for finding in findings} == {seq}, (seq, place, findings)
        assert "BODY" in {finding.problem.value for finding in findings}


async def test_a_copy_can_be_verified_while_the_broker_runs(store: SqliteStore, tmp_path: Path) -> None:
    await store.start_task(new_task())
    await grant(store)
    path = tmp_path / "ledger.sqlite3"
    with AuditReader(path) as audit:
        assert list(audit.verify(Keys().find)) == []
        first = len(list(audit.records()))
        await store.confirm_delivery(TENANT, "lease-1", ALICE, "attempt-1", at(3))
        # One snapshot: what is written meanwhile is not half seen.
        assert len(list(audit.records())) == first
        assert list(audit.verify(Keys().find)) == []
    with AuditReader(path) as audit:
        assert len(list(audit.records(after=first))) == 1
    assert sqlite3.sqlite_version_info >= (3, 37)  # STRICT tables


async def test_damage_at_one_lease_never_keeps_another_alive(tmp_path: Path) -> None:
    """F34: bits flipped around every mention of one attempt, rows and index entries alike: both are still claimed."""
    whole = tmp_path / "whole"
    store = await SqliteStore.open(whole, Keys(), "w")
    await store.start_task(new_task())
    await grant(store, "good")
    await grant(store, "bad")
    await store.close()
    data = whole.read_bytes()
    places, place = [], data.find(b"attempt-bad")
    while place > 0:
        places.append(place)
        place = data.find(b"attempt-bad", place + 1)
    assert len(places) >= 6  # rows, the primary key's index, handle, audit records, ...
    chance = random.Random(13)
    for turn in range(120):
        place, bit = chance.choice(places) + chance.randrange(11), chance.randrange(8)
        copy = tmp_path / f"copy-{turn}"
        copy.touch(0o600)
        copy.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
        store = await SqliteStore.open(copy, Keys(), "w")
        claimed = await store.claim_due("bao", at(100), 10, timedelta(seconds=30))
        # Both go to their upstream with their own handles; nothing in the way of one is in the way of the other.
        assert "attempt-good" in {attempt.id for attempt in claimed}
        assert len(claimed) == 2
        await store.close()


async def test_a_damaged_index_entry_rests_in_memory_and_stops_nobody(tmp_path: Path) -> None:
    """F34: SQLite refuses to change a row whose index entry is damaged; it is claimed all the same, once a minute."""
    path = tmp_path / "ledger.sqlite3"
    store = await SqliteStore.open(path, Keys(), "w")
    await store.start_task(new_task())
    await store.open_intent(intent("bad", connector="bao"))
    await store.open_intent(intent("good", connector="bao", now=2))
    await store.close()
    data = path.read_bytes()
    # The due index holds (connector, due_at, ...): the due time of "bad" is made one millisecond earlier there.
    entry = b"bao" + int((at(11).timestamp()) * 1000).to_bytes(6, "big")
    assert data.count(entry) == 1
    path.write_bytes(data.replace(entry, entry[:-1] + bytes([entry[-1] - 1])))

    store = await SqliteStore.open(path, Keys(), "w")
    claimed = await store.claim_due("bao", at(20), 10, timedelta(seconds=30))
    assert [attempt.id for attempt in claimed] == ["attempt-bad", "attempt-good"]
    good = claimed[1]
    assert await store.record_revocation(good, Event.REVOKE_CONFIRMED, at(21), at(21), "", False)
    assert await store.claim_due("bao", at(21), 10, timedelta(seconds=30)) == []
    again = await store.claim_due("bao", at(20 + 60), 10, timedelta(seconds=30))
    assert [attempt.id for attempt in again] == ["attempt-bad"]
    await store.close()


@pytest.mark.parametrize(
    ("column", "value"), [("serial", 1), ("digest", "f" * 64), ("accepted_at", 1), ("tenant", "x")]
)
async def test_a_serial_that_was_turned_back(store: SqliteStore, column: str, value: Any) -> None:
    """No deploy set comes into force on it, neither an older one nor a newer one."""
    await store.accept_deploy("x" if column != "tenant" else TENANT, 9, "9" * 64, at(1))
    await change(store, f"UPDATE accepted_deploy SET {column} = ?", value)
    await tampered(store.accept_deploy("x", 10, "a" * 64, at(2)))
    await tampered(store.accept_deploy("x", 2, "2" * 64, at(2)))


async def test_a_serial_under_a_key_that_was_rotated_is_sealed_with_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "rotated.sqlite3"
    for keys in ({"k1": b"1" * 32}, {"k2": b"2" * 32, "k1": b"1" * 32}, {"k2": b"2" * 32, "k1": b"1" * 32}):
        store = await SqliteStore.open(path, Keys(**keys), "w")
        assert await store.accept_deploy(TENANT, 3, "3" * 64, at(1)) == (3, "3" * 64)
        await store.close()
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT mac_key_id FROM accepted_deploy").fetchall() == [("k2",)]


async def test_a_damaged_row_does_not_hide_the_others_from_people(store: SqliteStore) -> None:
    """Neither on its page nor on the next one; and what asks for it by name is told."""
    for name in ("1", "2", "3"):
        await store.start_task(new_task(f"task-{name}"))
        await grant(store, name, task=f"task-{name}")
    await change(store, "UPDATE leases SET resource = 'all' WHERE id = 'lease-2'")
    await change(store, "UPDATE tasks SET participants = 'none' WHERE id = 'task-2'")
    leases = [each.id for each in await store.search_leases(LeaseSearch(TENANT), "", 2)]
    assert leases == ["lease-3", "lease-1"]
    assert [each.id for each in await store.search_leases(LeaseSearch(TENANT), "lease-2", 2)] == ["lease-1"]
    tasks = [each.id for each in await store.search_tasks(TaskSearch(TENANT, agent=BOB), "", 2)]
    assert tasks == ["task-3", "task-1"]
    await tampered(store.lease(TENANT, "lease-2"))
