"""The server is lost, in the middle of this and that; and others write the same ledger."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta

import psycopg
import pytest

from broker.clock import SystemClock
from broker.errors import InvalidInput, NotReady, Reason, Tampered, WrongState
from broker.ports.leases import EndCause
from broker.ports.tasks import Task, TaskState
from broker.stores import postgres_connection, postgres_database, postgres_readers
from broker.stores.audit_reader import AuditReader
from broker.stores.postgres import PostgresStore
from broker.stores.postgres_clock import ServerClock
from broker.stores.postgres_connection import (
    IDLE_SECONDS,
    LOCK_SECONDS,
    LOCK_SPACE,
    PostgresConnection,
    ServerAddress,
)
from broker.stores.task_ops import start_task
from broker.stores.transaction import Transaction
from tests.patience import PATIENCE, becomes_true, until
from tests.stores.conftest import LedgerDatabase
from tests.stores.make import ALICE, TASK, TENANT, Keys, at, intent, new_task
from tests.stores.pooler import TransactionPooler
from tests.stores.wire import Cut, Wire

COMMIT = b"COMMIT\x00"


@pytest.fixture
def wire(ledger_database: LedgerDatabase) -> Iterator[Wire]:
    wire = Wire(ledger_database.server.host, ledger_database.server.port)
    yield wire
    wire.close()


@pytest.fixture
async def store(ledger_database: LedgerDatabase, wire: Wire) -> AsyncIterator[PostgresStore]:
    """Over the wire."""
    store = await PostgresStore.open(over(wire, ledger_database), Keys(), "writer-1", ServerClock(SystemClock()))
    yield store
    await store.close()


@pytest.mark.parametrize("role", ["writer", "reader", "migrate"])
def test_a_pooler_in_transaction_mode_is_refused_by_name(ledger_database: LedgerDatabase, role: str) -> None:
    """What is set in a session would be another's: the lock's number, whose batch it is, how long is waited."""
    server = ledger_database.server
    pooler = TransactionPooler(server.host, server.port)
    try:
        with pytest.raises(NotReady, match="a pooler in transaction mode") as refused:
            postgres_connection.connect(over(pooler, ledger_database), role=role)
        assert "session mode" in refused.value.hint
    finally:
        pooler.close()


def test_a_pooler_that_leaves_each_client_its_session_is_not(ledger_database: LedgerDatabase) -> None:
    pooler = TransactionPooler(ledger_database.server.host, ledger_database.server.port, pinned=True)
    try:
        session = postgres_connection.connect(over(pooler, ledger_database), role="writer", patience=9.0)
        assert session._session.info.backend_pid == 7, "it says what poolers say"
        assert session.execute("SELECT pg_backend_pid()").fetchone() == (session.process,), "whose words are our own"
        assert session.execute("SELECT current_setting('lock_timeout')").fetchone() == (f"{LOCK_SECONDS}s",)
        assert session._session.patience == 9.0
        session.close()
    finally:
        pooler.close()


def over(wire: Wire | TransactionPooler, database: LedgerDatabase) -> ServerAddress:
    return database.through(wire.port)


def tasks(database: LedgerDatabase) -> list[object]:
    with database.session() as session:
        return [row[0] for row in session.execute("SELECT id FROM tasks ORDER BY id").fetchall()]


def busy_for(database: LedgerDatabase, process: int) -> timedelta:
    """How long a process of the server that has something to do has been at its transaction."""
    with database.session() as session:
        row = session.execute(
            "SELECT clock_timestamp() - xact_start FROM pg_stat_activity WHERE pid = %s AND state = 'active'",
            (process,),
        ).fetchone()
    return row[0] if row is not None and isinstance(row[0], timedelta) else timedelta()


def whole(database: LedgerDatabase) -> bool:
    with AuditReader(database.address) as trail:
        return not list(trail.verify(Keys().find))


async def test_an_answer_to_a_commit_that_is_lost_is_read_back(
    store: PostgresStore, wire: Wire, ledger_database: LedgerDatabase
) -> None:
    """F20: committed is committed, whoever heard of it."""
    wire.cut_at(COMMIT, Cut.AFTER)
    task = await store.start_task(new_task())
    assert task.id == TASK and tasks(ledger_database) == [TASK]
    await store.open_intent(intent())
    assert whole(ledger_database)


async def test_a_commit_that_did_not_arrive_is_told_as_nothing_committed(
    store: PostgresStore, wire: Wire, ledger_database: LedgerDatabase
) -> None:
    """F20: never a false success."""
    wire.cut_at(COMMIT, Cut.BEFORE)
    with pytest.raises(NotReady) as refused:
        await store.start_task(new_task())
    assert refused.value.reason is Reason.STORE_UNAVAILABLE and tasks(ledger_database) == []
    await store.start_task(new_task())
    assert tasks(ledger_database) == [TASK] and whole(ledger_database)


@pytest.mark.parametrize("how", Cut)
async def test_nobody_says_so_where_nobody_knows(
    store: PostgresStore,
    wire: Wire,
    ledger_database: LedgerDatabase,
    monkeypatch: pytest.MonkeyPatch,
    how: Cut,
) -> None:
    """F20: while it cannot be read back, neither success nor failure is claimed; afterwards all goes on as it is."""
    monkeypatch.setattr(postgres_database, "_SETTLE_SECONDS", 0.0)
    wire.cut_at(COMMIT, how, stays_cut=True)
    with pytest.raises(NotReady) as refused:
        await store.start_task(new_task())
    assert refused.value.reason is Reason.COMMIT_UNKNOWN
    wire.refusing = False
    monkeypatch.setattr(store._writing_end, "_again", 0.0)  # as if the pause were over
    task = await store.start_task(new_task())  # the same request: answered, or done now
    assert task.id == TASK and tasks(ledger_database) == [TASK] and whole(ledger_database)


@pytest.fixture
async def impatient(store: PostgresStore) -> PostgresStore:
    """Waits half a second for an answer on the session that it has; on those that it makes later as long as always."""
    connection = store._writing_end.connection
    assert isinstance(connection, PostgresConnection)
    connection.wait_no_longer_than(0.5)
    return store


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Processes of the server that do nothing, and whose kernel acknowledges everything."""
    try:
        for each in pids:
            _tell(each, signal.SIGSTOP)
        yield
    finally:
        for each in pids:
            _tell(each, signal.SIGCONT)


