"""A batch on PostgreSQL: its writes go together, its questions are asked together, and no answer is another for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest

from broker.errors import BrokerError, Conflict, Defect, Denied, InvalidInput, Reason, Tampered
from broker.lease.machine import State
from broker.ports.intents import Opened
from broker.ports.leases import Lease
from broker.stores.postgres import PostgresStore
from broker.stores.postgres_connection import LOCK_SPACE, PostgresConnection
from broker.stores.postgres_many import MANY, QUESTIONS
from broker.suspension.suspension import Kind
from tests.patience import becomes_true
from tests.stores.conftest import LedgerDatabase
from tests.stores.contract import activate, records
from tests.stores.contract_suspensions import members, stop
from tests.stores.make import BOB, intent, new_task

# BEGIN with the lock; what is asked ahead; the writes with COMMIT.
ROUND_TRIPS = 3


@pytest.fixture
async def store(ledger_database: LedgerDatabase) -> AsyncIterator[PostgresStore]:
    store = await ledger_database.open()
    await store.start_task(new_task(participants=frozenset({BOB})))
    yield store
    await store.close()


def connection_of(store: PostgresStore) -> PostgresConnection:
    connection = store._writing_end.connection
    assert isinstance(connection, PostgresConnection)
    return connection


@contextmanager
def held_up(database: LedgerDatabase) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """The ledger's lock is somebody else's to the end of the block: what comes by then is one batch."""
    lock = "(%s | 'last_batch'::regclass::oid::bigint)"
    with database.session() as other:
        other.execute(f"SELECT pg_advisory_lock{lock}".encode(), (LOCK_SPACE << 32,))
        yield other
        other.execute(f"SELECT pg_advisory_unlock{lock}".encode(), (LOCK_SPACE << 32,))


class AtOnce(Protocol):
    """Makes calls of which each gets its value or its refusal."""

    async def __call__(self, *calls: Any) -> list[Any]: ...


@pytest.fixture
def at_once(ledger_database: LedgerDatabase) -> AtOnce:
    """In one batch, also where the machine gives the writer its turn before all of them were made."""

    async def made(*calls: Any) -> list[Any]:
        with held_up(ledger_database):
            queued = [asyncio.ensure_future(each) for each in calls]
            await asyncio.sleep(0)
        return await asyncio.gather(*queued, return_exceptions=True)

    return made


class Counted:
    """Questions to which somebody waited for the answer."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def round_trips(self) -> int:
        sent = [line.split("\t") for line in self._path.read_text().splitlines()]
        return sum(line[1] == "F" and line[3] in ("Sync", "Query") for line in sent if len(line) > 3)


@contextmanager
def traced(store: PostgresStore, directory: Path) -> Iterator[Counted]:
    """What libpq tells of the writer's session."""
    session, path = connection_of(store)._session.pgconn, directory / "trace"
    with path.open("w") as file:
        session.trace(file.fileno())
        try:
            yield Counted(path)
        finally:
            session.untrace()


def batches(database: LedgerDatabase) -> int:
    with database.session() as session:
        row = session.execute("SELECT number FROM last_batch").fetchone()
        assert row is not None
        return int(str(row[0]))


def test_every_statement_for_many_is_understood_by_the_server(ledger_database: LedgerDatabase) -> None:
    with ledger_database.session() as session:
        for name, text in [*QUESTIONS.items(), *((many.text[:40], many.text) for many in MANY.values())]:
            prepared = session.pgconn.prepare(b"", text.encode())
            assert not prepared.error_message, (name, prepared.error_message.decode())


async def test_however_many_there_are_they_take_the_same_few_ways(
    store: PostgresStore, tmp_path: Path, at_once: AtOnce
) -> None:
    with traced(store, tmp_path) as counted:
        opened = await at_once(*(store.open_intent(intent(str(number), max_live_leases=99)) for number in range(32)))
        # The first ones are counted for the first time: nobody knows yet how many leases their holder and task have.
    assert all(isinstance(each, Opened) for each in opened)
    assert counted.round_trips <= ROUND_TRIPS
    with traced(store, tmp_path) as counted:
        activated = await at_once(*(activate(store, each, now=2) for each in opened))
    assert {each.state for each in activated} == {State.ACTIVE}
    assert counted.round_trips <= ROUND_TRIPS - 1


async def test_nor_more_where_another_has_written_meanwhile(
    store: PostgresStore, ledger_database: LedgerDatabase, tmp_path: Path, at_once: AtOnce
) -> None:
    """Nothing is remembered then: the end of the chain is read, and what the batch needs."""
    other = await ledger_database.open("writer-2")
    try:
        await other.start_task(new_task("another"))
        with traced(store, tmp_path) as counted:
            names = range(8)
            opened = await at_once(*(store.open_intent(intent(str(name), max_live_leases=99)) for name in names))
        assert all(isinstance(each, Opened) for each in opened)
        assert counted.round_trips <= ROUND_TRIPS + 1
        await other.start_task(new_task("a third"))
        with traced(store, tmp_path) as counted:
            activated = await at_once(*(activate(store, each, now=2) for each in opened))
        assert {each.state for each in activated} == {State.ACTIVE}
        assert counted.round_trips <= ROUND_TRIPS + 1
    finally:
        await other.close()


