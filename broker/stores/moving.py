"""A whole ledger from a file to a PostgreSQL server, while no broker runs.

One transaction on the server: what is interrupted leaves nothing there, and is begun again. Before it is committed the
rows are counted, their MACs and the audit chain are checked on the server, with the keys. The file is then renamed, so
that no broker goes on with it by mistake.
"""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.sql import SQL, Identifier

from broker.errors import InvalidInput, Reason, Tampered
from broker.files.durable import sync_directory
from broker.ports.keys import KeyRing
from broker.stores.invariants import LedgerChecks
from broker.stores.ledger_file import ProcessLock
from broker.stores.migrate import schema as schema_of_file
from broker.stores.offline import Within
from broker.stores.postgres_connection import PostgresConnection, ServerAddress, connect
from broker.stores.postgres_database import POSTGRES
from broker.stores.postgres_migrate import check_version
from broker.stores.queries import migrations
from broker.stores.seal import RowSeal
from broker.stores.trail import read_head
from broker.stores.view import View

# Not the ledger's: what each database says of itself.
_OWN = frozenset({"schema_version", "last_batch", "writer_batches"})
_ONE_ROW = frozenset({"audit_export"})
# What is put behind the name of a file that was moved.
_MOVED = ".moved"
# Whose rows have numbers in the order in which they were made.
_ORDERED = frozenset({"tasks", "leases", "lease_origins"})


@dataclass(frozen=True, slots=True)
class Moved:
    """What was moved: rows by table, and where the file is now."""

    rows: dict[str, int]
    kept: Path


def move(source: Path, target: ServerAddress, keys: KeyRing) -> Moved:
    """Move the ledger in ``source`` to ``target``, which ``broker migrate`` has made and nobody has used.

    Raises NotReady (STORE_UNAVAILABLE) where a broker has the file, or the server fails; InvalidInput (CONFIG_INVALID)
    for a target that is not empty, or a source of another schema; Tampered for rows that are not what they were.
    """
    if not source.is_file():
        raise _refused(f"{source} is not there.")
    lock = ProcessLock(source)
    try:
        with contextlib.closing(_open(source)) as ledger, contextlib.closing(_connect(target)) as server:
            rows = _move(ledger, server, target, source, keys)
        return Moved(rows, _put_aside(source))
    except psycopg.Error as error:
        raise POSTGRES.refused(error, target) from error
    finally:
        lock.release()


def _open(source: Path) -> sqlite3.Connection:
    ledger = sqlite3.connect(source, isolation_level=None)
    found, known = schema_of_file(ledger).version, len(migrations())
    if found != known:
        ledger.close()
        raise _refused(f"{source} has schema {found}, and {known} is moved.", "Run broker migrate on it first.")
    return ledger


def _connect(target: ServerAddress) -> PostgresConnection:
    server = connect(target, role="move")
    try:
        check_version(server)
    except BaseException:
        server.close()
        raise
    return server


def _move(
    ledger: sqlite3.Connection, server: PostgresConnection, target: ServerAddress, source: Path, keys: KeyRing
) -> dict[str, int]:
    server.execute("BEGIN")
    # Nobody begins to use it meanwhile, and two moves do not meet.
    server.together("SET LOCAL idle_in_transaction_session_timeout = 0; LOCK TABLE last_batch")
    if server.execute('SELECT number FROM last_batch WHERE "only" = 1').fetchone()[0]:
        raise _not_empty(target, "a broker has written to it")
    rows: dict[str, int] = {}
    tables = _in_order(server)
    # And it was not put aside: an earlier move went as far as its COMMIT.
    if not source.name.endswith(_MOVED) and _is_there(ledger, server):
        rows = {table: _count(ledger, table) for table in tables if _columns(ledger, table)}
        _check(server, source, keys, rows)
        server.execute("COMMIT")
        return rows
    for table in tables:
        if table not in _ONE_ROW and server.execute(_named("SELECT 1 FROM {} LIMIT 1", table)).fetchone():
            raise _not_empty(target, f"{table} has rows")
        rows[table] = _copy(ledger, server, table)
    _check(server, source, keys, rows)
    server.execute("COMMIT")
    return rows


def _is_there(ledger: sqlite3.Connection, server: PostgresConnection) -> bool:
    """Whether the trail there ends as this one does, under one MAC."""
    ends = "SELECT seq, hash, mac, mac_key_id FROM audit_head"
    here, there = ledger.execute(ends).fetchone(), server.execute(ends).fetchone()
    return here is not None and here == there


def _columns(ledger: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in ledger.execute("SELECT * FROM pragma_table_info(?)", (table,))]


def _count(database: sqlite3.Connection | PostgresConnection, table: str) -> int:
    return int(database.execute(_named("SELECT count(*) FROM {}", table)).fetchone()[0])


def _in_order(server: PostgresConnection) -> list[str]:
    """The ledger's tables, each after those that it refers to."""
    found = server.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()").fetchall()
    refers = server.execute(
        "SELECT f.relname, t.relname FROM pg_constraint AS c"
        " JOIN pg_class AS f ON f.oid = c.conrelid JOIN pg_class AS t ON t.oid = c.confrelid WHERE c.contype = 'f'"
    ).fetchall()
    left, order = {name for (name,) in found} - _OWN, list[str]()
    while left:
        free = sorted(name for name in left if not any(of == name and to in left - {name} for of, to in refers))
        order += free
        left -= set(free)
    return order


def _copy(ledger: sqlite3.Connection, server: PostgresConnection, table: str) -> int:
    """All rows of one table, in the order in which they were made where anything goes by that."""
    if not (columns := _columns(ledger, table)):  # PostgreSQL's alone
        return 0
    server.execute(_named("DELETE FROM {}", table))
    query = "SELECT {} FROM {} ORDER BY rowid" if table in _ORDERED else "SELECT {} FROM {}"
    rows = ledger.execute(_named(query, columns, table))
    return server.copy_in(_named("COPY {} ({}) FROM STDIN", table, columns), rows)


def _named(template: str, *names: str | list[str]) -> str:
    """A statement with names quoted into it, for either database."""
    quoted = (Identifier(each) if isinstance(each, str) else SQL(", ").join(map(Identifier, each)) for each in names)
    return SQL(template).format(*quoted).as_string(None)


def _check(server: PostgresConnection, source: Path, keys: KeyRing, rows: dict[str, int]) -> None:
    """As many rows as there were, and with the same things wrong with them: none, if all is well."""
    for table, count in rows.items():
        found = _count(server, table)
        if found != count:
            raise _damaged(f"{table} has {found} rows on the server, and {count} were sent")
    read_head(View(server, POSTGRES, RowSeal(keys)), keys)
    with LedgerChecks(source) as checks:
        before = {str(each) for each in checks.violations(keys)}
    after = {str(each) for each in LedgerChecks(Within(server)).violations(keys)}
    if differing := sorted(before ^ after):
        raise _damaged(f"what is checked there and here differs: {differing[0]}")


def _put_aside(source: Path) -> Path:
    kept = source.with_name(f"{source.name}{_MOVED}")
    source.rename(kept)
    sync_directory(source.parent)
    return kept


def _not_empty(target: ServerAddress, why: str) -> InvalidInput:
    return _refused(f"{target} is not empty: {why}.", "Make another database, and migrate it.")


def _refused(message: str, hint: str = "") -> InvalidInput:
    return InvalidInput(Reason.CONFIG_INVALID, message, hint=hint)


def _damaged(why: str) -> Tampered:
    return Tampered(Reason.ROW_MAC_MISMATCH, f"the ledger was not moved: {why}.", hint="Nothing of it was committed.")
