"""One set of statements and one schema for both databases; who may work with which; whom a server must convince."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from structlog.testing import capture_logs

from broker.clock import SystemClock
from broker.dev.postgres import PostgresServer
from broker.errors import InvalidInput, NotReady, Reason, Tampered
from broker.ports.replicas import Heartbeat
from broker.secret import Secret
from broker.stores import migrate as file_migrate
from broker.stores import migrating, postgres_connection, postgres_migrate
from broker.stores.postgres import PostgresStore
from broker.stores.postgres_clock import ServerClock
from broker.stores.postgres_connection import LOCK_SPACE, PostgresConnection, ServerAddress, connect
from broker.stores.postgres_sql import SQL, postgres_migrations, statement
from broker.stores.queries import SQL as COMMON
from broker.stores.queries import migrations
from broker.stores.sqlite import SqliteStore
from tests.patience import PATIENCE, until
from tests.stores.conftest import LedgerDatabase
from tests.stores.make import ALICE, TASK, TENANT, Keys, intent, new_task

NEXT = len(migrations()) + 1
ADDING = f"""
-- What a next release might add.
-- readable from: {NEXT - 1}
CREATE TABLE novelties (tenant TEXT NOT NULL PRIMARY KEY, at INTEGER NOT NULL) STRICT;
ALTER TABLE leases ADD COLUMN novelty TEXT;
"""
CHANGING = "ALTER TABLE leases ADD COLUMN novelty TEXT;"


@pytest.fixture
def empty(ledger_database: LedgerDatabase) -> Iterator[LedgerDatabase]:
    """A database that nobody has migrated."""
    server = ledger_database.server
    with psycopg.connect(server.conninfo(), autocommit=True) as session:
        session.execute("CREATE DATABASE empty")
        yield LedgerDatabase(server, "empty")
        session.execute("DROP DATABASE empty WITH (FORCE)")


def test_every_statement_is_understood_by_the_server(ledger_database: LedgerDatabase) -> None:
    assert SQL.keys() == COMMON.keys()
    with ledger_database.session() as session:
        session.execute(SQL["make_events"].encode())
        for name in SQL:
            prepared = session.pgconn.prepare(name.encode(), statement(SQL[name]).text.encode())
            assert not prepared.error_message, (name, prepared.error_message.decode())


@pytest.mark.parametrize("name", sorted(COMMON))
def test_both_databases_take_the_same_parameters(name: str) -> None:
    def asked(text: str) -> set[str]:
        return set(re.findall(r"(?<!:):([a-z_]+)|\?([0-9]+)", text))  # type: ignore[arg-type]

    assert asked(SQL[name]) == asked(COMMON[name]) or not asked(SQL[name])


def test_both_databases_have_the_same_tables(ledger_database: LedgerDatabase, tmp_path: Path) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as file:
        file_migrate.migrate(file)
        theirs = {
            (table, column)
            for (table,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for _, column, *_ in file.execute("SELECT * FROM pragma_table_info(?)", (table,))
        }
    with ledger_database.session() as session:
        query = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        ours = set(session.execute(query).fetchall())
    own = {"last_batch", "writer_batches"}
    assert {pair for pair in ours if pair[0] not in own and pair[1] != "rowid"} == theirs


def test_every_text_is_compared_by_its_bytes(ledger_database: LedgerDatabase) -> None:
    with ledger_database.session() as session:
        query = (
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'"
        )
        assert session.execute(query).fetchall() == []


def test_the_daemons_role_adds_to_the_trail_and_changes_nothing_of_it(ledger_database: LedgerDatabase) -> None:
    """F30: not even who has brokerd's password rewrites the trail by it."""
    with closing(connect(ledger_database.address, role="test")) as session:
        for forbidden in (
            "UPDATE audit SET body = body",
            "DELETE FROM audit",
            "TRUNCATE audit",
            "DROP TABLE audit",
            "CREATE TABLE mine (n INTEGER)",
            "UPDATE schema_version SET version = 1",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(forbidden)


async def test_a_database_that_is_not_migrated_is_not_opened(empty: LedgerDatabase) -> None:
    with pytest.raises(NotReady) as refused:
        await empty.open()
    assert refused.value.reason is Reason.STORE_UNAVAILABLE and "broker migrate" in refused.value.hint


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"password": "hush"}, "password authentication failed"),
        ({"dbname": "nowhere"}, 'database "nowhere" does not exist'),
        ({"port": "9"}, "Connection refused"),
    ],
)
async def test_a_server_that_refuses_is_quoted(
    ledger_database: LedgerDatabase, change: dict[str, str], said: str
) -> None:
    """Whoever starts brokerd, or gives a command, sees which of a dozen things is wrong; and no password."""
    dsn = psycopg.conninfo.make_conninfo(ledger_database.address.dsn.reveal(), **change)
    address = ServerAddress(Secret(dsn))
    with pytest.raises(NotReady, match=said) as refused, capture_logs() as told:
        await PostgresStore.open(address, Keys(), "w", ServerClock(SystemClock()))
    assert refused.value.reason is Reason.STORE_UNAVAILABLE and "hush" not in str(refused.value) + str(told)
    (line,) = told
    assert said in line["why"]
    with pytest.raises(NotReady, match=said):
        migrating.pending_steps(address)


