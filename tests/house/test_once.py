"""What a run makes once is what would have been made each time."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from broker.deployfiles import listing
from broker.deployfiles.load import build
from broker.files import Problems
from broker.stores.migrate import migrate, schema
from tests.once import Sets, migrated

DEV = Path(__file__).parents[2] / "deploy" / "dev"
DOMAIN = "dev.broker.internal"


def dump(connection: sqlite3.Connection) -> list[str]:
    return list(connection.iterdump())


def test_a_copied_ledger_is_one_that_took_every_step() -> None:
    taken, copied = sqlite3.connect(":memory:", isolation_level=None), sqlite3.connect(":memory:", isolation_level=None)
    assert migrate(taken) == migrated(copied) == schema(copied).version
    assert dump(taken) == dump(copied)
    migrated(copied)  # it is new no more, and lacks nothing
    assert dump(taken) == dump(copied)


def test_an_older_ledger_takes_the_steps_it_lacks() -> None:
    older = sqlite3.connect(":memory:", isolation_level=None)
    older.execute('CREATE TABLE schema_version ("only" INTEGER PRIMARY KEY, version INTEGER, readable_from INTEGER)')
    older.execute("INSERT INTO schema_version VALUES (1, 0, 0)")
    older.execute("CREATE TABLE somebodys (a)")
    migrated(older)
    assert older.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'somebodys'").fetchone() == (1,)
    assert older.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'leases'").fetchone() == (1,)


def test_the_same_bytes_are_the_same_set_and_other_bytes_another(tmp_path: Path) -> None:
    deploy, sets = tmp_path / "deploy", Sets()
    shutil.copytree(DEV, deploy)
    first = sets.build(listing.read_set(deploy), DOMAIN)
    assert first.digest == build(listing.read_set(deploy), DOMAIN).digest
    assert sets.build(listing.read_set(deploy), DOMAIN) is first
    assert sets.build(listing.read_set(deploy), DOMAIN, to_serve=True) is not first
    with pytest.raises(Problems, match=DOMAIN):
        sets.build(listing.read_set(deploy), "other.test")
    agent = min((deploy / "agents").glob("*.yaml"))
    agent.write_text(agent.read_text() + "\n# more\n")
    second = sets.build(listing.read_set(deploy), DOMAIN)
    assert second.digest != first.digest
    agent.write_text("spiffe_id: nonsense\n")
    for _ in range(2):
        with pytest.raises(Problems, match="spiffe_id"):
            sets.build(listing.read_set(deploy), DOMAIN)
