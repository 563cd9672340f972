"""Migrations of a ledger wherever it is, for ``broker migrate``."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg

from broker.stores import migrate, postgres_migrate
from broker.stores.ledger_file import ProcessLock, connect_writer, prepare_file
from broker.stores.offline import ServerReference, Where, no_ledger
from broker.stores.postgres_connection import PostgresConnection, ServerAddress, connect
from broker.stores.postgres_database import POSTGRES
from broker.stores.schema import Step
from broker.stores.sqlite_database import unavailable


def pending_steps(where: Where) -> Sequence[Step]:
    """What :func:`carry_out` would do. Raises as it does; nothing is changed."""
    if isinstance(where, Path):
        with _file(where) as connection:
            return migrate.pending(connection)
    with _server(where) as session:
        return postgres_migrate.pending(session)


def carry_out(where: Where, daemon: str = "") -> Sequence[Step]:
    """Bring a ledger to this release's schema; the steps that were missing. ``daemon``: brokerd's role on the server.

    Raises Tampered (SCHEMA_VERSION) for a newer ledger, NotReady (STORE_UNAVAILABLE) where a broker has the file, or
    the server fails; InvalidInput (CONFIG_INVALID) where there is no file.
    """
    if isinstance(where, Path):
        with _file(where) as connection:
            steps = migrate.pending(connection)
            migrate.migrate(connection)
            return steps
    with _server(where) as session:
        return postgres_migrate.migrate(session, daemon)


@contextlib.contextmanager
def _file(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise no_ledger(str(path), "there is no such file")
    prepare_file(path)
    lock = ProcessLock(path)
    try:
        with contextlib.closing(connect_writer(path)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise unavailable(error) from error
    finally:
        lock.release()


@contextlib.contextmanager
def _server(where: ServerAddress | ServerReference) -> Iterator[PostgresConnection]:
    address = where if isinstance(where, ServerAddress) else where.address()
    try:
        with contextlib.closing(connect(address, role="migrate")) as session:
            yield session
    except psycopg.Error as error:
        raise POSTGRES.refused(error, address) from error
