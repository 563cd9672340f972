"""PostgreSQL without Vault, set up as ``deploy/postgresql/setup.sql`` says, and the connector that makes its logins."""

from __future__ import annotations

import dataclasses
import secrets
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from broker.clock import SystemClock
from broker.connectors.postgresql import Postgresql
from broker.connectors.postgresql_session import PostgresqlSettings
from broker.dev.postgres import PostgresFacts
from broker.ports.connectors import Connector
from broker.secret import Secret
from tests.connectors.harness import LIE, MISHAPS, Harness, can_log_in
from tests.connectors.misbehaving import Misbehaving, Mishap
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


# What PostgreSQL's protocol does not say, or says in a session alone.
_IN_A_SESSION = "it happens in a session that is open: test_postgresql.py cuts one at its commit"
_NOT_SPOKEN = {
    Mishap.NOT_FOUND: "its protocol knows no such answer, and nobody stands in front of it who could give one",
    Mishap.BUSY: "it does not say for how long it is busy",
    Mishap.GARBLED: "what is garbled before a session is open is as if it were cut: nothing was asked yet",
    Mishap.LOST: _IN_A_SESSION,
    Mishap.HANG: _IN_A_SESSION,
    Mishap.LATE: _IN_A_SESSION,
}
# PostgreSQL 18, 54.7: ErrorResponse.
_FATAL = b"SFATAL\0VFATAL\0CXX000\0Mno\0\0"
_ERROR = b"E" + (len(_FATAL) + 4).to_bytes(4) + _FATAL


def _misbehaving(settings: PostgresqlSettings) -> Misbehaving:
    """A wrong password; or something in its place that says that it is broken, or nothing."""

    @contextmanager
    def misbehaving(mishap: Mishap) -> Iterator[Connector]:
        if mishap is Mishap.FORBIDDEN:
            yield Postgresql("shop", settings, lambda: Secret("not-it"), SystemClock())
            return
        with _answering(_ERROR if mishap is Mishap.BROKEN else b"") as port:
            yield postgresql_connector(settings, port=port)

    return misbehaving


@contextmanager
def _answering(answer: bytes) -> Iterator[int]:
    """The port of what answers everybody so, and hangs up."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def postgresql_harness(settings: PostgresqlSettings, dead_address: str) -> Harness:
    dead_port = int(dead_address.rpartition(":")[2])
    return Harness(
        clock=SystemClock(),
        make=lambda: postgresql_connector(settings),
        make_unreachable=lambda: postgresql_connector(settings, port=dead_port),
        scope=make_scope(READ),
        works=can_log_in,
        secrets=(PASSWORD.reveal(),),
        misbehaving=_misbehaving(settings),
        cannot={
            LIE: "its proof is read from the catalogue, in the session that dropped the login",
            **{f"{case}[{mishap.name}]": why for case in MISHAPS for mishap, why in _NOT_SPOKEN.items()},
        },
    )
