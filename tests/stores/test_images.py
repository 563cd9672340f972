"""What the writer remembers changes no answer and no byte: against a twin that forgets before every transaction."""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.errors import BrokerError, Exhausted, Reason
from broker.lease.machine import Event
from broker.ports.leases import EndCause, Selector, Tried
from broker.ports.tasks import TaskState
from broker.stores import images
from broker.stores.images import Images
from broker.stores.queries import SQL
from broker.stores.sqlite import SqliteStore
from broker.stores.sqlite_database import SqliteWriting
from broker.stores.task_ops import find_task
from tests.stores.contract import activate, grant
from tests.stores.make import ALICE, BOB, TASK, TENANT, Keys, at, intent, new_task

TABLES = ("tasks", "leases", "attempts", "audit", "audit_head")


class Forgetful(SqliteWriting):
    """Somebody else has written, always: the database is asked."""

    def begin(self) -> bool:
        super().begin()
        return True


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), "w")
    yield store
    await store.close()


def remembered(store: SqliteStore) -> Images:
    return store._writer._transaction.images


async def outcome(call: Any) -> object:
    try:
        return await call
    except BrokerError as refused:
        return (type(refused), refused.reason, refused.message, refused.retry_after)


def step(store: SqliteStore, rng: random.Random, now: float) -> Any:
    """One call as brokerd makes them, on few names, so that they meet: most are refused by something."""
    task, name = rng.choice(["a", "b"]), str(rng.randrange(6))
    holder, live = rng.choice([ALICE, BOB]), rng.randrange(1, 4)
    handle = {"attempt": f"attempt-{name}", "accessor": str(now)}
    unique = f"{name}-{now}"
    calls = [
        lambda: store.start_task(new_task(task, created_at=at(now), deadline=at(now + 50))),
        lambda: store.open_intent(
            intent(unique, task=task, now=now, ttl=9, request_id=f"r{name}", holder=holder, max_live_leases=live)
        ),
        lambda: store.open_intent(intent(name, task=task, now=now, ttl=9, holder=holder, max_live_leases=live)),
        lambda: store.checkpoint(TENANT, f"attempt-{name}", 1, handle, f"login-{name}", at(now)),
        lambda: store.activate(TENANT, f"attempt-{name}", 1, at(now + 8), at(now + 5), {}, at(now)),
        lambda: store.confirm_delivery(TENANT, f"lease-{name}", holder, f"attempt-{name}", at(now)),
        lambda: store.end_attempt(TENANT, f"attempt-{name}", Event.END, EndCause.ABANDONED, at(now), ""),
        lambda: store.end_attempt(TENANT, f"attempt-{name}", Event.NEVER_ISSUED, EndCause.NEVER_ISSUED, at(now), ""),
        lambda: store.hold_task(TENANT, task, timedelta(seconds=5), at(now + 5), at(now)),
        lambda: store.end_leases(Selector(TENANT, holder=holder), EndCause.RELEASED, holder, at(now)),
        lambda: store.end_task(TENANT, task, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(now)),
        lambda: store.claim_due("bao", at(now), 10, timedelta(seconds=3)),
        lambda: revoke(store, rng.choice([Event.REVOKE_CONFIRMED, Event.TIME_ENDED, None]), now),
    ]
    return rng.choices(calls, [4, 8, 8, 4, 8, 3, 1, 1, 1, 1, 1, 1, 4])[0]()


async def revoke(store: SqliteStore, event: Event | None, now: float) -> object:
    """What a lane does: claim, and record what came of it; one of the claims is stale."""
    due = await store.claim_due("bao", at(now), 10, timedelta(seconds=3))
    stale = [each._replace(epoch=each.epoch - 1) for each in due[:1]]
    error = "" if event else "down"
    noted = {"attempt": "noted", "at": int(now)} if event is None and int(4 * now) % 2 else None
    tried = [Tried(each, event, at(now), at(now + 1), error, noted=noted) for each in (*stale, *due)]
    return due, await store.record_revocations(tried)


def contents(store: SqliteStore) -> dict[str, list[Any]]:
    return {table: store._connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in TABLES}


