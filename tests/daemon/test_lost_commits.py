"""brokerd whose database comes back without what was committed to it: it ends, and the next start looks into it.

As when a standby was promoted that did not have the last transactions. The process is a real one, because its exit
status is what a supervisor goes by.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import TupleRow

from broker.audit.checkpoint import parse
from broker.config import load_config
from broker.dev.postgres import PostgresFacts
from broker.keys import new_key
from broker.secret import Secret
from broker.stores.postgres_connection import ServerAddress, connect
from broker.stores.postgres_migrate import migrate
from broker.witnesses.file import FileWitness
from tests.api.served import private, write_config
from tests.daemon.test_life import brokerd, page, running, until_ready
from tests.patience import PATIENCE, until
from tests.witnesses.fake import signing_key

pytestmark = pytest.mark.slow
UNAVAILABLE = os.EX_UNAVAILABLE
_DATABASE = "lost_commits"
# No batch of a broker is under way beside it.
_ALONE = "SELECT pg_advisory_xact_lock('last_batch'::regclass::oid::bigint | (27234::bigint << 32))"


class Ledger:
    """A database that can be put back to an earlier moment."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self.head: TupleRow | None = None

    @contextmanager
    def _session(self) -> Iterator[psycopg.Connection[TupleRow]]:
        with psycopg.connect(self._conninfo) as session:
            session.execute(_ALONE)
            yield session

    def records(self) -> int:
        with self._session() as session:
            row = session.execute("SELECT seq FROM audit_head").fetchone()
        assert row is not None
        return int(row[0])

    @property
    def records_then(self) -> int:
        assert self.head is not None
        return int(self.head[0])

    def remember(self) -> None:
        with self._session() as session:
            self.head = session.execute("SELECT seq, hash, mac, mac_key_id FROM audit_head").fetchone()

    def go_back(self) -> None:
        """What was committed since is not there, and whoever wrote last is not the last writer."""
        assert self.head is not None
        with self._session() as session:
            session.execute("SET LOCAL session_replication_role = replica")
            session.execute("DELETE FROM audit WHERE seq > %s", (self.head[0],))
            session.execute("DELETE FROM audit_checkpoints WHERE seq > %s", (self.head[0],))
            session.execute("UPDATE audit_export SET upto = least(upto, %s)", (self.head[0],))
            session.execute("UPDATE audit_head SET seq = %s, hash = %s, mac = %s, mac_key_id = %s", self.head)
            session.execute("UPDATE last_batch SET number = number - 1, writer = 'writer-0'")


@pytest.fixture
def ledger(postgres_server: PostgresFacts) -> Iterator[Ledger]:
    with psycopg.connect(postgres_server.conninfo(), autocommit=True) as session:
        session.execute(f"CREATE DATABASE {_DATABASE}")
        try:
            conninfo = postgres_server.conninfo(_DATABASE)
            with contextlib.closing(connect(ServerAddress(Secret(conninfo)), role="owner")) as owner:
                migrate(owner)
            yield Ledger(conninfo)
        finally:
            session.execute(f"DROP DATABASE {_DATABASE} WITH (FORCE)")


def config_of(root: Path, ledger: Ledger, *, witnessed: bool) -> Path:
    changes: dict[str, Any] = {
        "keys": {"ledger": [f"file:{private(root / 'kept.key', new_key())}"]},
        "ledger": {"dsn": f"file:{private(root / 'ledger.dsn', ledger._conninfo)}"},
    }
    if witnessed:
        signing_key(root / "checkpoint.key")
        (root / "elsewhere").mkdir()
        checkpoints = {
            "signing_keys": [f"file:{root / 'checkpoint.key'}"],
            "every": "100ms",
            "witnesses": {"disk": {"file": str(root / "elsewhere" / "notes")}},
        }
        changes["audit"] = {"checkpoints": checkpoints}
    return write_config(root, **changes)


def witnessed_records(root: Path) -> int:
    newest = asyncio.run(FileWitness(root / "elsewhere" / "notes").newest(0))
    return 0 if newest is None else parse(newest.split("\n\n")[0] + "\n").count


@pytest.mark.parametrize("witnessed", [True, False])
def test_it_ends_as_unavailable_and_the_next_start_holds_it_against_the_witnesses(
    tmp_path: Path, ledger: Ledger, witnessed: bool
) -> None:
    """F21: nobody is needed to begin again. Behind a witness that is recovery, without one it serves what is left."""
    config = config_of(tmp_path, ledger, witnessed=witnessed)
    with running(config):
        ledger.remember()
    first = brokerd(config)
    try:
        until_ready(config, first.poll)
        until(lambda: ledger.records() > ledger.records_then)
        if witnessed:  # it has seen what is going to be lost
            until(lambda: witnessed_records(tmp_path) > ledger.records_then)
        ledger.go_back()
        assert first.wait(PATIENCE) == UNAVAILABLE
        said = first.said()
        assert "lost what was committed" in said and "Traceback" not in said
        assert ledger.records() == ledger.records_then  # nothing was written after it
    finally:
        first.kill()
    if not witnessed:
        with running(config):
            return
    again = brokerd(config)
    try:
        port = load_config(config).listen.operations.port
        problems = until(lambda: (each := page(port, "readyz")) is not None and each.status_code == 503 and each.text)
        assert "is in recovery" in problems
        assert again.poll() is None
    finally:
        again.kill()