def test_that_it_cannot_be_reached_is_told_once_in_a_while(
    ledger_database: LedgerDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    with capture_logs() as told:
        for _ in range(3):
            ledger_database.address.reaching.reached("db")  # nothing was wrong
        reaching = ledger_database.address.reaching
        for why in ("one", "one", "another", "another"):
            reaching.failed("db", psycopg.OperationalError(why))
        monkeypatch.setattr(postgres_connection, "_SAID_ALREADY", -1.0)
        reaching.failed("db", psycopg.OperationalError("another"))
        reaching.reached("db")
        reaching.reached("db")
    assert [line.get("why") for line in told] == ["one", "another", "another", None]


def test_two_who_migrate_at_once_do_it_once(empty: LedgerDatabase) -> None:
    planned = migrating.pending_steps(empty.owner)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(migrating.carry_out, [empty.owner] * 2))
    assert sorted(map(len, done)) == [0, len(migrations())] and len(planned) == len(migrations())
    assert migrating.pending_steps(empty.owner) == []


def next_release(text: str) -> tuple[Mapping[int, str], Mapping[int, str]]:
    """The migrations of a release that does not exist, for either database."""
    from broker.stores.postgres_sql import _ddl

    return {**migrations(), NEXT: text}, {**postgres_migrations(), NEXT: _ddl(text)}