@pytest.mark.parametrize("seed", range(12))
async def test_the_same_answers_and_the_same_bytes_as_without_any_image(tmp_path: Path, seed: int) -> None:
    one = await SqliteStore.open(tmp_path / "one.sqlite3", Keys(), "w")
    two = await SqliteStore.open(tmp_path / "two.sqlite3", Keys(), "w")
    two._writer._writing = Forgetful(two._connection)
    rngs = random.Random(seed), random.Random(seed)
    used = 0
    for number in range(150):
        now = 1 + number / 4
        told, asked = [await outcome(step(store, rng, now)) for store, rng in zip((one, two), rngs, strict=True)]
        assert told == asked
        used += len(remembered(one).attempts)
    assert contents(one) == contents(two)
    assert used  # there was something to remember
    await one.close()
    await two.close()


async def test_what_another_connection_writes_is_seen(store: SqliteStore) -> None:
    await store.start_task(new_task())
    opened = await store.open_intent(intent())
    assert remembered(store).attempts
    (_, _, path) = store._connection.execute("PRAGMA database_list").fetchone()
    with closing(sqlite3.connect(path, isolation_level=None)) as theirs:
        theirs.execute("UPDATE tasks SET purpose = 'another'")
    with pytest.raises(BrokerError) as refused:
        await activate(store, opened, now=2)
    assert refused.value.reason is Reason.ROW_MAC_MISMATCH


async def test_what_is_rolled_back_is_forgotten(store: SqliteStore) -> None:
    """An operation that fails after it wrote leaves no image of what it wrote."""
    await store.start_task(new_task())

    def half(tx: Any) -> None:
        row = find_task(tx, TENANT, TASK)
        row.hold_grace, row.hold_until, row.ends_at = 1, 2, 2
        assert tx.update_task(row)
        raise RuntimeError("broken off")

    with pytest.raises(RuntimeError):
        await store._writer.submit(half)
    assert not remembered(store).tasks
    await grant(store)


async def test_a_quota_is_exact_however_its_count_is_known(store: SqliteStore) -> None:
    """3 fit; one that ended makes room for one, also where the count in memory was too high."""
    await store.start_task(new_task())
    for number in range(3):
        await grant(store, str(number), max_live_leases=3)
    for name in ("3", "4"):
        with pytest.raises(Exhausted):
            await store.open_intent(intent(name, max_live_leases=3))
    await store.end_attempt(TENANT, "attempt-0", Event.END, EndCause.ABANDONED, at(3), "")
    (due,) = await store.claim_due("bao", at(3), 10, timedelta(seconds=30))
    await store.record_revocation(due, Event.REVOKE_CONFIRMED, at(3), at(3), "", False)
    await grant(store, "5", max_live_leases=3)
    with pytest.raises(Exhausted):
        await store.open_intent(intent("6", max_live_leases=3))


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MOST", 3)
    monkeypatch.setattr(images, "MOST_COUNTS", 3)
    kept: dict[tuple[str, str], Any] = {}
    counts: dict[tuple[str, str], int] = {}
    for number in range(10):
        images.keep(kept, ("t", str(number)), (number,))
        images.counted(counts, ("t", str(number)), number)
    assert list(kept) == [("t", "7"), ("t", "8"), ("t", "9")]
    assert len(counts) <= 3


def test_rows_with_images_are_written_in_one_place_alone() -> None:
    """A statement that wrote such a row elsewhere would leave an image older than the row."""
    written = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM|REPLACE INTO) (tasks|leases|attempts)\b")
    writing = {name for name, sql in SQL.items() if written.search(sql)}
    deleting = {"delete_task", "delete_leases_of_task", "delete_attempts_of_task"}
    assert writing == {
        *("insert_task", "update_task", "insert_lease", "update_lease", "end_lease"),
        *("insert_attempt", "update_attempt", "end_attempt", "quarantine_attempt"),
        *deleting,
    }
    stores = Path(images.__file__).parent
    assert "tx.images.forget()" in (stores / "retention_ops.py").read_text()
    writing -= deleting
    quoted = re.compile("|".join(f'"{name}"' for name in sorted(writing)))
    # Which of them are also said for many rows at once is a list of names; who says them is still the transaction.
    said = {each.name for each in stores.glob("*.py") if quoted.search(each.read_text())} - {"postgres_many.py"}
    assert said == {"transaction.py"}
