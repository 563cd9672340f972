"""``broker migrate`` of a newer release beneath a brokerd that is at work on a server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from broker.dev.postgres import PostgresFacts
from broker.errors import NotReady
from broker.keys import new_key
from broker.secret import Secret
from broker.stores import postgres_migrate
from broker.stores.postgres_connection import ServerAddress, connect
from broker.stores.postgres_sql import postgres_migrations
from tests.api.served import private, write_config
from tests.daemon.test_life import brokerd, refuses, until_ready
from tests.patience import PATIENCE, until

pytestmark = pytest.mark.slow
_DATABASE = "migrated_beneath"
_UNAVAILABLE = 69


@pytest.fixture
def dsn(postgres_server: PostgresFacts) -> Iterator[str]:
    with psycopg.connect(postgres_server.conninfo(), autocommit=True) as session:
        session.execute(f"CREATE DATABASE {_DATABASE}")
        try:
            migrated(conninfo := postgres_server.conninfo(_DATABASE))
            yield conninfo
        finally:
            session.execute(f"DROP DATABASE {_DATABASE} WITH (FORCE)")


def migrated(dsn: str) -> None:
    with contextlib.closing(connect(ServerAddress(Secret(dsn)), role="owner")) as owner:
        postgres_migrate.migrate(owner)


def test_one_that_is_not_for_it_waits_for_it_and_where_it_came_all_the_same_brokerd_ends_and_says_why(
    tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F50: what its own command refuses may still be done by hand."""
    changes = {
        "keys": {"ledger": [f"file:{private(tmp_path / 'kept.key', new_key())}"]},
        "ledger": {"dsn": f"file:{private(tmp_path / 'ledger.dsn', dsn)}"},
    }
    config = write_config(tmp_path, **changes)
    newest = len(postgres_migrations()) + 1
    process = brokerd(config)
    try:
        until_ready(config, process.poll)
        with monkeypatch.context() as newer:
            steps = {**postgres_migrations(), newest: "ALTER TABLE leases ADD COLUMN novelty TEXT NOT NULL DEFAULT '';"}
            newer.setattr(postgres_migrate, "postgres_migrations", lambda: steps)
            with pytest.raises(NotReady, match="1 are at work"):
                migrated(dsn)
        assert process.poll() is None
        with psycopg.connect(dsn) as owner:
            owner.execute("UPDATE schema_version SET version = %s, readable_from = %s", (newest, newest))
        assert process.wait(PATIENCE) == _UNAVAILABLE  # by its beat, at the latest a second later
        said = process.said()
        assert "this release cannot work with what it is now" in said and "Traceback" not in said
        assert f"the ledger has schema {newest}" in said and "Start the newer release" in said
    finally:
        process.kill()
    # Its supervisor starts it again, and that changes nothing until the newer release is there.
    assert "Start the newer release" in refuses(config)
    with psycopg.connect(dsn) as owner:
        owner.execute("UPDATE schema_version SET version = 1, readable_from = 1")
    process = brokerd(config)
    assert process.wait(PATIENCE) == _UNAVAILABLE and until(lambda: "Run broker migrate" in process.said())