def _tell(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # of a session that is over
        os.kill(pid, number)


def behind(database: LedgerDatabase, port: int) -> int:
    """The process of the server that is spoken to from this port."""
    with database.session() as session:
        found = session.execute("SELECT pid FROM pg_stat_activity WHERE client_port = %s", (port,)).fetchone()
    assert found is not None
    return int(str(found[0]))


def processes(database: LedgerDatabase, of: str) -> list[int]:
    with database.session() as session:
        found = session.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = %s AND datname = current_database()",
            (f"brokerd {of}",),
        ).fetchall()
    assert found
    return [int(str(pid)) for (pid,) in found]


async def test_an_answer_that_never_comes_is_read_back(
    impatient: PostgresStore, wire: Wire, ledger_database: LedgerDatabase
) -> None:
    """F20: nothing is cut, and nothing is said. The wait has an end, and what was committed counts."""
    wire.silent_at(COMMIT, Cut.AFTER)
    task = await impatient.start_task(new_task())
    assert task.id == TASK and tasks(ledger_database) == [TASK]
    await impatient.open_intent(intent())
    assert whole(ledger_database)


async def test_a_commit_that_nobody_heard_is_told_as_nothing_committed_although_nothing_was_cut(
    impatient: PostgresStore, wire: Wire, ledger_database: LedgerDatabase
) -> None:
    """F20."""
    wire.silent_at(COMMIT, Cut.BEFORE)
    with pytest.raises(NotReady) as refused:
        await impatient.start_task(new_task())
    assert refused.value.reason is Reason.STORE_UNAVAILABLE and tasks(ledger_database) == []
    await impatient.start_task(new_task())
    assert tasks(ledger_database) == [TASK] and whole(ledger_database)


