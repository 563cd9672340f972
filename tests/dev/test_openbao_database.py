"""The broker's rights inside a real OpenBao, and what becomes of a login when its attempt is revoked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import hvac
import psycopg
import pytest
from hvac.exceptions import Forbidden, InvalidRequest

from broker.dev.openbao_database import attempt_policy, configure_database
from broker.dev.postgres import PostgresFacts
from broker.errors import InvalidInput, Reason
from broker.secret import Secret
from tests.conftest import ConfiguredOpenBao
from tests.patience import PATIENCE


@dataclass(frozen=True)
class Attempt:
    """One login, made the way the connector makes it: through an attempt's own orphan token."""

    accessor: str
    lease_id: str
    username: str
    conninfo: str


def make_attempt(bao: ConfiguredOpenBao, postgres: PostgresFacts, role: str, name: str = "attempt-1") -> Attempt:
    broker = bao.broker_client()
    auth = broker.auth.token.create(
        role_name=bao.database.token_role,
        policies=[bao.database.attempt_policy(role)],
        ttl="60s",
        explicit_max_ttl="60s",
        display_name=name,
    )["auth"]
    client = hvac.Client(url=bao.facts.address, token=auth["client_token"])
    secret = client.secrets.database.generate_credentials(role, mount_point=bao.database.mount)
    username, password = secret["data"]["username"], Secret(secret["data"]["password"])
    return Attempt(
        auth["accessor"],
        secret["lease_id"],
        username,
        postgres.conninfo("orders", user=username, password=password),
    )


def roles_left(postgres: PostgresFacts, username: str) -> int:
    with psycopg.connect(postgres.conninfo()) as admin:
        row = admin.execute("SELECT count(*) FROM pg_roles WHERE rolname = %s", [username]).fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture
def reader(openbao_server: ConfiguredOpenBao, postgres_server: PostgresFacts) -> Attempt:
    return make_attempt(openbao_server, postgres_server, "orders-readonly")


@pytest.fixture
def writer(openbao_server: ConfiguredOpenBao, postgres_server: PostgresFacts) -> Attempt:
    return make_attempt(openbao_server, postgres_server, "orders-readwrite")


def revoke(bao: ConfiguredOpenBao, attempt: Attempt) -> None:
    """End the attempt as the broker does, then end its lease synchronously: "done" is said by PostgreSQL's answer."""
    bao.broker_client().sys.revoke_lease(attempt.lease_id)
    bao.broker_client().auth.token.revoke_accessor(attempt.accessor)


def test_a_read_only_login_reads_and_cannot_write(reader: Attempt) -> None:
    with psycopg.connect(reader.conninfo) as session:
        assert session.execute("SELECT count(*) FROM orders").fetchone() == (5,)
    for forbidden in (
        "UPDATE orders SET cents = 1",
        "DELETE FROM orders",
        "CREATE TABLE mine (id int)",
        "CREATE ROLE other LOGIN",
        "SET ROLE openbao",
    ):
        with psycopg.connect(reader.conninfo) as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute(forbidden)


def test_the_login_carries_the_attempts_name(reader: Attempt) -> None:
    assert reader.username.startswith("token-attempt-1-")
    assert len(reader.username) == len("token-attempt-1") + 1 + 8


def test_a_long_attempt_name_still_makes_a_unique_identifier(
    openbao_server: ConfiguredOpenBao, postgres_server: PostgresFacts
) -> None:
    made = [make_attempt(openbao_server, postgres_server, "orders-readonly", "a" * 60).username for _ in range(2)]
    # "token-" + 60 letters, cut to 54; a hyphen; 8 random characters: 54 + 1 + 8 = 63.
    assert [len(name) for name in made] == [63, 63]
    assert made[0] != made[1]


def test_revoking_ends_login_open_session_and_owned_objects(
    openbao_server: ConfiguredOpenBao, postgres_server: PostgresFacts, writer: Attempt
) -> None:
    session = psycopg.connect(writer.conninfo, autocommit=True)
    session.execute("CREATE TABLE made_by_agent (id int)")
    session.execute("SELECT lo_create(0)")
    session.execute("CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'")
    revoke(openbao_server, writer)
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(writer.conninfo)
    assert roles_left(postgres_server, writer.username) == 0
    with psycopg.connect(postgres_server.conninfo("orders")) as admin:
        assert admin.execute("SELECT to_regclass('made_by_agent'), to_regproc('f')").fetchone() == (None, None)


def test_a_reconnect_loop_does_not_survive(
    openbao_server: ConfiguredOpenBao, postgres_server: PostgresFacts, writer: Attempt
) -> None:
    ended, connected = threading.Event(), threading.Event()

    def reconnect() -> None:
        while not ended.is_set():
            try:
                session = psycopg.connect(writer.conninfo)
                connected.set()
                session.execute("SELECT pg_sleep(30)")
            except psycopg.OperationalError:
                continue

    agents = [threading.Thread(target=reconnect) for _ in range(3)]
    for agent in agents:
        agent.start()
    try:
        assert connected.wait(PATIENCE)
        revoke(openbao_server, writer)
        with psycopg.connect(postgres_server.conninfo()) as admin:
            sessions = admin.execute("SELECT 1 FROM pg_stat_activity WHERE usename = %s", [writer.username]).fetchall()
    finally:
        ended.set()
        for agent in agents:
            agent.join()
    assert sessions == []
    assert roles_left(postgres_server, writer.username) == 0


def test_no_login_enters_another_database_where_it_could_own_what_drop_owned_does_not_reach(
    postgres_server: PostgresFacts, writer: Attempt
) -> None:
    for other in ("postgres", "template1"):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(writer.conninfo, dbname=other)


