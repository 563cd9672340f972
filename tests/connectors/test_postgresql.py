"""PostgreSQL without Vault: what is refused before and by the server, what an examination finds, what it hands over."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from broker.client.forms import SERVICE, pgpass, service_file
from broker.clock import SystemClock
from broker.connectors import postgresql_sql as statements
from broker.connectors.postgresql import Postgresql
from broker.connectors.postgresql_session import PostgresqlSettings
from broker.dev.postgres import PostgresFacts, PostgresServer
from broker.errors import InvalidInput, Reason, UpstreamFailed
from broker.lease.credential import DatabaseLogin
from broker.ports.connectors import Issued, NotYet, Refused, Revoked, Severity, Use
from broker.scope.canonical import JsonValue
from broker.secret import Secret
from tests.connectors.harness_postgresql import DATABASE, PASSWORD, READ, ROOT, WRITE, create_shop, postgresql_connector
from tests.connectors.support import HOLDER, NOW, Ledger, assert_tells_no_secret, make_scope, new_attempt
from tests.patience import PATIENCE

CLOCK = SystemClock()
TTL = timedelta(minutes=5)
Grant = Mapping[str, JsonValue]


async def issue(connector: Postgresql, ledger: Ledger, grant: Grant = READ) -> Issued:
    expires_at, scope = CLOCK.now() + TTL, make_scope(grant)
    ledger.handle = connector.prepare(scope, new_attempt(), HOLDER, expires_at)
    return await connector.issue(ledger.handle, scope, expires_at, ledger.checkpoint)


def of_tables(*names: JsonValue, **changes: JsonValue) -> Grant:
    return {"grants": [{"in_schema": "public", "tables": list(names), "privileges": ["select"], **changes}]}


# --------------------------------------------------------------------------- before anything is asked

HOSTILE = 'x"; DROP TABLE orders; --'


def test_names_are_quoted_whatever_they_are() -> None:
    want = statements.wanted(make_scope(of_tables(HOSTILE, in_schema="s'c\"h", privileges=["select"])))
    text = statements.creation("l'o\"g", "v'er", NOW, TTL, "n'ote", want, version=180000).as_string()
    assert 'GRANT SELECT ON TABLE "s\'c""h"."x""; DROP TABLE orders; --" TO "l\'o""g"' in text
    assert "PASSWORD 'v''er'" in text
    assert "IS 'n''ote'" in text
    assert '; DROP TABLE orders; --"' in text  # inside the identifier, and nowhere else
    assert text.count("DROP") == 1


@pytest.mark.parametrize(
    "grant",
    [
        {},
        {"grants": []},
        {"grants": ["select"]},
        {"grants": [{"tables": ["orders"], "privileges": ["select"]}]},  # no schema
        of_tables("orders", privileges=["trigger"]),
        of_tables("orders", privileges=["select; DROP TABLE orders"]),
        of_tables("orders", privileges=[]),
        of_tables(""),
        of_tables("a\0b"),
        of_tables("x" * 64),
        of_tables("é" * 32),  # 64 bytes
        of_tables({"parameter": "undeclared"}),
        {"grants": [{"roles": []}]},
        {**of_tables("orders"), "connections": 0},
        {**of_tables("orders"), "connections": "5; DROP TABLE orders"},
    ],
)
def test_a_grant_of_another_form_is_refused_before_anything_is_asked(shop: PostgresqlSettings, grant: Grant) -> None:
    with pytest.raises(InvalidInput) as caught:
        postgresql_connector(shop).prepare(make_scope(grant), new_attempt(), HOLDER, NOW)
    assert caught.value.reason is Reason.CONFIG_INVALID


@pytest.mark.parametrize(("attempt", "fits"), [("a" * 58, True), ("a" * 59, False), ("a b", False), ("", False)])
def test_a_login_that_postgresql_would_cut_is_refused(shop: PostgresqlSettings, attempt: str, fits: bool) -> None:
    connector = postgresql_connector(shop)  # its prefix has 5 characters: 5 + 58 = 63
    if fits:
        assert connector.prepare(make_scope(READ), attempt, HOLDER, NOW)["login"] == f"shop-{attempt}"
        return
    with pytest.raises(InvalidInput) as caught:
        connector.prepare(make_scope(READ), attempt, HOLDER, NOW)
    assert caught.value.reason is Reason.SCOPE_TOO_LARGE


@pytest.mark.parametrize("host", ["db.example.org", "10.0.0.1", "::2", "localhost.example.org"])
def test_a_password_never_crosses_a_network_in_clear(shop: PostgresqlSettings, host: str) -> None:
    with pytest.raises(InvalidInput, match="tls may be off only for loopback"):
        postgresql_connector(shop, host=host)


# --------------------------------------------------------------------------- TLS


@pytest.fixture
def tls_front(shop: PostgresqlSettings, tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """Ends TLS in front of the server, which was built without: SSLRequest, S, handshake. Yields port and CA."""
    from tests.forge import authority

    ca = authority("example.org", at=CLOCK.now())
    leaf = ca.svid("spiffe://example.org/db", dns=("localhost",))
    for name, data in (("ca", ca.pem), ("cert", leaf.pem), ("key", leaf.key_pem)):
        (tmp_path / name).write_bytes(data)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except (OSError, ValueError):
            pass
        finally:
            for each in (source, sink):
                each.close()

    def serve() -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            try:
                raw.recv(8)
                raw.sendall(b"S")
                inner = context.wrap_socket(raw, server_side=True)
            except OSError:
                raw.close()
                continue
            behind = socket.create_connection((shop.host, shop.port))
            for ends in ((inner, behind), (behind, inner)):
                threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1], tmp_path / "ca"
    listener.close()


async def test_the_systems_roots_are_found_without_a_ca_file(
    shop: PostgresqlSettings, tls_front: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, ca = tls_front
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    connector = postgresql_connector(shop, host="localhost", port=port, tls=True)
    assert [each for each in await connector.examine() if each.severity is Severity.ERROR] == []
    await connector.close()


async def test_the_server_is_verified_by_name_and_authority(
    shop: PostgresqlSettings, tls_front: tuple[int, Path]
) -> None:
    port, ca = tls_front
    right = {"host": "localhost", "port": port, "tls": True, "ca_file": str(ca)}
    good = postgresql_connector(shop, **right)
    assert [each for each in await good.examine() if each.severity is Severity.ERROR] == []
    for wrong in ({"host": "127.0.0.1"}, {"ca_file": None}, {"port": shop.port}):  # name, authority, no TLS at all
        connector = postgresql_connector(shop, **{**right, **wrong})
        (doubt,) = await connector.examine()
        assert doubt.severity is Severity.ERROR
        assert "cannot be connected to" in doubt.what
        await connector.close()
    await good.close()


# --------------------------------------------------------------------------- what the server refuses


@pytest.mark.parametrize(
    ("grant", "sqlstate"),
    [
        (of_tables("absent"), "42P01"),
        (of_tables("orders", in_schema="absent"), "3F000"),
        (of_tables(HOSTILE), "42P01"),
        (of_tables("secret_plans"), "42501"),  # the broker's own login has nothing there
        (of_tables("half"), "01007"),  # has SELECT, and no grant option: a warning, and nothing granted
        ({"grants": [{"roles": ["absent"]}]}, "42704"),
        ({"grants": [{"roles": ["postgres"]}]}, "42501"),
        ({"grants": [{"roles": ["pg_read_all_data"]}]}, "42501"),
    ],
)
async def test_what_the_broker_may_not_grant_makes_nothing(
    shop: PostgresqlSettings, postgres_server: PostgresFacts, grant: Grant, sqlstate: str
) -> None:
    with psycopg.connect(postgres_server.conninfo(DATABASE), autocommit=True) as admin:
        admin.execute("CREATE TABLE IF NOT EXISTS public.secret_plans (id int)")
        admin.execute("CREATE TABLE IF NOT EXISTS public.half (id int); GRANT SELECT ON public.half TO jit_broker")
    connector, ledger = postgresql_connector(shop), Ledger()
    with pytest.raises(UpstreamFailed) as caught:
        await issue(connector, ledger, grant)
    assert (caught.value.reason, caught.value.outcome_known) == (Reason.UPSTREAM_REFUSED, True)
    assert caught.value.metadata["sqlstate"] == sqlstate
    assert_tells_no_secret(caught.value, PASSWORD.reveal())
    listed = await connector.inventory()
    assert ledger.handle["login"] not in [each.name for each in listed]
    await connector.close()


async def test_a_refused_password_is_the_brokers_own_trouble(shop: PostgresqlSettings) -> None:
    connector = Postgresql("shop", shop, lambda: Secret("wrong-password"), CLOCK)
    ledger = Ledger()
    with pytest.raises(UpstreamFailed) as caught:
        await issue(connector, ledger)
    assert (caught.value.reason, caught.value.outcome_known) == (Reason.UPSTREAM_ROOT_REFUSED, True)
    assert_tells_no_secret(caught.value, "wrong-password")
    assert ledger.handles == []
    assert isinstance(await connector.revoke(ledger.handle, ledger.context()), Refused)
    (doubt,) = await connector.examine()
    assert "refuses the broker" in doubt.what
    await connector.close()


async def test_a_password_that_cannot_be_read_is_told_without_it(shop: PostgresqlSettings) -> None:
    def unreadable() -> Secret:
        raise InvalidInput(Reason.CONFIG_INVALID, "file:/x is empty or not set.")

    connector = Postgresql("shop", shop, unreadable, CLOCK)
    with pytest.raises(UpstreamFailed) as caught:
        await issue(connector, Ledger())
    assert caught.value.reason is Reason.UPSTREAM_ROOT_REFUSED
    await connector.close()


async def test_a_commit_that_comes_too_late_makes_nothing(
    shop: PostgresqlSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the server got to it after the call was given up: by its own clock, so no late create can land."""
    in_time = statements.commit_before
    monkeypatch.setattr(statements, "commit_before", lambda moment: in_time(moment - timedelta(days=1)))
    connector, ledger = postgresql_connector(shop), Ledger()
    with pytest.raises(UpstreamFailed) as caught:
        await issue(connector, ledger)
    assert caught.value.outcome_known
    assert ledger.handle["login"] not in [each.name for each in await connector.inventory()]
    await connector.close()