async def test_the_same_request_twice_in_one_batch_is_one_lease(store: PostgresStore, at_once: AtOnce) -> None:
    """What was asked ahead does not know of the first."""
    await store.open_intent(intent("0"))  # from now on the task and the count are known
    told = await at_once(
        store.open_intent(intent("1", request_id="r")),
        store.open_intent(intent("2", request_id="r")),
        store.open_intent(intent("3")),
    )
    assert isinstance(told[1], Conflict) and told[1].reason is Reason.REQUEST_IN_FLIGHT
    assert [type(each) for each in (told[0], told[2])] == [Opened, Opened]


async def test_a_suspension_counts_for_the_intents_behind_it_in_its_batch(
    store: PostgresStore, at_once: AtOnce
) -> None:
    """F43: the flag is read in the intent's transaction, also where that is the transaction that sets it."""
    await store.open_intent(intent("0"))
    before = store.open_intent(intent("1"))
    told = await at_once(before, store.suspend(stop(Kind.EVERYTHING), members), store.open_intent(intent("2")))
    assert isinstance(told[0], Opened)
    assert isinstance(told[2], Denied) and told[2].reason is Reason.SUSPENDED


async def test_what_was_taken_for_done_and_was_not_undoes_nobody_else(
    store: PostgresStore, ledger_database: LedgerDatabase, at_once: AtOnce
) -> None:
    """F16: a compare-and-swap that meets no row, found out at the end of the batch."""
    one, two = await at_once(store.open_intent(intent("1")), store.open_intent(intent("2")))
    with ledger_database.session() as session:
        session.execute("UPDATE attempts SET epoch = epoch + 1 WHERE id = 'attempt-1'")
    told = await at_once(activate(store, one, now=2), activate(store, two, now=2))
    assert isinstance(told[0], Tampered)  # read anew, and changed by somebody else
    assert isinstance(told[1], Lease) and told[1].state is State.ACTIVE
    issued = [record.lease_id for record in await records(store) if record.type == "lease.issued"]
    assert issued == ["lease-2"]


async def test_a_row_that_the_schema_refuses_is_one_askers_defect(store: PostgresStore, at_once: AtOnce) -> None:
    told = await at_once(
        store.open_intent(intent("1")),
        store.open_intent(intent("1", request_id="another", attempt_id="attempt-x")),
        store.open_intent(intent("2")),
    )
    assert [type(each) for each in told] == [Opened, Defect, Opened]
    intents = [record.lease_id for record in await records(store) if record.type == "lease.intent"]
    assert intents == ["lease-1", "lease-2"]


async def test_what_no_server_can_be_asked_is_one_askers_mistake(store: PostgresStore, at_once: AtOnce) -> None:
    told = await at_once(
        store.open_intent(intent("1", request_id="a\x00b")),
        store.open_intent(intent("2")),
    )
    assert isinstance(told[0], InvalidInput) and isinstance(told[1], Opened)


async def test_who_comes_while_others_are_waited_for_is_in_the_same_batch(
    store: PostgresStore, ledger_database: LedgerDatabase
) -> None:
    """So that several writers have as large batches as one alone."""
    number = batches(ledger_database)
    with held_up(ledger_database) as other:
        first = asyncio.ensure_future(store.open_intent(intent("1")))

        def waits() -> bool:
            found = other.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            ).fetchone()
            return found == (1,)

        await becomes_true(waits)
        later = [asyncio.ensure_future(store.open_intent(intent(str(name)))) for name in range(2, 6)]
        await asyncio.sleep(0)  # they are queued now
    assert all(isinstance(each, Opened) for each in await asyncio.gather(first, *later))
    assert batches(ledger_database) == number + 1


async def test_a_refusal_is_the_same_as_by_asking_one_by_one(store: PostgresStore, at_once: AtOnce) -> None:
    """Of a task that is not there, one that is over, and a quota that is used up."""
    told = await at_once(
        store.open_intent(intent("1", task="nowhere")),
        store.open_intent(intent("2", max_live_leases=1)),
        store.open_intent(intent("3", max_live_leases=1)),
        store.open_intent(intent("4", holder=BOB, max_live_leases=1)),
    )
    reasons = [each.reason if isinstance(each, BrokerError) else None for each in told]
    assert reasons == [Reason.TASK_NOT_FOUND, None, Reason.QUOTA_LIVE_LEASES, None]
    assert len({each.lease_id for each in told if isinstance(each, Opened)}) == 2
