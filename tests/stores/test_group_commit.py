"""Group commit: one transaction for many, and each operation answers for itself alone."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.audit.event import AuditEvent, EventType, Vouch
from broker.audit.record import decode
from broker.errors import Conflict, Defect, NotReady, Reason
from broker.stores.group_commit import MOST, GroupCommit
from broker.stores.sqlite import SqliteStore
from broker.stores.transaction import CommitAndRaise, Transaction
from tests.stores.make import Keys, at

EVENT = AuditEvent(EventType.REQUEST_REFUSED, "broker", Vouch.BROKER)
REFUSAL = Conflict(Reason.REQUEST_IN_FLIGHT, "not now")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), "w")
    store._connection.execute("CREATE TABLE scratch (n INTEGER PRIMARY KEY) STRICT")
    yield store
    await store.close()


def note(tx: Transaction, n: int) -> int:
    tx.connection.execute("INSERT INTO scratch (n) VALUES (?)", (n,))
    tx.audit(EVENT, n)
    return n


async def noted(store: SqliteStore) -> tuple[list[int], list[int]]:
    """The rows, and the times of the audit records: they must be the same numbers."""
    rows = await store._writer.submit(lambda tx: tx.connection.execute("SELECT n FROM scratch ORDER BY n").fetchall())
    return [n for (n,) in rows], sorted(decode(body).at_ms for body in await store.audit_since(0, 10_000))


async def outcomes(writer: GroupCommit, *operations: Any) -> list[Any]:
    return await asyncio.gather(*(writer.submit(operation) for operation in operations), return_exceptions=True)


async def test_a_refusal_before_writing_and_one_after_it(store: SqliteStore) -> None:
    def before(tx: Transaction) -> int:
        tx.audit(EVENT, 99)
        raise REFUSAL

    def after(tx: Transaction) -> int:
        note(tx, 98)
        raise REFUSAL

    told = await outcomes(
        store._writer,
        lambda tx: note(tx, 1),
        before,
        lambda tx: note(tx, 2),
        after,
        lambda tx: note(tx, 3),
    )
    assert told == [1, REFUSAL, 2, REFUSAL, 3]
    assert await noted(store) == ([1, 2, 3], [1, 2, 3])


async def test_a_schema_violation_is_a_defect_of_one(store: SqliteStore) -> None:
    told = await outcomes(store._writer, lambda tx: note(tx, 1), lambda tx: note(tx, 1), lambda tx: note(tx, 2))
    assert (told[0], told[2]) == (1, 2)
    assert isinstance(told[1], Defect)
    assert "scratch" not in str(told[1])  # the constraint's values stay inside
    assert await noted(store) == ([1, 2], [1, 2])


async def test_a_bug_reaches_its_caller_alone(store: SqliteStore) -> None:
    def bug(tx: Transaction) -> int:
        note(tx, 50)
        return 1 // 0

    told = await outcomes(store._writer, lambda tx: note(tx, 1), bug, lambda tx: note(tx, 2))
    assert (told[0], told[2]) == (1, 2)
    assert isinstance(told[1], ZeroDivisionError)
    assert await noted(store) == ([1, 2], [1, 2])


async def test_a_refusal_that_keeps_what_it_wrote(store: SqliteStore) -> None:
    def kept(tx: Transaction) -> CommitAndRaise:
        note(tx, 7)
        return CommitAndRaise(REFUSAL)

    assert await outcomes(store._writer, kept) == [REFUSAL]
    assert await noted(store) == ([7], [7])


async def test_a_failing_commit_fails_the_whole_batch_and_nothing_after_it(store: SqliteStore) -> None:
    def poison(tx: Transaction) -> None:
        # A deferred constraint fails at COMMIT, like a full disk would.
        tx.connection.execute("PRAGMA defer_foreign_keys = ON")
        tx.connection.execute(
            "INSERT INTO leases SELECT 'x','x','no task','h','r','d','','','','','','','','[]','{}','','','[]','',0,"
            "'ISSUING',NULL,1,NULL,NULL,NULL,'a',1,0,1,'',zeroblob(32),'k'"
        )

    told = await outcomes(store._writer, lambda tx: note(tx, 1), poison, lambda tx: note(tx, 2))
    assert [type(outcome) for outcome in told] == [NotReady] * 3
    assert len({id(outcome) for outcome in told}) == 3  # an exception object belongs to one caller
    assert await noted(store) == ([], [])
    assert await outcomes(store._writer, lambda tx: note(tx, 3)) == [3]
    assert [decode(body).seq for body in await store.audit_since(0, 10)] == [1]


async def test_more_operations_than_one_batch_takes(store: SqliteStore) -> None:
    count = 2 * MOST + 10
    told = await outcomes(store._writer, *(lambda tx, n=n: note(tx, n) for n in range(count)))
    assert told == list(range(count))
    assert await noted(store) == (list(range(count)), list(range(count)))


async def test_many_share_one_commit(store: SqliteStore) -> None:
    commits: list[str] = []
    store._connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    await outcomes(store._writer, *(lambda tx, n=n: note(tx, n) for n in range(200)))
    store._connection.set_trace_callback(None)
    assert len(commits) < 20


async def test_a_cancelled_caller_does_not_disturb_the_others(store: SqliteStore) -> None:
    first = asyncio.ensure_future(store._writer.submit(lambda tx: note(tx, 1)))
    second = asyncio.ensure_future(store._writer.submit(lambda tx: note(tx, 2)))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 2
    assert first.cancelled()
    assert await noted(store) == ([1, 2], [1, 2])  # it was queued, so it was done


async def test_closing_commits_what_is_queued(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    store = await SqliteStore.open(path, Keys(), "w")
    queued = [asyncio.ensure_future(store.append([EVENT], at(n))) for n in range(50)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*queued)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM audit").fetchone() == (50,)
    connection.close()


async def test_a_bug_ends_a_batch_and_not_the_writer(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """F49: the thread goes on; nothing of the batch is committed, nobody waits for ever, and the next one works."""
    with monkeypatch.context() as broken:
        broken.setattr(type(store._writer._trail), "flush", lambda *_: {}["bug"])
        (told,) = await outcomes(store._writer, lambda tx: note(tx, 1))
    assert isinstance(told, Defect) and told.reason is Reason.INTERNAL
    assert await outcomes(store._writer, lambda tx: note(tx, 2)) == [2]
    assert await noted(store) == ([2], [2])


async def test_since_when_nothing_can_be_written_is_known(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """F36: of a disk that turned read-only, say. One that only looks gets through, and proves nothing."""
    writer = store._writer
    assert store.failing == (timedelta(0), "")

    def broken(tx: Transaction) -> int:
        note(tx, 1)
        raise sqlite3.OperationalError("attempt to write a readonly database")

    def fails() -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as disk:
        disk.setattr(writer._writing, "commit", fails)
        (told,) = await outcomes(writer, lambda tx: note(tx, 1))
        assert isinstance(told, NotReady)
    began = writer._failing
    assert began is not None and store.failing[0] >= timedelta(0) and "nothing was committed" in store.failing[1]
    await writer.submit(lambda tx: tx.connection.execute("SELECT 1").fetchall())
    assert writer._failing == began
    (told,) = await outcomes(writer, broken)  # one operation's own failure is not the ledger's
    await writer.submit(lambda tx: note(tx, 2))
    assert store.failing == (timedelta(0), "")
    assert (await noted(store))[0] == [2]
