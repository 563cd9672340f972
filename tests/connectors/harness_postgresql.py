"""PostgreSQL without Vault, set up as ``deploy/postgresql/setup.sql`` says, and the connector that makes its logins."""

from __future__ import annotations

import dataclasses
import secrets
from pathlib import Path

import psycopg
from psycopg import sql

from broker.clock import SystemClock
from broker.connectors.postgresql import Postgresql
from broker.connectors.postgresql_session import PostgresqlSettings
from broker.dev.postgres import PostgresFacts
from broker.secret import Secret
from tests.connectors.harness import LIE, Harness, can_log_in
from tests.connectors.support import make_scope
from tests.patience import PATIENCE

DATABASE, ROOT = "shop", "jit_broker"
SETUP = Path(__file__).parents[2] / "deploy" / "postgresql" / "setup.sql"
PASSWORD = Secret(secrets.token_urlsafe(16))

READ = {"grants": [{"in_schema": "public", "tables": ["orders"], "privileges": ["select"]}], "connections": 5}
READ_BY_ROLE = {"grants": [{"roles": ["orders_reader"]}], "connections": 5}
WRITE = {
    "grants": [
        {"in_schema": "public", "tables": ["orders"], "privileges": ["select", "insert", "update", "delete"]},
        {"schemas": ["scratch"], "privileges": ["usage", "create"]},
    ],
    "connections": 20,
}


def create_shop(server: PostgresFacts) -> PostgresqlSettings:
    """The database and the broker's own login in it, as an operator sets them up."""
    with psycopg.connect(server.conninfo(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    with psycopg.connect(server.conninfo(DATABASE), autocommit=True) as admin:
        admin.execute(
            "CREATE TABLE public.orders (id int PRIMARY KEY, item text); INSERT INTO orders VALUES (1, 'lamp')"
        )
        admin.execute(SETUP.read_bytes())
        admin.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(ROOT), sql.Literal(PASSWORD.reveal())))
    return PostgresqlSettings(
        server.host, server.port, DATABASE, ROOT, tls=False, timeout=PATIENCE, threads=4, login_prefix="shop-"
    )


def postgresql_connector(settings: PostgresqlSettings, **changes: object) -> Postgresql:
    """A connector with these settings, some of them changed."""
    return Postgresql(
        "shop",
        dataclasses.replace(settings, **changes),
        lambda: PASSWORD,
        SystemClock(),  # type: ignore[arg-type]
    )


def postgresql_harness(settings: PostgresqlSettings, dead_address: str) -> Harness:
    dead_port = int(dead_address.rpartition(":")[2])
    return Harness(
        clock=SystemClock(),
        make=lambda: postgresql_connector(settings),
        make_unreachable=lambda: postgresql_connector(settings, port=dead_port),
        scope=make_scope(READ),
        works=can_log_in,
        secrets=(PASSWORD.reveal(),),
        cannot={
            LIE: "its proof is read from the catalogue, in the session that dropped the login",
        },
    )
