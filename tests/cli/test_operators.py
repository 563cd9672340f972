"""``broker audit`` on a real ledger, and ``broker reload`` of a real brokerd."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from broker.audit.event import AuditEvent, EventType, Vouch
from broker.cli import reload
from broker.cli.main import cli as command
from broker.keys import FileKeyRing, new_key
from broker.stores.sqlite import SqliteStore
from tests.api.served import write_config
from tests.daemon.test_life import outcome, running_command

NOW = datetime(2031, 5, 1, 12, 0, tzinfo=UTC)
Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    def invoke(*arguments: str | Path) -> Result:
        done = CliRunner().invoke(command, [str(each) for each in arguments])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    return invoke


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.key"
    path.write_text(new_key())
    path.chmod(0o600)
    return path


@pytest.fixture
def ledger(tmp_path: Path, key: Path) -> Path:
    """A ledger with four records."""
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    path = directory / "ledger.sqlite3"

    async def write() -> None:
        store = await SqliteStore.open(path, FileKeyRing([f"file:{key}"]), "writer-1")
        for number in range(1, 5):
            kind = EventType.LEASE_ISSUED if number % 2 else EventType.TASK_STARTED
            event = AuditEvent(
                kind, actor=f"agent-{number}", vouched_by=Vouch.BROKER, tenant="t", task_id="task-1", data={"n": number}
            )
            await store.append([event], NOW)
        await store.close()

    asyncio.run(write())
    return path


def test_a_whole_trail_verifies(run: Run, ledger: Path, key: Path) -> None:
    done = run("audit", "verify", "--database", ledger, "--key", f"file:{key}")
    assert (done.exit_code, done.stdout) == (0, f"{ledger}: whole, 4 records, with their MACs\n")
    done = run("audit", "verify", "--database", ledger, "--format", "json")
    assert json.loads(done.stdout) == {"ok": True, "records": 4, "macsChecked": False, "findings": []}


def test_a_flipped_byte_is_located(run: Run, ledger: Path, key: Path) -> None:
    with sqlite3.connect(ledger) as database:
        (table,) = (
            name
            for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if "body" in {column[1] for column in database.execute(f"PRAGMA table_info({name})")}
        )
        ((body,),) = database.execute(f"SELECT body FROM {table} WHERE seq = 3")
        database.execute("PRAGMA trusted_schema = 1")
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {trigger}")
        database.execute(f"UPDATE {table} SET body = ? WHERE seq = 3", (body.replace(b"agent-3", b"agent-9"),))
    done = run("audit", "verify", "--database", ledger, "--key", f"file:{key}", "--format", "json")
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert {finding["sequence"] for finding in told["findings"]} == {3}
    assert run("audit", "verify", "--database", ledger).stdout.startswith("record 3: BODY: ")


def test_records_are_shown_and_chosen(run: Run, ledger: Path) -> None:
    lines = run("audit", "show", "--database", ledger, "--format", "records").stdout.splitlines()
    assert lines[0] == '1  2031-05-01T12:00:00Z  lease.issued  agent-1  (broker)  task-1  {"n": 1}'
    assert len(lines) == 4
    for options, numbers in (
        (("--after", "2"), [3, 4]),
        (("--type", "lease.issued"), [1, 3]),
        (("--type", "lease."), [1, 3]),
        (("--type", "lease"), []),
        (("--actor", "agent-2"), [2]),
        (("--task", "task-1", "--after", "3"), [4]),
        (("--lease", "lease-1"), []),
    ):
        shown = run("audit", "show", "--database", ledger, "--format", "json", *options).stdout.splitlines()
        assert [json.loads(line)["seq"] for line in shown] == numbers, options
    assert json.loads(run("audit", "show", "--database", ledger, "--format", "json").stdout.splitlines()[0])[
        "time"
    ] == ("2031-05-01T12:00:00Z")


def test_what_is_no_ledger(run: Run, tmp_path: Path) -> None:
    done = run("audit", "verify", "--database", tmp_path / "absent")
    assert done.exit_code == 2
    assert "CONFIG_INVALID" in done.stderr


@pytest.mark.slow
def test_reload_puts_a_good_set_in_force_and_refuses_a_bad_one(run: Run, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    template = tmp_path / "deploy" / "templates" / "orders-readonly.yaml"
    good = template.read_text()
    with running_command(config):  # what is signalled is known by its command line
        first = outcome(tmp_path)
        template.write_text(good.replace("15m", "14m"))
        done = run("reload", "--config", config)
        second = outcome(tmp_path)
        assert done.exit_code == 0, done.stderr
        assert done.stdout == f"in force sha256:{second['digest']}\n"
        assert second["digest"] != first["digest"]

        template.write_text(good + "surprise: 1\n")
        done = run("reload", "--config", config)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "orders-readonly.yaml:" in done.stderr
        assert outcome(tmp_path) == second  # brokerd never heard of it

        template.write_text(good)
        done = run("reload", "--config", config, "--format", "json")
        assert json.loads(done.stdout)["ok"] is True
    # brokerd was killed, so its pid file is still there.
    done = run("reload", "--config", config)
    assert done.exit_code == 4
    assert "No brokerd to be told" in done.stderr


def test_reload_signals_no_stranger(run: Run, tmp_path: Path) -> None:
    """The pid of a brokerd that is gone belongs to this very process now; SIGHUP would end it."""
    config = write_config(tmp_path)
    (tmp_path / "state" / "brokerd.pid").write_text(f"{os.getpid()}\n")
    done = run("reload", "--config", config)
    assert done.exit_code == 4
    assert "does not name a running brokerd" in done.stderr


def test_what_came_of_an_earlier_reload_is_no_answer(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """brokerd was taking in what was there before, and says so first."""
    config = write_config(tmp_path)
    state = tmp_path / "state"
    (state / "brokerd.pid").write_text(f"{os.getpid()}\n")
    monkeypatch.setattr(reload, "_is_brokerd", lambda pid: True)

    def tell(generation: int, **said: object) -> None:
        told = {"generation": generation, "pid": 7, "ok": True, "digest": "older", "problems": [], **said}
        (state / "reload.json").write_text(json.dumps(told))

    def signalled(pid: int, number: int) -> None:
        if number == signal.SIGHUP:
            tell(2, begun=earlier)
            threading.Timer(0.2, tell, (3,), {"begun": time.monotonic(), "digest": "ours"}).start()

    monkeypatch.setattr(os, "kill", signalled)
    tell(1)
    earlier = time.monotonic()
    assert run("reload", "--config", config).stdout == "in force sha256:ours\n"


def test_a_brokerd_that_does_not_say_when_it_began_is_believed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path)
    (tmp_path / "state" / "brokerd.pid").write_text(f"{os.getpid()}\n")
    monkeypatch.setattr(reload, "_is_brokerd", lambda pid: True)
    told = {"generation": 4, "ok": True, "digest": "d", "problems": []}
    monkeypatch.setattr(os, "kill", lambda *_: (tmp_path / "state" / "reload.json").write_text(json.dumps(told)))
    assert run("reload", "--config", config).stdout == "in force sha256:d\n"


def test_who_is_not_brokerds_user_is_told_so(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, read = write_config(tmp_path), Path.read_text

    def refused(path: Path, *given: Any, **named: Any) -> str:
        if path.parent.name == "state":
            raise PermissionError(13, os.strerror(13))
        return read(path, *given, **named)

    monkeypatch.setattr(Path, "read_text", refused)
    done = run("reload", "--config", config)
    assert done.exit_code == 4
    assert "reload.json: Permission denied." in done.stderr
    assert "are you its user?" in done.stderr
