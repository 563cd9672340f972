"""broker migrate, ledger move, verify and audit on a server, as an operator gives them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

import broker.cli.ledger as commands
from broker.cli.main import cli
from broker.clock import SystemClock
from broker.keys import FileKeyRing, new_key
from broker.stores.postgres import PostgresStore
from broker.stores.postgres_clock import ServerClock
from broker.stores.queries import migrations
from broker.stores.schema import Step
from broker.stores.sqlite import SqliteStore
from tests.stores.conftest import LedgerDatabase
from tests.stores.make import intent, new_task


@pytest.fixture
def server(ledger_database: LedgerDatabase, monkeypatch: pytest.MonkeyPatch) -> Iterator[LedgerDatabase]:
    """An empty database; LEDGER_OWNER is its owner's DSN, LEDGER_DSN brokerd's."""
    facts = ledger_database.server
    with psycopg.connect(facts.conninfo(), autocommit=True) as session:
        session.execute("CREATE DATABASE commanded")
        database = LedgerDatabase(facts, "commanded")
        monkeypatch.setenv("LEDGER_OWNER", database.owner.dsn.reveal())
        monkeypatch.setenv("LEDGER_DSN", database.address.dsn.reveal())
        yield database
        session.execute("DROP DATABASE commanded WITH (FORCE)")


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "ledger.key"
    path.write_text(new_key())
    path.chmod(0o600)
    return f"file:{path}"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(each) for each in arguments])


async def test_from_a_file_to_a_server(server: LedgerDatabase, tmp_path: Path, key: str) -> None:
    source = tmp_path / "ledger.sqlite3"
    store = await SqliteStore.open(source, FileKeyRing([key]), writer="writer-0")
    await store.start_task(new_task())
    await store.open_intent(intent())
    await store.close()

    planned = run("migrate", "--database", "env:LEDGER_OWNER", "--dry-run")
    assert planned.exit_code == 0 and planned.output.count("would carry out") == len(migrations())
    assert run("verify", "--database", "env:LEDGER_DSN").exit_code != 0  # nothing is there yet
    refused = run("migrate", "--database", "env:LEDGER_OWNER", "--grant-to", "nobody_there")
    assert refused.exit_code != 0 and 'role "nobody_there" does not exist' in refused.output
    done = run("migrate", "--database", "env:LEDGER_OWNER", "--grant-to", "jit_brokerd")
    assert done.exit_code == 0 and done.output.count("carried out") == len(migrations())
    assert "nothing to do" in run("migrate", "--database", "env:LEDGER_OWNER").output

    moved = run("ledger", "move", "--from", source, "--to", "env:LEDGER_OWNER", "--key", key)
    assert moved.exit_code == 0 and "moved, and verified there" in moved.output, moved.output
    again = run("ledger", "move", "--from", f"{source}.moved", "--to", "env:LEDGER_OWNER", "--key", key)
    assert again.exit_code != 0

    checked = run("verify", "--database", "env:LEDGER_DSN", "--key", key)
    assert checked.exit_code == 0 and "all well" in checked.output, checked.output
    trail = run("audit", "verify", "--database", "env:LEDGER_DSN", "--key", key)
    assert trail.exit_code == 0 and "whole" in trail.output, trail.output
    assert "started the task" in run("audit", "show", "--database", "env:LEDGER_DSN").output
    refused = run("backup", "--database", "env:LEDGER_DSN", tmp_path / "copy")
    assert refused.exit_code != 0 and not (tmp_path / "copy").exists()
    opened = await PostgresStore.open(server.address, FileKeyRing([key]), "writer-1", ServerClock(SystemClock()))
    await opened.open_intent(intent("2"))
    await opened.close()
    with server.session() as session:
        session.execute("UPDATE leases SET account = 'another'")
    assert run("verify", "--database", "env:LEDGER_DSN", "--key", key).exit_code != 0


@pytest.mark.parametrize(
    ("first", "readable", "told"),
    [
        (20, (17, 17), "brokers that know schema 17 or a newer one can go on meanwhile"),
        (20, (17, 19), "brokers that know schema 19 or a newer one can go on meanwhile"),
        # The last step alone would let them go on, and the ledger does not.
        (20, (None, 17), "brokers of the release before cannot go on: stop every one of them first"),
        (1, (None, 1), ""),  # there is none before
    ],
)
def test_who_can_go_on_is_told_of_all_steps_together(
    first: int, readable: tuple[int | None, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["SELECT 1;" if each is None else f"-- readable from: {each}\nSELECT 1;" for each in readable]
    steps = [Step(first + number, text) for number, text in enumerate(texts)]
    monkeypatch.setattr(commands, "pending_steps", lambda database: steps)
    said = run("migrate", "--database", "env:LEDGER_OWNER", "--dry-run").output.splitlines()
    assert said == [f"would carry out step {first}", f"would carry out step {first + 1}", *([told] if told else [])]


def test_a_file_that_no_broker_has_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    assert run("migrate", "--database", path).exit_code != 0 and not path.exists()
