"""A login of PostgreSQL without Vault really ends: a real server, and an agent that does not want it to."""

from __future__ import annotations

import asyncio
import select
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import sql

from broker.clock import SystemClock
from broker.connectors.postgresql import Postgresql
from broker.connectors.postgresql_session import PostgresqlSettings
from broker.dev.postgres import PostgresFacts
from broker.lease.credential import DatabaseLogin
from broker.ports.connectors import NotYet, Revoked
from broker.scope.canonical import JsonValue
from tests.connectors.harness import can_log_in, conninfo
from tests.connectors.harness_postgresql import DATABASE, READ, READ_BY_ROLE, ROOT, WRITE, postgresql_connector
from tests.connectors.support import HOLDER, Ledger, make_scope, new_attempt
from tests.patience import PATIENCE

CLOCK = SystemClock()
TTL = timedelta(minutes=5)
Grant = Mapping[str, JsonValue]


@dataclass
class Upstream:
    """A connector, and the superuser's view of the database behind it."""

    connector: Postgresql
    postgres: PostgresFacts

    async def login(self, ledger: Ledger, grant: Grant = WRITE, ttl: timedelta = TTL) -> DatabaseLogin:
        expires_at, scope = CLOCK.now() + ttl, make_scope(grant)
        ledger.handle = self.connector.prepare(scope, new_attempt(), HOLDER, expires_at)
        credential = (await self.connector.issue(ledger.handle, scope, expires_at, ledger.checkpoint)).credential
        assert isinstance(credential, DatabaseLogin)
        return credential

    async def revoke(self, ledger: Ledger) -> object:
        return await self.connector.revoke(ledger.handle, ledger.context(CLOCK.now()))

    async def revoked(self, ledger: Ledger) -> Revoked:
        outcome = await self.revoke(ledger)
        assert isinstance(outcome, Revoked), outcome
        assert self.ask("SELECT rolname FROM pg_roles WHERE rolname = %s", ledger.handle["login"]) == []
        return outcome

    def ask(self, statement: str | sql.Composed, *values: object, database: str = DATABASE) -> list[tuple[object, ...]]:
        with psycopg.connect(self.postgres.conninfo(database), autocommit=True) as admin:
            cursor = admin.execute(statement.encode() if isinstance(statement, str) else statement, values or None)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
async def upstream(shop: PostgresqlSettings, postgres_server: PostgresFacts) -> AsyncIterator[Upstream]:
    connector = postgresql_connector(shop)
    yield Upstream(connector, postgres_server)
    await connector.close()


def session_of(login: DatabaseLogin) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(conninfo(login), autocommit=True)


def refused(login: DatabaseLogin, statement: str) -> str:
    """The SQLSTATE with which the server refuses a statement of the login."""
    with session_of(login) as session, pytest.raises(psycopg.Error) as caught:
        session.execute(statement.encode())
    return str(caught.value.sqlstate)


@pytest.mark.parametrize("grant", [READ, READ_BY_ROLE])
async def test_it_does_what_was_granted_and_nothing_else(upstream: Upstream, grant: Grant) -> None:
    ledger = Ledger()
    login = await upstream.login(ledger, grant)
    assert can_log_in(login)
    for statement in (
        "INSERT INTO public.orders VALUES (2, 'desk')",
        "CREATE TABLE public.hideout (note text)",
        "CREATE TABLE scratch.hideout (note text)",
        "CREATE ROLE accomplice",
        f"SET ROLE {ROOT}",
        "SET ROLE orders_reader",
        f"GRANT {ROOT} TO CURRENT_USER",
    ):
        assert refused(login, statement) == "42501", statement  # insufficient_privilege
    await upstream.revoked(ledger)
    assert not can_log_in(login)


