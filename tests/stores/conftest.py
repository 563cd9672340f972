"""Ledgers on the real PostgreSQL: one database for each pytest process, emptied for each test."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
import pytest

from broker.clock import SystemClock
from broker.dev.postgres import PostgresFacts
from broker.secret import Secret
from broker.stores.postgres import PostgresStore
from broker.stores.postgres_clock import ServerClock
from broker.stores.postgres_connection import ServerAddress, connect
from broker.stores.postgres_migrate import migrate
from tests.stores.make import Keys

_NAME = "ledger"
_DAEMON = "jit_brokerd"


@dataclass(frozen=True)
class LedgerDatabase:
    """A database with the ledger's tables."""

    server: PostgresFacts
    name: str

    @property
    def address(self) -> ServerAddress:
        """As brokerd reaches it: with no more rights than it needs."""
        return ServerAddress(Secret(self.server.conninfo(self.name, user=_DAEMON, password=Secret(_DAEMON))))

    def through(self, port: int) -> ServerAddress:
        """The same by way of what stands between, and listens there."""
        return ServerAddress(Secret(self.address.dsn.reveal().replace(f"port={self.server.port}", f"port={port}")))

    @property
    def owner(self) -> ServerAddress:
        """As ``broker migrate`` does."""
        return ServerAddress(Secret(self.server.conninfo(self.name)))

    async def open(self, writer: str = "writer-1", **options: bool) -> PostgresStore:
        return await PostgresStore.open(self.address, Keys(), writer, ServerClock(SystemClock()), **options)

    async def open_as_owner(self, writer: str = "writer-1") -> PostgresStore:
        return await PostgresStore.open(self.owner, Keys(), writer, ServerClock(SystemClock()))

    def session(self) -> psycopg.Connection[tuple[object, ...]]:
        """For whoever looks behind the broker's back."""
        return psycopg.connect(self.server.conninfo(self.name), autocommit=True)


@pytest.fixture(scope="session")
def migrated(postgres_server: PostgresFacts) -> LedgerDatabase:
    """The one that tests take in turns."""
    with psycopg.connect(postgres_server.conninfo(), autocommit=True) as session:
        session.execute(f"CREATE ROLE {_DAEMON} LOGIN PASSWORD '{_DAEMON}'")
        session.execute(f"CREATE DATABASE {_NAME}")
    database = LedgerDatabase(postgres_server, _NAME)
    connection = connect(database.owner, role="owner")
    migrate(connection, _DAEMON)
    connection.close()
    return database


@pytest.fixture
def ledger_database(migrated: LedgerDatabase) -> LedgerDatabase:
    """As good as new: deleting rows takes a twentieth of what copying a database takes."""
    with migrated.session() as session:
        session.execute("SET session_replication_role = replica")
        names = session.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        emptied = {name for (name,) in names} - {"schema_version", "last_batch", "audit_export"}
        session.execute("; ".join(f"DELETE FROM {name}" for name in sorted(map(str, emptied))))
        session.execute("UPDATE last_batch SET number = 0, writer = ''; UPDATE audit_export SET upto = 0")
    return migrated