async def test_the_old_release_goes_on_beside_a_schema_that_only_adds(
    empty: LedgerDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F50: a rolling upgrade. The release of today is the old one."""
    with closing(connect(empty.owner, role="test")) as owner:
        postgres_migrate.migrate(owner)
        store = await empty.open_as_owner()
        await store.start_task(new_task())
        with monkeypatch.context() as newer:
            newer.setattr(postgres_migrate, "postgres_migrations", lambda: next_release(ADDING)[1])
            assert [step.number for step in postgres_migrate.migrate(owner)] == [NEXT]
        # One that was running, and one that starts.
        await store.open_intent(intent())
        await store.close()
        again = await empty.open_as_owner("writer-2")
        assert (await again.get_task(TENANT, TASK)).creator == ALICE
        await again.open_intent(intent("2"))
        await again.close()


async def test_a_newer_schema_that_does_not_say_so_is_refused(
    empty: LedgerDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F50."""
    with closing(connect(empty.owner, role="test")) as owner:
        with monkeypatch.context() as newer:
            newer.setattr(postgres_migrate, "postgres_migrations", lambda: next_release(CHANGING)[1])
            postgres_migrate.migrate(owner)
        with pytest.raises(Tampered) as refused:
            postgres_migrate.migrate(owner)
        assert refused.value.reason is Reason.SCHEMA_VERSION
    with pytest.raises(Tampered):
        await empty.open_as_owner()


async def test_a_broker_at_work_writes_nothing_under_a_schema_that_is_not_for_it(
    empty: LedgerDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F50: somebody migrated beneath it. Its next batch finds out, and brokerd ends by it."""
    with closing(connect(empty.owner, role="test")) as owner:
        postgres_migrate.migrate(owner)
        store = await empty.open_as_owner()
        await store.start_task(new_task())
        migrated_by_the_next(monkeypatch, owner, CHANGING)
        for _ in range(2):
            with pytest.raises(Tampered, match="Start the newer release") as refused:
                await store.open_intent(intent())
            assert refused.value.reason is Reason.SCHEMA_VERSION
        assert (await store.lost()).reason is Reason.SCHEMA_VERSION
        assert owner.execute("SELECT count(*) FROM leases").fetchone() == (0,)
        await store.close()


async def test_a_broker_at_work_writes_nothing_under_an_older_schema_until_it_is_migrated(
    empty: LedgerDatabase,
) -> None:
    """F50: another database is behind the DSN, or this one was put back."""
    with closing(connect(empty.owner, role="test")) as owner:
        postgres_migrate.migrate(owner)
        store = await empty.open_as_owner()
        owner.execute("UPDATE schema_version SET version = version - 1")
        with pytest.raises(NotReady, match=f"needs schema {NEXT - 1}") as refused:
            await store.start_task(new_task())
        assert "broker migrate" in refused.value.hint
        owner.execute("UPDATE schema_version SET version = version + 1")
        await store.start_task(new_task())
        await store.close()


async def test_a_batch_is_of_one_schema_from_its_beginning_to_its_end(
    empty: LedgerDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F50: who migrates waits for the writers' lock, and has it until all is done."""
    with closing(connect(empty.owner, role="test")) as owner:
        postgres_migrate.migrate(owner)
        with empty.session() as batch, ThreadPoolExecutor(1) as pool:
            batch.execute("BEGIN")
            lock = "SELECT pg_advisory_xact_lock('last_batch'::regclass::oid::bigint | %s)"
            batch.execute(lock, (LOCK_SPACE << 32,))
            done = pool.submit(migrated_by_the_next, monkeypatch, owner, CHANGING)
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event = 'advisory'"
            until(lambda: batch.execute(waits).fetchone() == (1,))
            assert not done.done()
            batch.execute("COMMIT")
            done.result(PATIENCE)


async def test_nothing_that_was_remembered_before_a_migration_is_believed_after_it(
    empty: LedgerDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F50: a step that only adds may fill what it adds, and change rows by that."""
    with closing(connect(empty.owner, role="test")) as owner:
        postgres_migrate.migrate(owner)
        store = await empty.open_as_owner()
        await store.start_task(new_task())
        assert await store._writer.submit(lambda tx: len(tx.images.tasks)) == 1
        migrated_by_the_next(monkeypatch, owner, ADDING)
        assert await store._writer.submit(lambda tx: len(tx.images.tasks)) == 0
        await store.close()


def migrated_by_the_next(monkeypatch: pytest.MonkeyPatch, owner: PostgresConnection, text: str) -> None:
    """``broker migrate`` of a release that does not exist."""
    with monkeypatch.context() as newer:
        newer.setattr(postgres_migrate, "postgres_migrations", lambda: next_release(text)[1])
        postgres_migrate.migrate(owner)


async def test_a_migration_that_ends_the_work_of_brokers_waits_until_they_are_stopped(
    empty: LedgerDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F50: else nobody revokes from then on until the new ones are there."""
    with closing(connect(empty.owner, role="test")) as owner:
        postgres_migrate.migrate(owner)
        store = await empty.open_as_owner()
        await store.beat(Heartbeat("writer-1", TENANT), ServerClock(SystemClock()).now())
        with pytest.raises(NotReady, match="1 are at work") as refused:
            migrated_by_the_next(monkeypatch, owner, CHANGING)
        assert "Stop every one of them" in refused.value.hint
        assert postgres_migrate.schema(owner).version == NEXT - 1
        await store.start_task(new_task())  # and they go on
        migrated_by_the_next(monkeypatch, owner, ADDING)  # one beside which they can
        await store.leave("writer-1", ServerClock(SystemClock()).now())
        with monkeypatch.context() as newer:
            after_that = {**next_release(ADDING)[1], NEXT + 1: "ALTER TABLE leases ADD COLUMN another TEXT;"}
            newer.setattr(postgres_migrate, "postgres_migrations", lambda: after_that)
            postgres_migrate.migrate(owner)
        await store.close()


@pytest.mark.parametrize(("text", "opens"), [(ADDING, True), (CHANGING, False)])
async def test_the_same_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, opens: bool) -> None:
    """F50."""
    path = tmp_path / "ledger.sqlite3"
    with monkeypatch.context() as newer:
        newer.setattr(file_migrate, "migrations", lambda: next_release(text)[0])
        await (await SqliteStore.open(path, Keys(), "w")).close()
    if not opens:
        with pytest.raises(Tampered):
            await SqliteStore.open(path, Keys(), "w")
        return
    store = await SqliteStore.open(path, Keys(), "w")
    await store.start_task(new_task())
    await store.open_intent(intent())
    await store.close()


@pytest.mark.parametrize(
    "dsn",
    [
        "host=db.example.org dbname=ledger",
        "host=db.example.org dbname=ledger sslmode=require",
        "host=db.example.org dbname=ledger sslmode=verify-ca",
        "host=127.0.0.1,10.0.0.7 dbname=ledger",
        "postgresql://db.example.org/ledger",
        "not a dsn at all",
    ],
)
def test_a_server_elsewhere_must_prove_itself(dsn: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        ServerAddress(Secret(dsn))
    assert refused.value.reason is Reason.CONFIG_INVALID


@pytest.mark.parametrize(
    "address",
    [
        ServerAddress(Secret("host=db.example.org dbname=ledger sslmode=verify-full password=hush")),
        ServerAddress(Secret("host=db.example.org dbname=ledger password=hush"), allow_unverified=True),
        ServerAddress(Secret("host=/run/postgresql dbname=ledger password=hush")),
        ServerAddress(Secret("host=::1 dbname=ledger password=hush")),
        ServerAddress(Secret("dbname=ledger password=hush")),
    ],
    ids=str,
)
def test_where_it_does_or_need_not(address: ServerAddress) -> None:
    assert "ledger" in str(address) and "hush" not in repr(address) + str(address)


def test_what_is_set_while_a_session_goes_on_does_not_make_it_wait_for_less(ledger_database: LedgerDatabase) -> None:
    """F21: what is not said to a session follows postgresql.conf, also in the middle of its life."""
    with closing(connect(ledger_database.address, role="test")) as session, ledger_database.session() as admin:
        shown = "SELECT current_setting('synchronous_commit')"
        try:
            admin.execute("ALTER SYSTEM SET synchronous_commit = off")
            admin.execute("SELECT pg_reload_conf()")
            until(lambda: admin.execute(shown).fetchone() == ("off",))
            assert session.execute(shown).fetchone() == ("on",)
        finally:
            admin.execute("ALTER SYSTEM RESET synchronous_commit")
            admin.execute("SELECT pg_reload_conf()")


def test_that_a_failover_would_lose_commits_is_told(ledger_database: LedgerDatabase) -> None:
    """F21: several servers in the DSN, of which none waits for another. Told once in a while, however many sessions."""
    dsn, host, port = ledger_database.address.dsn.reveal(), ledger_database.server.host, ledger_database.server.port
    twice = psycopg.conninfo.make_conninfo(dsn, host=f"{host},{host}", port=f"{port},{port}")
    for conninfo, said in ((dsn, 0), (twice, 1)):
        address = ServerAddress(Secret(conninfo))
        with capture_logs() as told:
            for _ in range(2):
                connect(address, role="test").close()
        assert sum("waits for no standby" in line["event"] for line in told) == said


def test_a_session_waits_for_the_disk_whatever_its_role_is_set_to(ledger_database: LedgerDatabase) -> None:
    """F21: synchronous_commit is not believed but set, and read back."""
    with ledger_database.session() as session:
        session.execute("ALTER ROLE jit_brokerd SET synchronous_commit = off")
        try:
            with closing(connect(ledger_database.address, role="test")) as checked:
                assert checked.execute("SHOW synchronous_commit").fetchone() == ("on",)
        finally:
            session.execute("ALTER ROLE jit_brokerd RESET synchronous_commit")


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_would_lose_commits_is_refused(tmp_path: Path, setting: str) -> None:
    """F21."""
    durable = {"fsync": "on", "full_page_writes": "on", setting: "off"}
    server = PostgresServer(tmp_path / "server", **durable)
    try:
        with pytest.raises(NotReady, match=f"{setting} is off"):
            connect(ServerAddress(Secret(server.start().conninfo())), role="test")
    finally:
        server.destroy()