@pytest.mark.parametrize("word", [b"BEGIN;", b"tasks"])
async def test_silence_before_the_commit_ends_too(
    impatient: PostgresStore, wire: Wire, ledger_database: LedgerDatabase, word: bytes
) -> None:
    """F20: it costs nobody more than the wait, for nothing was committed, and the batch is run again."""
    wire.silent_at(word, Cut.BEFORE)
    await impatient.start_task(new_task())
    assert tasks(ledger_database) == [TASK] and whole(ledger_database)


async def test_a_stopped_process_of_the_server_is_not_waited_for(
    impatient: PostgresStore, ledger_database: LedgerDatabase
) -> None:
    """F20: SIGSTOP between two batches."""
    with stopped(*processes(ledger_database, "writer")):
        task = await impatient.start_task(new_task())
        assert task.id == TASK and tasks(ledger_database) == [TASK]
    await impatient.open_intent(intent())
    assert whole(ledger_database)


async def test_nobody_says_so_while_a_stopped_process_has_the_commit(
    impatient: PostgresStore, wire: Wire, ledger_database: LedgerDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F20: SIGSTOP at the COMMIT. It holds the ledger's lock; when it goes on it commits, and the answer is that."""
    monkeypatch.setattr(postgres_database, "_SETTLE_SECONDS", 0.0)
    with ExitStack() as until_it_goes_on:
        wire.act_at(COMMIT, lambda port: until_it_goes_on.enter_context(stopped(behind(ledger_database, port))))
        with pytest.raises(NotReady) as refused:
            await impatient.start_task(new_task())
        assert refused.value.reason is Reason.COMMIT_UNKNOWN and tasks(ledger_database) == []
    task = await impatient.start_task(new_task())  # the same request
    assert task.id == TASK and tasks(ledger_database) == [TASK] and whole(ledger_database)


async def test_a_reader_does_not_wait_for_a_stopped_process(
    store: PostgresStore, ledger_database: LedgerDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F20: a read that is not answered is asked on another session."""
    with monkeypatch.context() as hasty:  # this session; the one that comes after it waits as long as always
        hasty.setattr(postgres_readers, "PATIENCE", 0.5)
        await store.start_task(new_task())
        await store.get_task(TENANT, TASK)
    with stopped(*processes(ledger_database, "reader")):
        assert (await store.get_task(TENANT, TASK)).id == TASK


async def test_what_waits_for_the_server_is_told_how_long(
    store: PostgresStore, ledger_database: LedgerDatabase
) -> None:
    """F20: the gate closes by it, so that no grant is queued behind an answer that may never come."""
    assert store.unanswered == timedelta(0)
    with stopped(*processes(ledger_database, "writer")):
        started = asyncio.ensure_future(store.start_task(new_task()))
        await becomes_true(lambda: store.unanswered > timedelta(milliseconds=50))
    await started
    assert store.unanswered == timedelta(0)


async def test_a_session_that_was_lost_while_idle_costs_nobody_anything(
    store: PostgresStore, ledger_database: LedgerDatabase
) -> None:
    await store.start_task(new_task())
    await store.get_task(TENANT, TASK)
    with ledger_database.session() as session:
        session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'brokerd %'"
        )
    assert (await store.get_task(TENANT, TASK)).id == TASK
    await store.open_intent(intent())
    assert whole(ledger_database)


async def test_a_server_that_is_away_is_told_at_once_and_tried_again(store: PostgresStore, wire: Wire) -> None:
    wire.cut_at(b"BEGIN;", Cut.BEFORE, stays_cut=True)
    for _ in range(2):
        with pytest.raises(NotReady) as refused:
            await store.start_task(new_task())
        assert refused.value.reason is Reason.STORE_UNAVAILABLE
    wire.refusing = False
    store._writing_end._again = 0.0  # type: ignore[attr-defined]
    assert (await store.start_task(new_task())).id == TASK


@pytest.fixture
def read_only(ledger_database: LedgerDatabase) -> Iterator[Callable[[bool], None]]:
    """The server's administrator, or a provider whose disk is full, lets nobody write: sessions go on, read-only."""

    def turn(on: bool) -> None:
        with ledger_database.session() as session:
            session.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if on else 'off'}".encode())
            session.execute("SELECT pg_reload_conf()")
            until(lambda: said(ledger_database) == ("on" if on else "off"))

    yield turn
    turn(False)


def said(database: LedgerDatabase) -> object:
    with database.session() as session:
        row = session.execute("SHOW default_transaction_read_only").fetchone()
    return row and row[0]


async def test_a_primary_that_turns_read_only_is_told_as_that_and_closes_the_gate(
    ledger_database: LedgerDatabase, store: PostgresStore, read_only: Callable[[bool], None]
) -> None:
    """F20: nobody's request is wrong, and nothing can be written."""
    await store.start_task(new_task())
    read_only(True)
    asked: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: store._writer.submit(lambda tx: tx.run("forget_replicas", {"long_ago": 1})),  # in no record
        lambda: store.open_intent(intent()),
        lambda: store.start_task(new_task("another")),
    )
    for ask, why in zip(asked, ("ReadOnlySqlTransaction", "OperationalError", "OperationalError"), strict=True):
        with pytest.raises(NotReady, match=why) as refused:
            await ask()
        assert refused.value.reason is Reason.STORE_UNAVAILABLE
        assert why in store.failing[1]
    read_only(False)
    store._writing_end._again = 0.0  # type: ignore[attr-defined]
    await store.open_intent(intent())
    assert store.failing[1] == "" and whole(ledger_database)


