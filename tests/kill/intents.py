"""What the ledger has durably noted of an attempt, asked by the upstream in the moment before it makes something.

A line in the log that says ``intended`` is then no comparison of two clocks: the intent was committed, and visible to
another process, before the credential was there.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

# The handle of an attempt as it is committed; None where there is no such attempt.
Noted = Callable[[str], Mapping[str, object] | None]

_HANDLE = "SELECT handle FROM attempts WHERE id = ?"


def in_sqlite(ledger: Path) -> Noted:
    """From a ledger's file.

    A connection for each question: one that stays open would keep the write-ahead log's index alive when the broker is
    killed, and the next start would not have to recover it.
    """

    def noted(attempt: str) -> Mapping[str, object] | None:
        connection = sqlite3.connect(f"file:{quote(str(ledger))}?mode=ro", uri=True, timeout=30)
        try:
            row = connection.execute(_HANDLE, (attempt,)).fetchone()
        finally:
            connection.close()
        return None if row is None else json.loads(row[0])

    return noted
