"""What a credential is issued by and opens: a real OpenBao in front of a real PostgreSQL with the orders database."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg

from broker.dev.files import private_directory, secret_file
from broker.dev.openbao import OpenBaoServer
from broker.dev.openbao_database import DatabaseEngineFacts, configure_database
from broker.dev.orders import create_orders
from broker.dev.postgres import PostgresFacts, PostgresServer
from broker.secret import Secret

# What an agent asks the command line for, and what it does with it.
ASKED = ("--template", "orders-readonly", "--account", "shop", "--environment", "production", "--resource", "orders")
LOGS_IN = "import psycopg; print(*psycopg.connect('').execute('SELECT session_user, count(*) FROM orders').fetchone())"


class Upstreams:
    """Both servers, everything they write in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = private_directory(directory, others_may_pass=True)
        self._postgres = PostgresServer(directory / "postgres")
        self._openbao = OpenBaoServer(directory / "openbao")
        self._engine: DatabaseEngineFacts | None = None

    def start(self) -> None:
        """Returns when logins can be issued."""
        with ThreadPoolExecutor(2) as both:
            postgres, openbao = both.submit(self._postgres.start), both.submit(self._openbao.start)
            facts, bao = postgres.result(), openbao.result()
        target = create_orders(facts, Secret(secret_file(self._directory / "openbao.password")))
        self._engine = configure_database(bao, target, token_file=self._directory / "broker.token")

    def stop(self) -> None:
        """Both, whatever comes of the first."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._postgres.destroy)
            stack.callback(self._openbao.stop)

    @property
    def postgres(self) -> PostgresFacts:
        """Where PostgreSQL is, and its superuser."""
        return self._postgres.facts

    def environment(self) -> dict[str, str]:
        """What ``deploy/connectors.yaml`` refers to as ``env:NAME``. Holds a secret."""
        assert self._engine is not None
        target = self._engine.target
        return {
            "ORDERS_OPENBAO_ADDRESS": self._engine.address,
            "ORDERS_OPENBAO_TOKEN": self._engine.broker_token().reveal(),
            "ORDERS_POSTGRES_HOST": target.host,
            "ORDERS_POSTGRES_PORT": str(target.port),
            "ORDERS_POSTGRES_DATABASE": target.database,
        }

    def logins(self) -> set[str]:
        """The logins that exist in PostgreSQL now and were issued, by whatever name."""
        with psycopg.connect(self.postgres.conninfo()) as admin:
            rows = admin.execute("SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolvaliduntil IS NOT NULL")
            return {name for (name,) in rows.fetchall()}