@pytest.fixture
def broker(openbao_server: ConfiguredOpenBao) -> Iterator[hvac.Client]:
    client = openbao_server.broker_client()
    yield client
    client.adapter.close()


def test_the_brokers_token_is_periodic_orphan_and_not_root(broker: hvac.Client) -> None:
    token = broker.auth.token.lookup_self()["data"]
    # 24 h = 24 * 3600 s.
    assert (token["policies"], token["orphan"], token["period"]) == (["jit-broker"], True, 24 * 3600)
    assert broker.auth.token.renew_self()["auth"]["renewable"] is True


def test_the_broker_sweeps_renews_and_looks_up_its_own_leases(broker: hvac.Client, reader: Attempt) -> None:
    listed = broker.sys.list_leases("database/creds/orders-readonly")["data"]["keys"]
    assert reader.lease_id.rsplit("/", 1)[1] in listed
    assert broker.sys.renew_lease(reader.lease_id, increment=30)["lease_duration"] == 30
    assert broker.sys.read_lease(reader.lease_id)["data"]["ttl"] <= 30
    assert broker.auth.token.lookup_accessor(reader.accessor)["data"]["accessor"] == reader.accessor


def test_the_broker_may_do_nothing_else(openbao_server: ConfiguredOpenBao, broker: hvac.Client) -> None:
    root = openbao_server.root_client()
    foreign_lease = "auth/token/create/h0123456789"
    before = (root.sys.list_policies()["data"]["keys"], root.secrets.database.list_roles()["data"]["keys"])
    refused = {
        "read a login itself": lambda: broker.secrets.database.generate_credentials("orders-readonly"),
        "change the connection": lambda: broker.write_data("database/config/orders", data={"verify_connection": False}),
        "change a role": lambda: broker.secrets.database.create_role("orders-readonly", "orders", ["SELECT 1"]),
        "write a policy": lambda: broker.sys.create_or_update_policy("jit-attempt-x", 'path "*" {}'),
        "make a plain token": lambda: broker.auth.token.create(policies=["jit-broker"]),
        "make an orphan outside the role": lambda: broker.auth.token.create_orphan(policies=["jit-broker"]),
        "revoke another engine's lease": lambda: broker.sys.revoke_lease(foreign_lease),
        "revoke by prefix": lambda: broker.sys.revoke_prefix("database/creds"),
        "list other leases": lambda: broker.sys.list_leases("auth/token/create"),
        "list accessors": lambda: broker.auth.token.list_accessors(),
    }
    for what, attempt in refused.items():
        with pytest.raises(Forbidden):
            attempt()
            pytest.fail(f"the broker could {what}")
    assert (root.sys.list_policies()["data"]["keys"], root.secrets.database.list_roles()["data"]["keys"]) == before


def test_what_the_broker_may_look_at_shows_no_password(openbao_server: ConfiguredOpenBao, broker: hvac.Client) -> None:
    seen = repr([broker.read(f"database/{each}") for each in ("config/orders", "roles/orders-readonly")])
    assert "username_template" in seen
    assert openbao_server.database.target.password.reveal() not in seen


def test_an_attempts_token_cannot_get_more_than_its_role(
    openbao_server: ConfiguredOpenBao, broker: hvac.Client
) -> None:
    create = broker.auth.token.create
    for policies in (["root"], ["jit-broker"], ["default"]):
        with pytest.raises(InvalidRequest):
            create(role_name=openbao_server.database.token_role, policies=policies)
    made = create(
        role_name=openbao_server.database.token_role,
        policies=["jit-attempt-orders-readonly"],
        ttl="5h",
        explicit_max_ttl="5h",
        renewable=True,
    )["auth"]
    # The token role's ceiling of one hour wins over the five asked.
    assert (made["policies"], made["lease_duration"], made["renewable"], made["orphan"]) == (
        ["jit-attempt-orders-readonly"],
        3600,
        False,
        True,
    )
    client = hvac.Client(url=openbao_server.facts.address, token=made["client_token"])
    with pytest.raises(Forbidden):
        client.secrets.database.generate_credentials("orders-readwrite")
    broker.auth.token.revoke_accessor(made["accessor"])
    with pytest.raises(Forbidden):
        client.secrets.database.generate_credentials("orders-readonly")


def test_configuring_again_keeps_the_brokers_token(openbao_server: ConfiguredOpenBao) -> None:
    database = openbao_server.database
    before = database.broker_token()
    again = configure_database(openbao_server.facts, database.target, token_file=database.broker_token_file)
    assert again == database
    assert again.broker_token() == before


def test_configuring_again_replaces_a_token_that_died(openbao_server: ConfiguredOpenBao) -> None:
    database = openbao_server.database
    before = database.broker_token()
    openbao_server.root_client().auth.token.revoke(before.reveal())
    configure_database(openbao_server.facts, database.target, token_file=database.broker_token_file)
    assert database.broker_token() != before
    assert openbao_server.broker_client().is_authenticated()
    assert database.broker_token_file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["", "Orders", "orders/..", 'x" { capabilities = ["sudo"] }', "orders*", "-orders"])
def test_a_name_that_is_more_than_a_name_is_refused(openbao_server: ConfiguredOpenBao, name: str) -> None:
    root, database = openbao_server.root_client(), openbao_server.database
    before = root.sys.list_policies()["data"]["keys"]
    with pytest.raises(InvalidInput) as refused:
        configure_database(
            openbao_server.facts, database.target, token_file=database.broker_token_file, roles={name: ("SELECT 1",)}
        )
    assert refused.value.reason is Reason.CONFIG_INVALID
    assert root.sys.list_policies()["data"]["keys"] == before


def test_the_attempt_policy_reads_as_text() -> None:
    assert 'path "database/creds/orders-readonly" {' in attempt_policy("database", "orders-readonly")