async def test_where_the_server_turned_read_only_another_one_is_written_to_and_read(
    ledger_database: LedgerDatabase, store: PostgresStore
) -> None:
    """F20, F21: it was handed over by hand, and is left running: what it answers is of before."""
    await store.start_task(new_task())
    before = await _server_process(store)
    # As all of its sessions were told; the one that is made next is another server's.
    store._writing_end.connection.together("SET default_transaction_read_only = on")  # type: ignore[attr-defined]
    with pytest.raises(NotReady):
        await store.start_task(new_task("another"))
    # The other brokers may have found it sooner: what is not here may be there.
    with pytest.raises(NotReady):
        await store.get_task(TENANT, "another")
    await store.start_task(new_task("another"))
    assert await _server_process(store) != before
    assert whole(ledger_database)


async def _server_process(store: PostgresStore) -> object:
    """Whom a read asks. One thread's sessions: whoever reads first is given the first one."""
    return await store._readers.point(lambda view: view.connection.process)


async def test_two_write_one_ledger(ledger_database: LedgerDatabase) -> None:
    """F17: what one has committed the other sees, and the chain is one."""
    one, two = await ledger_database.open("writer-1"), await ledger_database.open("writer-2")
    await one.start_task(new_task())
    for number, store in enumerate([two, one, two, two, one]):
        await store.open_intent(intent(str(number)))
    again = await one.start_task(new_task())
    assert again == await two.get_task(TENANT, TASK)
    await one.close()
    await two.close()
    assert whole(ledger_database)


async def test_what_one_remembers_of_a_row_is_forgotten_when_another_has_written(
    ledger_database: LedgerDatabase,
) -> None:
    """F17."""
    one, two = await ledger_database.open("writer-1"), await ledger_database.open("writer-2")
    await one.start_task(new_task())
    assert one._writer._transaction.images.tasks
    await two.end_task(TENANT, TASK, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(2))
    with pytest.raises(WrongState):
        await one.open_intent(intent())
    assert (await one.get_task(TENANT, TASK)).state is TaskState.COMPLETED
    await one.close()
    await two.close()


