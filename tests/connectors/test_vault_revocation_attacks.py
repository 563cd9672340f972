"""What an agent does to its own login to outlive it, against the recipe's revocation statements: all of it is real."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from hvac.exceptions import InternalServerError

from broker.dev.openbao_database import DEMO_ROLES, _role
from broker.dev.postgres import PostgresFacts
from broker.lease.credential import DatabaseLogin
from broker.ports.connectors import NotYet
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness import can_log_in, conninfo, vault_connector
from tests.connectors.support import Ledger
from tests.connectors.upstream_vault import WRITE, Upstream
from tests.patience import PATIENCE, becomes_true

Session = psycopg.Connection[tuple[object, ...]]
WAITING = "SELECT 1 FROM pg_locks WHERE relation = 'pg_db_role_setting'::regclass AND NOT granted"
SHUT = "SELECT 1 FROM pg_roles WHERE rolname = %s AND NOT rolcanlogin"


@pytest.fixture
async def upstream(openbao_server: ConfiguredOpenBao, postgres_server: PostgresFacts) -> AsyncIterator[Upstream]:
    connector = vault_connector(openbao_server)
    yield Upstream(connector, postgres_server, openbao_server.database.target.database)
    await connector.close()


def session_of(login: DatabaseLogin, database: str | None = None) -> Session:
    return psycopg.connect(conninfo(login), dbname=database or login.database, autocommit=True)


@contextmanager
def agents(count: int, act: Callable[[threading.Event, threading.Event], None]) -> Iterator[None]:
    """``count`` of them do ``act(stop, begun)`` again and again until the end; entered when one has begun."""
    stop, begun = threading.Event(), threading.Event()

    def again() -> None:
        while not stop.is_set():
            try:
                act(stop, begun)
            except psycopg.Error:
                continue

    threads = [threading.Thread(target=again) for _ in range(count)]
    for each in threads:
        each.start()
    try:
        assert begun.wait(PATIENCE)
        yield
    finally:
        stop.set()
        for each in threads:
            each.join()


@pytest.mark.parametrize(
    ("holding", "count"),
    [
        ("ALTER ROLE {} PASSWORD 'mine'", 1),
        ("ALTER ROLE {} PASSWORD 'mine'", 8),
        ("ALTER ROLE {} SET work_mem = '1MB'", 1),
    ],
)
async def test_a_lock_on_its_own_role_does_not_keep_the_door_open(upstream: Upstream, holding: str, count: int) -> None:
    ledger, bystander = Ledger(), Ledger()
    login, other = await upstream.login(ledger, WRITE), await upstream.login(bystander)

    def hold(stop: threading.Event, begun: threading.Event) -> None:
        with session_of(login) as session, session.transaction():
            session.execute(holding.format(f'"{login.username}"').encode())
            begun.set()
            session.execute("SELECT pg_sleep(30)")

    with session_of(other) as theirs:
        with agents(count, hold):
            await asyncio.wait_for(upstream.revoked(ledger), PATIENCE)
        assert theirs.execute("SELECT 1").fetchone() == (1,)  # nobody else's session was ended
    assert upstream.sessions_of(login) == []
    await upstream.revoked(bystander)


async def test_nothing_of_the_agent_is_run_by_the_engine(upstream: Upstream) -> None:
    """A function that fits better than the catalogue's, where the engine's login looks (CVE-2018-1058)."""
    ledger = Ledger()
    login = await upstream.login(ledger, WRITE)
    upstream.ask("CREATE TABLE public.caught (who text); GRANT INSERT ON public.caught TO PUBLIC")
    try:
        with session_of(login) as session:
            for name, arguments in (
                ("pg_sleep", "numeric"),
                ("pg_terminate_backend", "int"),
                ("pg_terminate_backend", "int, int"),
            ):
                session.execute(
                    f"CREATE FUNCTION public.{name}({arguments}) RETURNS bool LANGUAGE sql AS"
                    " 'INSERT INTO public.caught VALUES (current_user); SELECT true'".encode()
                )
            session.execute("GRANT ALL ON ALL FUNCTIONS IN SCHEMA public TO PUBLIC")
        await upstream.revoked(ledger)
        assert upstream.ask("SELECT who FROM public.caught") == []
    finally:
        upstream.ask("DROP TABLE public.caught")


async def test_a_login_between_the_door_and_the_list_of_sessions_is_waited_for(upstream: Upstream) -> None:
    """It has passed the door and is held up before it has a name in pg_stat_activity, longer than any pause lasts."""
    ledger = Ledger()
    login = await upstream.login(ledger)
    with psycopg.connect(upstream.postgres.conninfo(upstream.database)) as superuser:
        # Read by every login after the server has looked whether it may log in.
        superuser.execute("LOCK TABLE pg_db_role_setting IN ACCESS EXCLUSIVE MODE")
        entering = asyncio.create_task(asyncio.to_thread(session_of, login))
        await becomes_true(lambda: superuser.execute(WAITING).fetchall())
        revoking = asyncio.create_task(upstream.revoked(ledger))
        await becomes_true(lambda: superuser.execute(SHUT, [login.username]).fetchall())
        superuser.execute("SELECT pg_sleep(0.3)")
        superuser.rollback()
        await revoking
    assert upstream.ask("SELECT pid FROM pg_stat_activity a WHERE usesysid IS NOT NULL AND usename IS NULL") == []
    with pytest.raises(psycopg.OperationalError), await entering as session:
        session.execute("SELECT 1")


@pytest.mark.parametrize("doing", ["ALTER ROLE {} PASSWORD 'mine'", "CREATE TABLE public.prepared (note text)"])
async def test_a_prepared_transaction_stops_neither_the_engine_nor_what_ends_its_sessions(
    upstream: Upstream, doing: str
) -> None:
    ledger, others = Ledger(), Ledger()
    login = await upstream.login(ledger, WRITE)
    with session_of(login) as session, session_of(login) as open_session:
        session.execute("BEGIN")
        session.execute(doing.format(f'"{login.username}"').encode())
        session.execute("PREPARE TRANSACTION 'kept'")
        outcome = await asyncio.wait_for(upstream.revoke(ledger), PATIENCE)
        assert isinstance(outcome, NotYet)
        assert outcome.failed
        assert "SQLSTATE 55006" in outcome.why  # object_in_use
        with pytest.raises(psycopg.OperationalError):
            open_session.execute("SELECT 1")
    assert can_log_in(await upstream.login(others))  # the engine goes on
    await upstream.revoked(others)
    upstream.ask("ROLLBACK PREPARED 'kept'")  # nobody but its owner and a superuser may
    await upstream.revoked(ledger)


async def test_what_it_made_goes_with_it(upstream: Upstream) -> None:
    ledger, accomplice = Ledger(), Ledger()
    login, other = await upstream.login(ledger, WRITE), await upstream.login(accomplice)
    with session_of(login) as session:
        session.execute("CREATE TABLE public.hideout (note text)")
        session.execute("CREATE FUNCTION public.back_door() RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 1'")
        session.execute("GRANT ALL ON public.hideout TO PUBLIC")
        session.execute("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC")
        session.execute("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO PUBLIC")
        large = session.execute("SELECT lo_from_bytea(0, 'kept')").fetchone()
        assert large is not None
        for statement in (
            f'GRANT "{login.username}" TO "{other.username}"',
            f'REASSIGN OWNED BY "{login.username}" TO "{other.username}"',
            f'ALTER TABLE public.hideout OWNER TO "{other.username}"',
            f"ALTER ROLE \"{login.username}\" VALID UNTIL 'infinity'",
            f'ALTER ROLE "{login.username}" CONNECTION LIMIT -1',
            "SET ROLE openbao",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(statement.encode())
        await upstream.revoked(ledger)
    assert upstream.ask("SELECT to_regclass('public.hideout'), to_regproc('public.back_door')") == [(None, None)]
    assert upstream.ask("SELECT 1 FROM pg_largeobject_metadata WHERE oid = %s", large[0]) == []
    assert upstream.ask("SELECT 1 FROM pg_default_acl") == []
    await upstream.revoked(accomplice)


async def test_what_it_made_in_another_database_keeps_the_role_and_lets_nobody_in(upstream: Upstream) -> None:
    upstream.ask("CREATE DATABASE elsewhere", database="postgres")
    try:
        ledger = Ledger()
        login = await upstream.login(ledger)
        with session_of(login, "elsewhere") as session:
            session.execute("SELECT lo_from_bytea(0, 'kept')")
            outcome = await upstream.revoke(ledger)
            assert isinstance(outcome, NotYet)
            assert "SQLSTATE 2BP01" in outcome.why  # dependent_objects_still_exist
            with pytest.raises(psycopg.OperationalError):
                session.execute("SELECT 1")
        assert not can_log_in(login)
        upstream.ask(f'DROP OWNED BY "{login.username}"', database="elsewhere")
        await upstream.revoked(ledger)
    finally:
        upstream.ask("DROP DATABASE elsewhere WITH (FORCE)", database="postgres")


async def test_an_accomplice_that_locks_what_it_made_stops_neither_the_door_nor_the_engine(upstream: Upstream) -> None:
    ledger, accomplice, others = Ledger(), Ledger(), Ledger()
    login, other = await upstream.login(ledger, WRITE), await upstream.login(accomplice)
    with session_of(login) as session:
        session.execute("CREATE TABLE public.hideout (note text)")
        session.execute(f'GRANT ALL ON public.hideout TO "{other.username}"'.encode())
    with session_of(other) as theirs:
        theirs.execute("BEGIN; LOCK TABLE public.hideout IN ACCESS SHARE MODE")
        outcome = await asyncio.wait_for(upstream.revoke(ledger), PATIENCE)
        assert isinstance(outcome, NotYet)
        assert "SQLSTATE 55P03" in outcome.why  # lock_not_available
        assert not can_log_in(login)
        assert can_log_in(await upstream.login(others))
    await upstream.revoked(ledger)
    await upstream.revoked(accomplice)
    await upstream.revoked(others)


async def test_a_login_cannot_take_every_connection_of_the_server(upstream: Upstream) -> None:
    ledger = Ledger()
    login = await upstream.login(ledger)
    held: list[Session] = []
    try:
        with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
            while len(held) < 50:
                held.append(session_of(login))
        await upstream.revoked(ledger)
    finally:
        for each in held:
            each.close()


async def test_a_login_that_is_gone_already_is_revoked(upstream: Upstream) -> None:
    ledger = Ledger()
    login = await upstream.login(ledger)
    upstream.ask(f'DROP OWNED BY "{login.username}"; DROP ROLE "{login.username}"')
    await upstream.revoked(ledger)


def test_where_transactions_can_be_prepared_the_guard_makes_no_login(openbao_server: ConfiguredOpenBao) -> None:
    """The guard that the connector's page gives; the server of the tests can prepare."""
    page = (Path(__file__).parents[2] / "docs" / "connectors" / "vault-database.md").read_text()
    quoted = re.search(r"<!-- no-prepared-transactions -->\n +```sql\n(.*?)\n +```", page, re.DOTALL)
    assert quoted
    root, target = openbao_server.root_client(), openbao_server.database.target
    for guard, makes in ((quoted[1].replace("= 0", "= 8"), True), (quoted[1], False)):
        role = _role(target, (guard, *DEMO_ROLES["orders-readonly"]))
        root.write_data("database/roles/orders-readonly", data=role)
        try:
            made = root.read("database/creds/orders-readonly")
            assert makes and made is not None
            root.sys.revoke_lease(made["lease_id"])
        except InternalServerError as refused:
            assert not makes and "22012" in str(refused)  # division_by_zero
        finally:
            root.write_data("database/roles/orders-readonly", data=_role(target, DEMO_ROLES["orders-readonly"]))
