"""``broker audit export`` goes on where it ended, and says what it could not do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.audit.event import AuditEvent, EventType, Vouch
from broker.cli.main import cli as command
from broker.keys import FileKeyRing, new_key
from broker.stores.sqlite import SqliteStore

NOW = datetime(2031, 5, 1, 12, 0, tzinfo=UTC)
SOURCE = ("--source", "//example.org/jit-broker/t")
FORMS = [("ocsf",), ("cloudevents", *SOURCE), ("records",)]


def run(*arguments: str | Path) -> Result:
    done = CliRunner().invoke(command, [str(each) for each in ("audit", "export", *arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.fixture
def grow(tmp_path: Path) -> Callable[[int], Path]:
    """A ledger, with so many records more each time."""
    key = tmp_path / "ledger.key"
    key.write_text(new_key())
    key.chmod(0o600)
    (tmp_path / "state").mkdir(mode=0o700)
    path = tmp_path / "state" / "ledger.sqlite3"

    async def write(count: int) -> None:
        store = await SqliteStore.open(path, FileKeyRing([f"file:{key}"]), "writer-1")
        event = AuditEvent(EventType.DAEMON_STARTED, "broker", Vouch.BROKER, tenant="t", data={"recovered": 0})
        await store.append([event] * count, NOW)
        await store.close()

    def more(count: int) -> Path:
        asyncio.run(write(count))
        return path

    return more


def sequences(lines: list[str]) -> list[int]:
    told = [json.loads(line) for line in lines]
    return [int(each.get("seq") or each.get("sequence") or each["metadata"]["sequence"]) for each in told]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form[0])
def test_the_same_command_goes_on_where_it_ended(
    grow: Callable[[int], Path], tmp_path: Path, form: tuple[str, ...]
) -> None:
    out = tmp_path / "out.jsonl"
    arguments = ("--output", out, "--format", *form)
    assert run("--database", grow(3), *arguments).exit_code == 0
    assert out.stat().st_mode & 0o777 == 0o600
    with out.open("a") as file:
        file.write('{"cut short by a cra')
    done = run("--database", grow(2), *arguments)
    assert (done.exit_code, done.stderr) == (0, f"{out}: 2 more records\n")
    assert sequences(out.read_text().splitlines()) == [1, 2, 3, 4, 5]
    whole = out.read_text()
    assert run("--database", grow(0), *arguments).exit_code == 0
    assert out.read_text() == whole == run("--database", grow(0), "--format", *form).stdout
    assert sequences(run("--database", grow(0), "--format", *form, "--after", "4").stdout.splitlines()) == [5]


def test_a_full_disk_is_told(grow: Callable[[int], Path]) -> None:
    done = run("--database", grow(1), "--output", "/dev/full")
    assert done.exit_code == 1
    assert "/dev/full cannot be written: No space left on device" in done.stderr
    assert "run the same command again" in done.stderr


def test_a_file_of_another_form_stays_as_it_is(grow: Callable[[int], Path], tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text('{"seq": 1}\n')
    done = run("--database", grow(2), "--output", out)
    assert done.exit_code == 2
    assert "is no ocsf event" in done.stderr
    assert out.read_text() == '{"seq": 1}\n'


def test_what_does_not_fit_together(grow: Callable[[int], Path], tmp_path: Path) -> None:
    ledger = grow(1)
    assert "needs --source" in run("--database", ledger, "--format", "cloudevents").stderr
    assert "leave --after out" in run("--database", ledger, "--output", tmp_path / "x", "--after", "1").stderr