async def test_a_server_that_has_lost_what_was_committed_is_not_written_to(ledger_database: LedgerDatabase) -> None:
    """F21: a standby was promoted without the last transactions."""
    one, two = await ledger_database.open("writer-1"), await ledger_database.open("writer-2")
    await one.start_task(new_task())
    with ledger_database.session() as session:
        kept = session.execute("SELECT seq, hash, mac, mac_key_id FROM audit_head").fetchone()
        assert kept is not None
        await two.start_task(new_task("another"))
        await one.start_task(new_task())  # one has heard of it
        session.execute("SET session_replication_role = replica")
        session.execute("DELETE FROM audit WHERE seq > %s", (kept[0],))
        session.execute("UPDATE audit_head SET seq = %s, hash = %s, mac = %s, mac_key_id = %s", kept)
        session.execute("UPDATE last_batch SET number = number - 1, writer = 'writer-0'")
    for store in (one, two):
        with pytest.raises(Tampered) as refused:
            await store.start_task(new_task("third"))
        assert refused.value.reason is Reason.AUDIT_CHAIN_BROKEN
        await store.lost()  # brokerd ends by it, and is started again
        await store.close()


async def test_a_text_that_the_server_cannot_keep_is_the_askers_mistake(
    store: PostgresStore, ledger_database: LedgerDatabase
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await store.start_task(new_task(purpose="a\x00b"))
    assert refused.value.reason is Reason.MESSAGE_MALFORMED and tasks(ledger_database) == []


async def test_a_writer_that_is_stopped_in_the_middle_holds_the_others_up_no_longer_than_it_says(
    ledger_database: LedgerDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F17: SIGSTOP of a broker, between BEGIN and COMMIT. What it had begun is undone, and done when it goes on."""
    assert postgres_connection._SESSION["idle_in_transaction_session_timeout"] == f"{IDLE_SECONDS}s"
    assert IDLE_SECONDS <= 5
    with monkeypatch.context() as hasty:  # one's session; the other's, and those that come later, are as always
        hasty.setitem(postgres_connection._SESSION, "idle_in_transaction_session_timeout", "300ms")
        one = await ledger_database.open("writer-1")
    two = await ledger_database.open("writer-2")
    begun, goes_on = threading.Event(), threading.Event()

    def stands(tx: Transaction) -> Task:
        begun.set()
        assert goes_on.wait(PATIENCE)
        return start_task(tx, new_task())

    stopped_one = asyncio.ensure_future(one._writer.submit(stands))
    await asyncio.to_thread(begun.wait, PATIENCE)
    await asyncio.wait_for(two.start_task(new_task("another")), PATIENCE)
    assert tasks(ledger_database) == ["another"]
    goes_on.set()
    assert (await stopped_one).id == TASK
    assert tasks(ledger_database) == ["another", TASK] and whole(ledger_database)
    await one.close()
    await two.close()


@contextmanager
def holding_for(seconds: float) -> Iterator[None]:
    """So long may a writer have the lock whose session is made meanwhile."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(postgres_database, "HOLD_SECONDS", seconds)
        yield


async def test_a_writer_that_is_stopped_in_the_middle_of_a_word_holds_the_others_up_no_longer_than_it_says(
    wire: Wire, ledger_database: LedgerDatabase
) -> None:
    """F17: a server that has half of what was sent is not idle. What was begun is undone, and read back as that."""
    assert IDLE_SECONDS < LOCK_SECONDS < postgres_database.HOLD_SECONDS  # or the longer of the first two is not heeded
    with ledger_database.session() as session:
        if session.info.server_version < postgres_connection.BOUNDS_TRANSACTIONS:
            pytest.skip("this release bounds no transaction: who waits ends it, as below")
    with holding_for(1.0):
        one = await PostgresStore.open(over(wire, ledger_database), Keys(), "writer-1", ServerClock(SystemClock()))
    two = await ledger_database.open("writer-2")
    stopped, goes_on = wire.stop_at(COMMIT)
    stopped_one = asyncio.ensure_future(one.start_task(new_task()))
    await asyncio.to_thread(stopped.wait, PATIENCE)
    await asyncio.wait_for(two.start_task(new_task("another")), PATIENCE)
    assert tasks(ledger_database) == ["another"]
    goes_on.set()
    with pytest.raises(NotReady) as refused:
        await stopped_one
    assert refused.value.reason is Reason.STORE_UNAVAILABLE and tasks(ledger_database) == ["another"]
    assert (await one.start_task(new_task())).id == TASK
    assert tasks(ledger_database) == ["another", TASK] and whole(ledger_database)
    await one.close()
    await two.close()


@pytest.fixture
def bounded_by_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server ends no writer that stands, as PostgreSQL 16 does not in the middle of a word; and waits are short."""
    monkeypatch.setattr(postgres_database, "BOUNDS_TRANSACTIONS", 10**9)
    monkeypatch.setattr(postgres_database, "IDLE_SECONDS", 0.2)
    monkeypatch.setitem(postgres_connection._SESSION, "idle_in_transaction_session_timeout", "0")
    monkeypatch.setitem(postgres_connection._SESSION, "lock_timeout", "300ms")


@pytest.mark.usefixtures("bounded_by_who_waits")
async def test_a_writer_that_is_stopped_in_the_middle_of_a_word_is_ended_by_who_waits_for_it(
    wire: Wire, ledger_database: LedgerDatabase
) -> None:
    """F17: on every release. Who waits in vain is refused once; what was begun is undone, and read back as that."""
    one = await PostgresStore.open(over(wire, ledger_database), Keys(), "writer-1", ServerClock(SystemClock()))
    two = await ledger_database.open("writer-2")
    stopped, goes_on = wire.stop_at(COMMIT)
    stopped_one = asyncio.ensure_future(one.start_task(new_task()))
    await asyncio.to_thread(stopped.wait, PATIENCE)
    with pytest.raises(NotReady) as refused:
        await asyncio.wait_for(two.start_task(new_task("another")), PATIENCE)
    assert refused.value.reason is Reason.STORE_UNAVAILABLE and tasks(ledger_database) == []
    await asyncio.wait_for(two.start_task(new_task("another")), PATIENCE)
    goes_on.set()
    with pytest.raises(NotReady) as undone:
        await stopped_one
    assert undone.value.reason is Reason.STORE_UNAVAILABLE and tasks(ledger_database) == ["another"]
    assert (await one.start_task(new_task())).id == TASK
    assert tasks(ledger_database) == ["another", TASK] and whole(ledger_database)
    await one.close()
    await two.close()


@pytest.mark.usefixtures("bounded_by_who_waits")
async def test_who_waits_ends_no_commit_that_waits_for_its_standby(ledger_database: LedgerDatabase) -> None:
    """F21: it has the lock for as long as that takes."""
    one, two = await ledger_database.open("writer-1"), await ledger_database.open("writer-2")
    process = one._writing_end.connection.process  # type: ignore[attr-defined]
    with ledger_database.session() as session:
        try:
            session.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            session.execute("SELECT pg_reload_conf()")
            await becomes_true(lambda: session.execute("SHOW synchronous_standby_names").fetchone() == ("nobody",))
            started = asyncio.ensure_future(one.start_task(new_task()))
            await becomes_true(lambda: busy_for(ledger_database, process) > timedelta(seconds=0.5))
            for _ in range(2):
                with pytest.raises(NotReady):
                    await two.start_task(new_task("another"))
        finally:
            session.execute("ALTER SYSTEM RESET synchronous_standby_names")
            session.execute("SELECT pg_reload_conf()")
    assert (await started).id == TASK
    await two.start_task(new_task("another"))
    assert one._writing_end.connection.process == process  # type: ignore[attr-defined]
    await one.close()
    await two.close()


@pytest.mark.usefixtures("bounded_by_who_waits")
async def test_who_waits_ends_nobody_who_is_idle_with_the_lock(ledger_database: LedgerDatabase) -> None:
    """F17: that is the server's to do, and a person may hold a ledger up on purpose."""
    store = await ledger_database.open()
    # Of the role that may end its own.
    with psycopg.connect(ledger_database.address.dsn.reveal(), autocommit=True) as session, session.transaction():
        session.execute("SELECT pg_advisory_xact_lock(%s | 'last_batch'::regclass::oid::bigint)", (LOCK_SPACE << 32,))
        for _ in range(2):
            with pytest.raises(NotReady):
                await store.start_task(new_task())
        session.execute("SELECT 1")
    assert (await store.start_task(new_task())).id == TASK
    await store.close()


async def test_the_wait_for_the_lock_takes_nothing_from_the_time_that_one_may_have_it(
    ledger_database: LedgerDatabase,
) -> None:
    """F17."""
    with holding_for(1.0):
        store = await ledger_database.open()
    process = store._writing_end.connection.process  # type: ignore[attr-defined]
    with ledger_database.session() as session, session.transaction():
        session.execute("SELECT pg_advisory_xact_lock(%s | 'last_batch'::regclass::oid::bigint)", (LOCK_SPACE << 32,))
        started = asyncio.ensure_future(store.start_task(new_task()))
        await becomes_true(lambda: busy_for(ledger_database, process) > timedelta(seconds=1.1))
    assert (await started).id == TASK
    await store.close()


async def test_a_commit_waits_for_its_standby_as_long_as_it_takes(ledger_database: LedgerDatabase) -> None:
    """F21: cut short, it would be on this server alone."""
    with holding_for(1.0):
        store = await ledger_database.open()
    process = store._writing_end.connection.process  # type: ignore[attr-defined]
    with ledger_database.session() as session:
        try:
            session.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            session.execute("SELECT pg_reload_conf()")
            await asyncio.to_thread(until, lambda: _a_commit_waits(ledger_database, session))
            started = asyncio.ensure_future(store.start_task(new_task()))
            await becomes_true(lambda: busy_for(ledger_database, process) > timedelta(seconds=1.1))
        finally:
            session.execute("ALTER SYSTEM RESET synchronous_standby_names")
            session.execute("SELECT pg_reload_conf()")
    assert (await started).id == TASK
    await store.close()


def _a_commit_waits(database: LedgerDatabase, beside: psycopg.Connection[tuple[object, ...]]) -> bool:
    """Whether the server has taken it in: one of its processes has to, and not the one that answers for the setting."""
    with database.session() as probe, ThreadPoolExecutor(1) as thread:
        committing = thread.submit(probe.execute, "UPDATE last_batch SET writer = writer")
        waiting = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'"
        return (
            until(
                lambda: (
                    "waits"
                    if beside.execute(waiting, (probe.info.backend_pid,)).fetchone()
                    else ("passed" if committing.done() else None)
                )
            )
            == "waits"
        )


async def test_a_process_of_the_server_that_is_stopped_with_the_lock_costs_the_others_a_bounded_wait(
    impatient: PostgresStore, wire: Wire, ledger_database: LedgerDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F20: nobody can take its lock from it; the others are told so in time, and go on as soon as it does."""
    monkeypatch.setattr(postgres_database, "_SETTLE_SECONDS", 0.0)
    monkeypatch.setitem(postgres_connection._SESSION, "lock_timeout", "300ms")
    other = await ledger_database.open("writer-2")
    with ExitStack() as until_it_goes_on:
        wire.act_at(COMMIT, lambda port: until_it_goes_on.enter_context(stopped(behind(ledger_database, port))))
        with pytest.raises(NotReady) as unknown:
            await impatient.start_task(new_task())
        assert unknown.value.reason is Reason.COMMIT_UNKNOWN
        with pytest.raises(NotReady) as refused:
            await asyncio.wait_for(other.start_task(new_task("another")), PATIENCE)
        assert refused.value.reason is Reason.STORE_UNAVAILABLE
    await becomes_true(lambda: tasks(ledger_database) == [TASK])
    await other.start_task(new_task("another"))
    assert tasks(ledger_database) == ["another", TASK] and whole(ledger_database)
    await other.close()