async def test_it_cannot_prolong_itself_nor_take_others_in(upstream: Upstream) -> None:
    mine, yours = Ledger(), Ledger()
    login, other = await upstream.login(mine), await upstream.login(yours)
    me, you = sql.Identifier(login.username).as_string(), sql.Identifier(other.username).as_string()
    for statement in (
        f"ALTER ROLE {me} VALID UNTIL 'infinity'",
        f"ALTER ROLE {me} CONNECTION LIMIT -1",
        f"GRANT {me} TO {you}",
        f"ALTER ROLE {you} PASSWORD 'known'",
        f"COMMENT ON ROLE {me} IS 'not one of the broker''s'",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
    ):
        assert refused(login, statement) == "42501", statement
    await upstream.revoked(mine)
    assert can_log_in(other)
    await upstream.revoked(yours)


async def test_the_server_never_sees_the_password_and_keeps_what_bounds_it(upstream: Upstream) -> None:
    ledger, begun = Ledger(), CLOCK.now()
    # What a server says whom nobody told otherwise; the tests' own says 1 (tests/conftest.py).
    upstream.ask(f"ALTER DATABASE {DATABASE} SET scram_iterations = 4096")
    try:
        login = await upstream.login(ledger)
    finally:
        upstream.ask(f"ALTER DATABASE {DATABASE} RESET scram_iterations")
    row = upstream.ask(
        "SELECT rolpassword, rolvaliduntil, rolconnlimit, rolsuper, rolinherit, rolcreaterole, rolcreatedb,"
        " rolreplication, rolbypassrls FROM pg_authid WHERE rolname = %s",
        login.username,
    )[0]
    assert str(row[0]).startswith("SCRAM-SHA-256$4096:")
    assert login.password.reveal() not in str(row)
    assert isinstance(row[1], datetime)
    # From when the server was asked, so shorter by the moment that took, and never longer.
    assert begun < row[1].astimezone(UTC) <= CLOCK.now() + TTL
    assert row[2:] == (20, False, False, False, False, False, False)
    with session_of(login) as session:
        shown = session.execute("SHOW idle_session_timeout").fetchone()
        assert shown is not None
        assert shown[0] != "0"
    await upstream.revoked(ledger)


async def test_after_its_time_the_server_lets_nobody_in_with_nobody_asking(upstream: Upstream) -> None:
    ledger = Ledger()
    login = await upstream.login(ledger)
    # As if its time were over: the server's clock is what it is.
    name = sql.Identifier(login.username)
    upstream.ask(sql.SQL("ALTER ROLE {} VALID UNTIL '2001-01-01'").format(name))
    assert not can_log_in(login)
    await upstream.revoked(ledger)


async def test_an_open_session_is_ended(upstream: Upstream) -> None:
    ledger = Ledger()
    login = await upstream.login(ledger)
    with session_of(login) as session:
        session.execute("LISTEN orders")
        session.execute("SELECT pg_advisory_lock(7)")
        outcome = await upstream.revoked(ledger)
        assert outcome.observed["sessions_ended"] == 1
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")


@pytest.mark.parametrize("round_", [0, *(pytest.param(each, marks=pytest.mark.slow) for each in range(1, 4))])
async def test_a_reconnect_loop_is_defeated(upstream: Upstream, round_: int) -> None:
    ledger = Ledger()
    login = await upstream.login(ledger)
    stop, begun = threading.Event(), threading.Event()
    held: list[psycopg.Connection[tuple[object, ...]]] = []

    def reconnect() -> None:
        while not stop.is_set():
            try:
                held.append(session_of(login))
            except psycopg.OperationalError:
                continue
            begun.set()

    loops = [threading.Thread(target=reconnect) for _ in range(2)]
    for loop in loops:
        loop.start()
    try:
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        await upstream.revoked(ledger)
    finally:
        stop.set()
        for loop in loops:
            await asyncio.to_thread(loop.join)
    for session in held:
        with session, pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")


