"""Brings a ledger to the schema of this release, or refuses it.

Each step is one transaction together with its version number. A *newer* schema is refused: an older
broker would not know which rules the newer one relies on (faults.md F50: no downgrade).
"""

from __future__ import annotations

import sqlite3
from functools import cache

from broker.errors import Reason, Tampered
from broker.stores.queries import migrations

_VERSION_TABLE = """
CREATE TABLE IF NOT EXISTS schema_version (
    only    INTEGER PRIMARY KEY CHECK (only = 1),
    version INTEGER NOT NULL CHECK (version >= 0)
) STRICT
"""


def migrate(connection: sqlite3.Connection) -> int:
    """Apply the missing steps; the version reached. Raises Tampered (SCHEMA_VERSION) for a newer ledger."""
    steps = migrations()
    connection.execute(_VERSION_TABLE)
    present = version(connection)
    if present > len(steps):
        raise Tampered(
            Reason.SCHEMA_VERSION,
            f"the ledger has schema {present}, this broker knows schemas up to {len(steps)}.",
            hint="Start the newer release that wrote it; a ledger is never downgraded.",
            metadata={"found": str(present), "known": str(len(steps))},
        )
    for number in range(present + 1, len(steps) + 1):
        _apply(connection, number, steps[number])
    return len(steps)


def version(connection: sqlite3.Connection) -> int:
    """The version of the schema; 0 for an empty ledger."""
    row = connection.execute("SELECT version FROM schema_version WHERE only = 1").fetchone()
    return 0 if row is None else int(row[0])


def _apply(connection: sqlite3.Connection, number: int, text: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements(text):
            connection.execute(statement)
        connection.execute("INSERT OR REPLACE INTO schema_version (only, version) VALUES (1, ?)", (number,))
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
