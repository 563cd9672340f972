"""The upstream of :mod:`tests.kill`, asked of a ledger on PostgreSQL what it had noted before anything was made.

``python -m integration.replicas.noted`` takes the arguments of ``tests.kill.upstream``; ``--ledger`` is a file with the
DSN of every server that may be the primary. While none answers the upstream answers nobody: what cannot be judged is
not made.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg

from tests.kill import upstream
from tests.kill.intents import Noted

_HANDLE = "SELECT handle FROM attempts WHERE id = %s"
_PATIENCE = 60.0


class Upstream(upstream.Upstream):
    """The process, as others hold it; its ``ledger`` is the file with the DSN."""

    module = "integration.replicas.noted"


def in_postgresql(ledger: Path) -> Noted:
    """From a ledger's server; a connection for each question, so that it is whichever is the primary now."""
    dsn = ledger.read_text()

    def noted(attempt: str) -> Mapping[str, object] | None:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                with psycopg.connect(dsn, autocommit=True) as connection:
                    row = connection.execute(_HANDLE, (attempt,)).fetchone()
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
            else:
                return None if row is None else json.loads(row[0])

    return noted


if __name__ == "__main__":
    upstream.main(in_postgresql)