@pytest.mark.parametrize(
    ("holding", "count"),
    [
        ("ALTER ROLE {} PASSWORD 'mine'", 1),
        ("ALTER ROLE {} PASSWORD 'mine'", 8),
        ("ALTER ROLE {} SET work_mem = '1MB'", 1),
    ],
)
async def test_a_lock_on_its_own_role_does_not_keep_the_door_open(upstream: Upstream, holding: str, count: int) -> None:
    ledger = Ledger()
    login = await upstream.login(ledger)
    stop, begun = threading.Event(), threading.Event()

    def hold() -> None:
        while not stop.is_set():
            try:
                with session_of(login) as session, session.transaction():
                    session.execute(holding.format(sql.Identifier(login.username).as_string()).encode())
                    begun.set()
                    session.execute("SELECT pg_sleep(30)")
            except psycopg.Error:
                continue

    holders = [threading.Thread(target=hold) for _ in range(count)]
    for holder in holders:
        holder.start()
    try:
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        await upstream.revoked(ledger)
    finally:
        stop.set()
        # Where the door stayed open, nobody waits for what they sleep.
        upstream.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", login.username)
        for holder in holders:
            await asyncio.to_thread(holder.join)


async def test_a_login_that_stalls_before_the_door_finds_it_shut(upstream: Upstream) -> None:
    """It has asked to be let in before the revocation, and sends its proof of the password after it."""
    ledger = Ledger()
    login = await upstream.login(ledger)
    stalled = psycopg.pq.PGconn.connect_start(conninfo(login).encode())
    while stalled.status != psycopg.pq.ConnStatus.AWAITING_RESPONSE:
        stalled.connect_poll()
    select.select([stalled.socket], [], [], PATIENCE)  # the server asks for the password
    await upstream.revoked(ledger)
    while (state := stalled.connect_poll()) not in (psycopg.pq.PollingStatus.OK, psycopg.pq.PollingStatus.FAILED):
        reading = state == psycopg.pq.PollingStatus.READING
        select.select([stalled.socket] if reading else [], [] if reading else [stalled.socket], [], PATIENCE)
    assert state == psycopg.pq.PollingStatus.FAILED
    stalled.finish()


async def test_what_it_made_goes_with_it(upstream: Upstream) -> None:
    ledger = Ledger()
    login = await upstream.login(ledger)
    with session_of(login) as session:
        session.execute("CREATE TABLE scratch.hideout (note text)")
        session.execute("CREATE FUNCTION scratch.back_door() RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 1'")
        session.execute("GRANT ALL ON scratch.hideout TO PUBLIC")
        session.execute("ALTER DEFAULT PRIVILEGES IN SCHEMA scratch GRANT ALL ON TABLES TO PUBLIC")
        session.execute("CREATE TEMP TABLE gone (note text)")
        large = session.execute("SELECT lo_from_bytea(0, 'kept')").fetchone()
        assert large is not None
        await upstream.revoked(ledger)
    assert upstream.ask("SELECT to_regclass('scratch.hideout'), to_regproc('scratch.back_door')") == [(None, None)]
    assert upstream.ask("SELECT 1 FROM pg_largeobject_metadata WHERE oid = %s", large[0]) == []
    assert upstream.ask("SELECT 1 FROM pg_default_acl") == []


async def test_what_it_made_in_another_database_goes_with_it(upstream: Upstream) -> None:
    upstream.ask("CREATE DATABASE elsewhere", database="postgres")
    try:
        ledger = Ledger()
        login = await upstream.login(ledger)
        with psycopg.connect(conninfo(login), dbname="elsewhere", autocommit=True) as session:
            large = session.execute("SELECT lo_from_bytea(0, 'kept')").fetchone()
            assert large is not None
            outcome = await upstream.revoked(ledger)
        assert outcome.observed["databases_cleared"] == ["elsewhere"]
        found = upstream.ask("SELECT 1 FROM pg_largeobject_metadata WHERE oid = %s", large[0], database="elsewhere")
        assert found == []
    finally:
        upstream.ask("DROP DATABASE elsewhere WITH (FORCE)", database="postgres")


