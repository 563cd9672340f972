"""Brings a ledger in a file to the schema of this release, or refuses it.

Each step is one transaction together with its version number. A *newer* schema is refused unless it says that this
release can work with it (:mod:`broker.stores.schema`): an older broker would not know which rules the newer one relies
on (faults.md F50: no downgrade).
"""

from __future__ import annotations

import contextlib
import sqlite3
from functools import cache

from broker.stores.queries import migrations
from broker.stores.schema import Schema, Step, after, missing, schema_of

_VERSION_TABLE = """
CREATE TABLE IF NOT EXISTS schema_version (
    "only"        INTEGER PRIMARY KEY CHECK ("only" = 1),
    version       INTEGER NOT NULL CHECK (version >= 0),
    readable_from INTEGER NOT NULL DEFAULT 0
) STRICT
"""
# Ledgers of releases that had no such column: theirs read what they knew.
_READABLE_FROM = "ALTER TABLE schema_version ADD COLUMN readable_from INTEGER NOT NULL DEFAULT 0"


def migrate(connection: sqlite3.Connection) -> int:
    """Apply the missing steps; the version reached. Raises Tampered (SCHEMA_VERSION) for a newer ledger."""
    for step in pending(connection):
        _apply(connection, step)
    return schema(connection).version


def pending(connection: sqlite3.Connection) -> list[Step]:
    """The missing steps. Raises Tampered (SCHEMA_VERSION)."""
    return missing(schema(connection), migrations())


def schema(connection: sqlite3.Connection) -> Schema:
    """What a ledger has; (0, 0) for an empty file."""
    with contextlib.suppress(sqlite3.OperationalError):
        return schema_of(connection)
    # No such table, or no such column yet.
    with contextlib.suppress(sqlite3.OperationalError):
        row = connection.execute('SELECT version FROM schema_version WHERE "only" = 1').fetchone()
        return Schema(0, 0) if row is None else Schema(int(row[0]), int(row[0]))
    return Schema(0, 0)


def _apply(connection: sqlite3.Connection, step: Step) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = schema(connection)
        connection.execute(_VERSION_TABLE)
        if "readable_from" not in {row[1] for row in connection.execute("PRAGMA table_info(schema_version)")}:
            connection.execute(_READABLE_FROM)
        for statement in statements(step.text):
            connection.execute(statement)
        then = after(found, step)
        connection.execute(
            'INSERT OR REPLACE INTO schema_version ("only", version, readable_from) VALUES (1, ?, ?)',
            (then.version, then.readable_from),
        )
    except sqlite3.Error:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@cache
def statements(text: str) -> tuple[str, ...]:
    """The statements of a script (executescript would commit between them)."""
    found, pending = [], ""
    for line in text.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending)
            pending = ""
    return tuple(found)
