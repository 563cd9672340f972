"""``broker access report`` on the development set and a ledger: offline, by the function that decides."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

import pytest
from click.testing import CliRunner, Result

from broker.audit.event import AuditEvent, EventType, Vouch
from broker.cli.main import cli as command
from broker.keys import FileKeyRing, new_key
from broker.stores.sqlite import SqliteStore
from tests.deployfiles.test_broken import private_copy
from tests.house.project import ROOT

DAY = timedelta(days=1)
ANALYST, LEE = "spiffe://dev.broker.internal/agent/analyst", "https://id.dev.broker.internal#lee"
READ = {"template": "orders-readonly", "account": "dev", "environment": "dev", "access": "read", "resource": "orders"}
WRITE = {**READ, "template": "orders-readwrite", "access": "write"}

Append = Callable[..., None]


@pytest.fixture
def deploy(tmp_path: Path) -> Path:
    return private_copy(ROOT / "deploy" / "dev", tmp_path / "set")


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir(mode=0o700)
    return tmp_path / "state" / "ledger.sqlite3"


@pytest.fixture
def append(tmp_path: Path, ledger: Path) -> Append:
    """Writes one event so long ago."""
    key = tmp_path / "ledger.key"
    key.write_text(new_key())
    key.chmod(0o600)

    async def write(type_: EventType, actor: str, ago: timedelta, data: dict[str, Any]) -> None:
        store = await SqliteStore.open(ledger, FileKeyRing([f"file:{key}"]), "writer-1")
        event = AuditEvent(type_, actor, Vouch.BROKER, tenant="dev", attempt_id="a1", holder=actor, data=data)
        await store.append([event], datetime.now(UTC) - ago)
        await store.close()

    def one(type_: EventType, actor: str = "broker", ago: timedelta = timedelta(), **data: Any) -> None:
        asyncio.run(write(type_, actor, ago, data))

    one(EventType.DAEMON_STARTED, recovered=0)
    return one


def run(deploy: Path, ledger: Path, *more: str | Path) -> Result:
    arguments = ["access", "report", "--deploy", deploy, "--database", ledger, *more]
    done = CliRunner().invoke(command, [str(each) for each in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def report(deploy: Path, ledger: Path, *more: str | Path) -> dict[str, Any]:
    done = run(deploy, ledger, *more, "--format", "json")
    assert done.exit_code == 0, done.output
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def of(document: dict[str, Any], agent: str) -> dict[str, Any]:
    (found,) = (each for each in document["report"]["agents"] if each["principal"] == agent)
    return dict(found)


def ways(agent: dict[str, Any]) -> dict[tuple[str, str], tuple[str, int]]:
    return {(each["template"], each["environment"]): (each["effect"], each["granted"]) for each in agent["could"]}


def test_what_each_agent_could_get_and_what_it_used(deploy: Path, ledger: Path, append: Append) -> None:
    append(EventType.LEASE_INTENT, ANALYST, DAY, **READ, parameters={})
    append(EventType.LEASE_INTENT, ANALYST, 2 * DAY, **WRITE, parameters={})
    append(EventType.LEASE_INTENT, ANALYST, 200 * DAY, **READ, parameters={})
    found = report(deploy, ledger)
    analyst = of(found, "analyst")
    assert ways(analyst) == {
        ("orders-readonly", "dev"): ("ALLOW", 1),
        ("orders-readonly", "staging"): ("ALLOW", 0),
        ("reports-read", "dev"): ("ALLOW", 0),
        ("reports-s3", "dev"): ("ALLOW", 0),
    }
    assert [(each["template"], each["granted"]) for each in analyst["no_more"]] == [("orders-readwrite", 1)]
    assert ways(of(found, "releaser"))[("orders-production", "production")] == ("NEEDS_APPROVAL", 0)
    assert [each["effect"] for each in of(found, "executor")["could"] if each["condition"]] == ["ALLOW"]
    text = run(deploy, ledger, "--since", "300d").stdout
    assert "may: read orders-readonly on dev, dev: granted 2 times" in text
    assert "may: read orders-readonly on dev, staging: NOT USED" in text
    assert "may, once approved (production-change): write orders-production on dev, production: NOT USED" in text
    assert "had, and could not have today: write orders-readwrite on dev, dev" in text
    assert "no access report has been signed off yet" in text


def test_who_else_used_something_is_told_for_who_it_is(deploy: Path, ledger: Path, append: Append) -> None:
    for who in ("spiffe://dev.broker.internal/jit-broker/canary", LEE, "spiffe://dev.broker.internal/agent/former"):
        append(EventType.LEASE_INTENT, who, DAY, **READ, parameters={})
    lines = [line for line in run(deploy, ledger).stdout.splitlines() if line]
    first = lines.index("Used by agents that are registered no more:")
    assert [line.partition(":")[0] for line in lines[first:]] == [
        "Used by agents that are registered no more",
        "  dev.broker.internal/agent/former",
        "Used by people, by break-glass",
        "  lee (id.dev.broker.internal)",
        "Used by the broker itself, to measure (canaries)",
        "  dev.broker.internal/jit-broker/canary",
    ]


def test_whose_owner_is_gone_or_disabled(deploy: Path, ledger: Path, append: Append) -> None:
    agent, people = deploy / "agents" / "releaser.yaml", deploy / "people.yaml"
    agent.write_text(agent.read_text().replace("owner: dana", "owner: max"))
    people.write_text(
        people.read_text().replace("display_name: Dana Okafor", "display_name: Dana Okafor\n    disabled: true")
    )
    text = run(deploy, ledger).stdout
    assert "Their owner is gone or disabled, so nobody answers for them" in text
    assert "  analyst: Dana Okafor (https://id.dev.broker.internal#dana)" in text
    assert "  releaser: max (not in people.yaml)" in text
    assert CliRunner().invoke(command, ["check", str(deploy)]).exit_code == 1


def signed(append: Append, path: Path, *, due: timedelta | None = None) -> None:
    """The report in ``path`` is signed off now, as the broker would record it."""
    due_ms = None if due is None else int((datetime.now(UTC) + due).timestamp() * 1000)
    told = {
        "digest": json.loads(path.read_text())["digest"],
        "findings": "Fine.",
        "agents": 8,
        "own_agents": 2,
        "deploy_digest": "d",
    }
    append(EventType.ACCESS_REVIEW_SIGNED_OFF, LEE, **told, due_ms=due_ms)


def test_a_reader_that_gained_a_write_stands_out_at_the_top(
    deploy: Path, ledger: Path, append: Append, tmp_path: Path
) -> None:
    path = tmp_path / "last.json"
    assert run(deploy, ledger, "--output", path).exit_code == 0
    assert path.stat().st_mode & 0o777 == 0o600
    signed(append, path, due=90 * DAY)
    agent = deploy / "agents" / "analyst.yaml"
    agent.write_text(agent.read_text().replace("advisory", "autonomous").replace("[analyst]", "[analyst, migrator]"))
    lines = run(deploy, ledger, "--previous", path).stdout.splitlines()
    top = lines.index("Changed since the last review, the gravest first:")
    assert lines[top + 1] == (
        "  ! analyst: COULD ONLY READ, and now: write orders-readwrite on dev, dev: is new, no approval"
    )
    assert any(
        "last signed off" in line
        and "by lee (id.dev.broker.internal), who answers for 2 of its agents; the next is due" in line
        for line in lines
    )
    told = report(deploy, ledger, "--previous", tmp_path)  # found by its digest among whatever lies there
    assert told["changes"][0]["gravity"] == "READER_CHANGES"


def test_what_lies_beside_the_last_report_is_passed_over(
    deploy: Path, ledger: Path, append: Append, tmp_path: Path
) -> None:
    kept = tmp_path / "reviews"
    kept.mkdir()
    path = kept / "q1.json"
    run(deploy, ledger, "--output", path)
    signed(append, path)
    os.mkfifo(kept / "a.json")
    (kept / "b.json").mkdir()
    (kept / "c.json").symlink_to("nowhere")
    assert "Nothing changed since the last review." in run(deploy, ledger, "--previous", kept).stdout
    path.unlink()
    done = run(deploy, ledger, "--previous", kept)
    assert done.exit_code == 2
    assert "c.json cannot be read: No such file or directory." in done.stderr


def test_an_overdue_review_is_told(deploy: Path, ledger: Path, append: Append, tmp_path: Path) -> None:
    path = tmp_path / "last.json"
    run(deploy, ledger, "--output", path)
    signed(append, path, due=-DAY)
    text = run(deploy, ledger).stdout
    assert "the next is OVERDUE since" in text
    assert f"what changed since is told with --previous: the report {json.loads(path.read_text())['digest']}" in text


def test_only_the_report_that_was_signed_off_is_compared_with(
    deploy: Path, ledger: Path, append: Append, tmp_path: Path
) -> None:
    path = tmp_path / "one.json"
    run(deploy, ledger, "--output", path)
    done = run(deploy, ledger, "--previous", path)
    assert (done.exit_code, "knows of no report that was signed off" in done.stderr) == (2, True)
    signed(append, path)
    other = tmp_path / "other.json"
    run(deploy, ledger, "--output", other)
    assert "is not the report that was signed off last" in run(deploy, ledger, "--previous", other).stderr
    path.write_text(path.read_text().replace("analyst", "analysT"))
    assert "was changed after it was made" in run(deploy, ledger, "--previous", path).stderr


def test_a_damaged_trail_is_told_and_still_read(deploy: Path, ledger: Path, append: Append) -> None:
    append(EventType.LEASE_INTENT, ANALYST, **READ, parameters={})
    append(EventType.LEASE_INTENT, ANALYST, **READ, parameters={})
    with sqlite3.connect(ledger) as database:
        database.execute("UPDATE audit SET body = x'00' WHERE seq = 2")
    found = report(deploy, ledger)
    assert (found["report"]["trail"]["findings"] > 0, found["report"]["unread_records"]) == (True, 1)
    assert ways(of(found, "analyst"))[("orders-readonly", "dev")] == ("ALLOW", 1)
    assert "the trail is DAMAGED" in run(deploy, ledger).stdout


def test_half_a_report_is_not_left_in_the_way(
    deploy: Path, ledger: Path, append: Append, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "q1.json"

    def half(document: object, file: TextIO, **_: object) -> None:
        file.write("{")
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as full:
        full.setattr(json, "dump", half)
        done = run(deploy, ledger, "--output", path)
    assert (done.exit_code, done.stderr) == (1, f"Error: {path} cannot be written: No space left on device.\n")
    assert run(deploy, ledger, "--output", path).exit_code == 0


def test_what_is_not_there_or_in_the_way_is_told(deploy: Path, ledger: Path, append: Append, tmp_path: Path) -> None:
    assert run(deploy, tmp_path / "none").exit_code == 2
    taken = tmp_path / "taken.json"
    taken.write_text("mine")
    done = run(deploy, ledger, "--output", taken)
    assert (done.exit_code, taken.read_text()) == (2, "mine")
    (deploy / "connectors.yaml").write_text("nonsense: 1\n")
    done = run(deploy, ledger)
    assert (done.exit_code, "connectors.yaml:1" in done.stderr) == (1, True)