async def test_a_commit_without_an_answer_is_unknown_and_is_ended_by_name(
    shop: PostgresqlSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server commits, and the session is cut before it can say so."""

    def committed_and_cut(moment: datetime) -> sql.Composed:
        return sql.SQL("COMMIT; SELECT pg_terminate_backend(pg_backend_pid())").format()

    monkeypatch.setattr(statements, "commit_before", committed_and_cut)
    connector, ledger = postgresql_connector(shop), Ledger()
    with pytest.raises(UpstreamFailed) as caught:
        await issue(connector, ledger)
    # 57P01 comes with a code, and yet the commit before it stands.
    assert not caught.value.outcome_known
    assert ledger.handle["login"] in [each.name for each in await connector.inventory()]
    outcome = await connector.revoke(ledger.handle, ledger.context(outcome_known=False))
    assert isinstance(outcome, Revoked)
    await connector.close()


@pytest.mark.parametrize(
    "note",
    [
        'jit-broker {"attempt": "a", "holder": "h", "made": "2031-05-01 12:00"}',  # of no time zone
        "jit-broker " + "[" * 100_000,
        "jit-broker {}",
        "jit-broker",
    ],
    ids=range(4),
)
async def test_a_note_that_somebody_wrote_over_hides_no_login(
    shop: PostgresqlSettings, postgres_server: PostgresFacts, note: str
) -> None:
    connector, ledger = postgresql_connector(shop), Ledger()
    await issue(connector, ledger)
    login = str(ledger.handle["login"])
    with psycopg.connect(postgres_server.conninfo(DATABASE), autocommit=True) as admin:
        admin.execute(sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(login), sql.Literal(note)))
    (found,) = [each for each in await connector.inventory() if each.name == login]
    assert (found.attempt_id, found.created_at) == (None, None)
    assert isinstance(await connector.revoke(ledger.handle, ledger.context()), Revoked)
    await connector.close()


# --------------------------------------------------------------------------- using, examining, handing over


async def test_using_it_tells_whether_it_works(shop: PostgresqlSettings) -> None:
    connector, ledger = postgresql_connector(shop), Ledger()
    issued = await issue(connector, ledger)
    scope = make_scope(READ)
    assert await connector.use(issued.credential, scope) is Use.WORKS
    assert isinstance(await connector.revoke(ledger.handle, ledger.context()), Revoked)
    assert await connector.use(issued.credential, scope) is Use.REFUSED
    await connector.close()


async def test_what_its_set_up_leaves_is_only_what_the_test_server_itself_has(shop: PostgresqlSettings) -> None:
    connector = postgresql_connector(shop)
    found = await connector.examine()
    assert [each for each in found if each.severity is Severity.ERROR] == []
    assert any("max_prepared_transactions" in each.what for each in found)
    await connector.close()


@pytest.mark.parametrize(
    ("change", "back", "told"),
    [
        ("ALTER ROLE jit_broker SUPERUSER", "ALTER ROLE jit_broker NOSUPERUSER", "is a superuser"),
        ("ALTER ROLE jit_broker NOCREATEROLE", "ALTER ROLE jit_broker CREATEROLE", "lacks CREATEROLE"),
        (
            "ALTER ROLE jit_broker BYPASSRLS CREATEDB",
            "ALTER ROLE jit_broker NOBYPASSRLS NOCREATEDB",
            "BYPASSRLS, CREATEDB",
        ),
        (
            "GRANT pg_read_all_data TO jit_broker",
            "REVOKE pg_read_all_data FROM jit_broker",
            "member of pg_read_all_data",
        ),
        ("GRANT CREATE ON SCHEMA public TO PUBLIC", "REVOKE CREATE ON SCHEMA public FROM PUBLIC", "the schema public"),
        ("GRANT DELETE ON orders TO PUBLIC", "REVOKE DELETE ON orders FROM PUBLIC", "may use public.orders"),
        ("GRANT CONNECT ON DATABASE postgres TO PUBLIC", "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC", "postgres"),
    ],
)
async def test_an_examination_finds_what_is_wider_than_declared(
    shop: PostgresqlSettings, postgres_server: PostgresFacts, change: str, back: str, told: str
) -> None:
    connector = postgresql_connector(shop)
    before = {each.what for each in await connector.examine()}
    with psycopg.connect(postgres_server.conninfo(DATABASE), autocommit=True) as admin:
        admin.execute(change.encode())
        try:
            new = [each for each in await connector.examine() if each.what not in before]
        finally:
            admin.execute(back.encode())
    assert len(new) == 1, new
    assert told in new[0].what
    assert {each.what for each in await connector.examine()} == before
    await connector.close()


async def test_libpq_logs_in_by_the_files_that_exec_writes(
    shop: PostgresqlSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector, ledger = postgresql_connector(shop), Ledger()
    login = (await issue(connector, ledger, WRITE)).credential
    assert isinstance(login, DatabaseLogin)
    for name, text in (("PGPASSFILE", pgpass(login)), ("PGSERVICEFILE", service_file(login))):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PGSERVICE", SERVICE)
    with psycopg.connect("", connect_timeout=int(PATIENCE)) as session:
        assert session.execute("SELECT session_user, count(*) FROM orders GROUP BY 1").fetchone() == (login.username, 1)
    assert isinstance(await connector.revoke(ledger.handle, ledger.context()), Revoked)
    await connector.close()


async def test_a_server_that_is_away_is_not_yet_and_nothing_else(shop: PostgresqlSettings) -> None:
    connector = postgresql_connector(shop, port=1)
    outcome = await connector.revoke({"attempt": "a", "login": "shop-a", "holder": HOLDER}, Ledger().context())
    assert isinstance(outcome, NotYet)
    assert outcome.failed
    assert ROOT not in outcome.why
    await connector.close()


# --------------------------------------------------------------------------- at another server


async def test_its_end_is_said_only_at_the_server_that_made_it(shop: PostgresqlSettings, tmp_path: Path) -> None:
    """A connector that is pointed elsewhere, under its name: there is no such role, and it works where it was made."""
    here, ledger = postgresql_connector(shop), Ledger()
    issued = await issue(here, ledger)
    assert isinstance(issued.credential, DatabaseLogin)
    (found,) = [each for each in await here.inventory() if each.name == ledger.handle["login"]]
    with PostgresServer(tmp_path / "another") as another:
        there = postgresql_connector(create_shop(another.facts))
        for handle in (ledger.handle, found.handle):
            told = await there.revoke(handle, ledger.context())
            assert isinstance(told, NotYet) and told.alone
            assert str(handle["system"]) in told.why and "Point the connector there again" in told.why
        # A dump brought it along: it is ended there, too, and that proves nothing either.
        with psycopg.connect(another.facts.conninfo(DATABASE), autocommit=True) as admin:
            role = sql.Identifier(str(ledger.handle["login"]))
            admin.execute(sql.SQL("CREATE ROLE {} LOGIN; GRANT {} TO jit_broker WITH ADMIN OPTION").format(role, role))
            assert isinstance(await there.revoke(ledger.handle, ledger.context()), NotYet)
            query = "SELECT count(*) FROM pg_roles WHERE rolname = %s"
            assert admin.execute(query, [ledger.handle["login"]]).fetchone() == (0,)
        await there.close()
    assert await here.use(issued.credential, make_scope(READ)) is Use.WORKS
    assert isinstance(await here.revoke(ledger.handle, ledger.context()), Revoked)
    assert await here.use(issued.credential, make_scope(READ)) is Use.REFUSED
    await here.close()


async def test_where_nobody_may_ask_which_server_it_is_absence_is_the_proof(
    shop: PostgresqlSettings, postgres_server: PostgresFacts
) -> None:
    connector, ledger = postgresql_connector(shop), Ledger()
    with psycopg.connect(postgres_server.conninfo(DATABASE), autocommit=True) as admin:
        admin.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
        try:
            await issue(connector, ledger)
            assert "system" not in ledger.handle
            assert isinstance(await connector.revoke(ledger.handle, ledger.context()), Revoked)
            known = {**ledger.handle, "system": "4711"}
            told = await connector.revoke(known, ledger.context())
            assert isinstance(told, NotYet) and "does not tell which it is" in told.why
        finally:
            admin.execute("GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC")
    await connector.close()