async def test_where_the_broker_may_not_go_it_says_so_and_does_not_say_revoked(upstream: Upstream) -> None:
    upstream.ask("CREATE DATABASE closed", database="postgres")
    try:
        ledger = Ledger()
        login = await upstream.login(ledger)
        name = sql.Identifier(login.username)
        with psycopg.connect(conninfo(login), dbname="closed", autocommit=True) as session:
            session.execute("SELECT lo_from_bytea(0, 'kept')")
        upstream.ask("REVOKE CONNECT ON DATABASE closed FROM PUBLIC", database="postgres")
        outcome = await upstream.revoke(ledger)
        assert isinstance(outcome, NotYet)
        assert outcome.failed
        assert "the database 'closed'" in outcome.why
        assert not can_log_in(login)  # the door is shut all the same
        upstream.ask(sql.SQL("DROP OWNED BY {}").format(name), database="closed")
        await upstream.revoked(ledger)
    finally:
        upstream.ask("DROP DATABASE closed WITH (FORCE)", database="postgres")


async def test_a_prepared_transaction_is_rolled_back(upstream: Upstream) -> None:
    ledger = Ledger()
    login = await upstream.login(ledger)
    gid = 'it\'s "mine"; --' + login.username
    with session_of(login) as session:
        session.execute("BEGIN; CREATE TABLE scratch.prepared (note text)")
        session.execute(sql.SQL("PREPARE TRANSACTION {}").format(gid))
    outcome = await upstream.revoked(ledger)
    assert outcome.observed["prepared_rolled_back"] == 1
    assert upstream.ask("SELECT gid FROM pg_prepared_xacts") == []
    assert upstream.ask("SELECT to_regclass('scratch.prepared')") == [(None,)]


async def test_what_shadows_a_catalogue_is_never_run_by_the_broker(upstream: Upstream) -> None:
    ledger = Ledger()
    login = await upstream.login(ledger)
    upstream.ask("CREATE TABLE IF NOT EXISTS public.caught (who text); GRANT INSERT ON public.caught TO PUBLIC")
    upstream.ask(f"ALTER ROLE {ROOT} SET search_path = scratch, pg_catalog")
    with session_of(login) as session:
        session.execute(
            "CREATE FUNCTION scratch.pg_terminate_backend(int, bigint) RETURNS bool LANGUAGE sql AS"
            " 'INSERT INTO public.caught VALUES (current_user); SELECT true'"
        )
        session.execute("CREATE VIEW scratch.pg_roles AS SELECT 0::oid AS oid, 'nobody'::name AS rolname")
        session.execute("GRANT SELECT ON scratch.pg_roles TO PUBLIC")
        await upstream.revoked(ledger)
    upstream.ask(f"ALTER ROLE {ROOT} RESET search_path")
    assert upstream.ask("SELECT who FROM public.caught") == []
    upstream.ask("DROP TABLE public.caught")


async def test_a_login_that_cannot_be_dropped_is_not_yet_ended_and_later_is(upstream: Upstream) -> None:
    ledger = Ledger()
    login = await upstream.login(ledger)
    name = sql.Identifier(login.username)
    upstream.ask(sql.SQL("ALTER ROLE {} SUPERUSER").format(name))  # a login without that right cannot drop it
    outcome = await upstream.revoke(ledger)
    assert isinstance(outcome, NotYet)
    assert outcome.failed
    assert "SQLSTATE 42501" in outcome.why
    assert login.username not in outcome.why
    upstream.ask(sql.SQL("ALTER ROLE {} NOSUPERUSER").format(name))
    await upstream.revoked(ledger)


async def test_many_at_once_on_one_table(upstream: Upstream) -> None:
    """GRANT and DROP OWNED change one row of a catalogue; PostgreSQL fails the second of two that do it at once."""
    ledgers = [Ledger() for _ in range(8)]
    logins = await asyncio.gather(*(upstream.login(each) for each in ledgers))
    assert all(map(can_log_in, logins))
    await asyncio.gather(*(upstream.revoked(each) for each in ledgers))
    names = [each.username for each in logins]
    assert upstream.ask("SELECT 1 FROM pg_roles WHERE rolname = ANY(%s)", names) == []
