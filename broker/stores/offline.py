"""A ledger as commands read it, beside a running broker: a file, a copy of one, or a PostgreSQL database.

One snapshot from beginning to end, and nothing is changed. On a server that takes the right to make temporary tables
where invariants are checked, and none to write.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import psycopg

from broker.errors import InvalidInput, Reason
from broker.references import resolve
from broker.stores import migrate, postgres_migrate
from broker.stores.ledger_file import strange_log
from broker.stores.postgres_connection import PostgresConnection, ServerAddress, connect
from broker.stores.postgres_database import POSTGRES
from broker.stores.queries import SQL
from broker.stores.schema import Schema


@dataclass(frozen=True, slots=True)
class ServerReference:
    """Where the DSN of a server is: ``file:PATH`` or ``env:NAME``."""

    reference: str

    def address(self) -> ServerAddress:
        """The server. Raises InvalidInput (CONFIG_INVALID)."""
        return ServerAddress(resolve(self.reference))

    def __str__(self) -> str:
        return self.reference


# Where a ledger is: its file, or its server.
Where = Path | ServerAddress | ServerReference


class Offline(Protocol):
    """One ledger, open."""

    shown: str
    sql: Mapping[str, str]
    errors: type[Exception]
    schema: Schema

    def fetch(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[Any]:
        """All rows of a query by name."""
        ...

    def stream(self, query: str) -> Iterator[Any]:
        """The same, few at a time."""
        ...

    def close(self) -> None:
        """Done."""
        ...


def open_offline(where: Where | Offline) -> Offline:
    """The ledger at ``where``. Raises InvalidInput (CONFIG_INVALID) if there is none, NotReady (STORE_UNAVAILABLE)."""
    match where:
        case Path():
            return LedgerFile(where)
        case ServerAddress():
            return LedgerDatabase(where)
        case ServerReference():
            return LedgerDatabase(where.address())
    return where


class LedgerFile:
    """An :class:`Offline`. A copy made while the broker ran needs its -wal file beside it."""

    sql = SQL
    errors: type[Exception] = sqlite3.DatabaseError

    def __init__(self, path: Path) -> None:
        self.shown = str(path)
        if not path.is_file():
            raise no_ledger(self.shown, "there is no such file")
        if (stranger := strange_log(path)) is not None:
            raise no_ledger(self.shown, f"it is a copy, and {stranger.name} beside it is another ledger's")
        # One without is complete in itself, and is then read as it lies there, also from a read-only place.
        alone = not path.with_name(f"{path.name}-wal").exists()
        options = "mode=ro&immutable=1" if alone else "mode=ro"
        try:
            self._connection = sqlite3.connect(f"file:{quote(str(path))}?{options}", uri=True, isolation_level=None)
            self._connection.text_factory = _text
            self._connection.execute("PRAGMA temp_store = FILE")
            self._connection.execute('SELECT version FROM schema_version WHERE "only" = 1')
            self.schema = migrate.schema(self._connection)
        except sqlite3.Error as error:
            raise no_ledger(self.shown, str(error)) from None
        self._connection.execute("BEGIN")

    def fetch(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[Any]:
        """See Offline.fetch."""
        return self._connection.execute(SQL[query], parameters or {}).fetchall()

    def stream(self, query: str) -> Iterator[Any]:
        """See Offline.stream."""
        return iter(self._connection.execute(SQL[query]))

    def close(self) -> None:
        """See Offline.close."""
        self._connection.close()


class LedgerDatabase:
    """An :class:`Offline`."""

    sql = POSTGRES.sql
    errors: type[Exception] = psycopg.DatabaseError

    def __init__(self, address: ServerAddress) -> None:
        self.shown = address.shown
        try:
            self._connection: PostgresConnection = connect(address, role="check")
            self.schema = postgres_migrate.schema(self._connection)
            # Not READ ONLY, which would take no temporary table either; it ends with a rollback.
            self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            # A person reads along.
            self._connection.together("SET LOCAL idle_in_transaction_session_timeout = 0")
        except psycopg.Error as error:
            raise POSTGRES.refused(error, address) from error
        if not self.schema.version:
            self.close()
            raise no_ledger(self.shown, "it has no tables of one")

    def fetch(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[Any]:
        """See Offline.fetch. What fails does not end the snapshot."""
        cursor = self._kept(lambda: self._connection.execute(self.sql[query], parameters or {}))
        return [] if cursor.rowcount < 0 or cursor.description is None else cursor.fetchall()

    def stream(self, query: str) -> Iterator[Any]:
        """See Offline.stream."""
        return self._connection.stream(self.sql[query])

    def close(self) -> None:
        """See Offline.close."""
        with contextlib.suppress(psycopg.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        self._connection.close()

    def _kept(self, act: Callable[[], Any]) -> Any:
        self._connection.execute("SAVEPOINT look")
        try:
            return act()
        except psycopg.Error:
            self._connection.execute("ROLLBACK TO look")
            raise
        finally:
            if not self._connection.lost:
                self._connection.execute("RELEASE look")


class Within(LedgerDatabase):
    """An :class:`Offline` in a transaction that somebody else has begun, and ends."""

    def __init__(self, connection: PostgresConnection) -> None:
        self.shown = "the server"
        self._connection = connection
        self.schema = postgres_migrate.schema(connection)

    def close(self) -> None:
        """Nothing: it is not ours."""


def _text(stored: bytes) -> str:
    """Text of a damaged row need not be UTF-8; what is wrong with it is for the verifier to say."""
    return stored.decode("utf-8", "replace")


def no_ledger(shown: str, why: str) -> InvalidInput:
    """What is told where there is none."""
    return InvalidInput(
        Reason.CONFIG_INVALID,
        f"{shown} cannot be read as a ledger: {why}.",
        hint="Name a broker's ledger file (ledger.sqlite3 in its state directory), a copy, or a reference to a DSN.",
        metadata={"path": shown},
    )
