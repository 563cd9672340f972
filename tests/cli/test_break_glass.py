"""``broker break-glass`` as a person types it, against a brokerd."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker.cli.main import cli as command
from broker.client import calls
from tests.api.served import DECIDING, Served, private
from tests.cli.at_the_door import Invoke, at_the_door, served_quietly
from tests.cli.logging_in import logged_in, visit

Run = Invoke
WHAT = ("--account", "dev", "--environment", "production", "--resource", "orders", "--ttl", "10m")
WHY = ("--reason", "orders are locked", "--incident", "INC-1")


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with served_quietly(tmp_path, roles=DECIDING) as running:
        yield running


@pytest.fixture
def run(served: Served, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``broker break-glass`` as ``who``."""
    monkeypatch.setattr("broker.cli.person.open_browser", visit)
    monkeypatch.setattr("broker.client.admin.RETRY_WAITS", tuple(wait / 100 for wait in calls.RETRY_WAITS))
    invoke = at_the_door(served, monkeypatch)
    return lambda who, *words: invoke(who, "break-glass", *words)


async def used(run: Run, out: Path) -> str:
    done = await run("sam", "use", "orders-production", *WHAT, *WHY, "--out", str(out), "--format", "json")
    assert done.exit_code == 0, done.stderr
    return str(json.loads(out.read_text())["lease"]["id"])


async def test_from_the_emergency_to_its_review(run: Run, served: Served, tmp_path: Path) -> None:
    listed = await run("sam", "list")
    assert "you may: orders-production  dev / production  up to 30m, as operations" in listed.stdout
    done = await run("sam", "use", "orders-production", *WHAT, *WHY, "--out", str(tmp_path / "secret"))
    assert done.exit_code == 0, done.stderr
    assert "[BREAK-GLASS by Sam Lindqvist, INC-1]" in done.stdout
    assert "PGPASSWORD=" in (tmp_path / "secret").read_text() and "PGPASSWORD" not in done.output
    lease = done.stdout.split()[0]
    assert f"broker break-glass end {lease}" in done.stderr
    assert lease in (await run("dana", "list")).stdout
    ended = await run("sam", "end", lease)
    assert "REVOKED" in ended.stdout, ended.output
    own = await run("sam", "review", lease, "--findings", "mine")
    assert (own.exit_code, "REVIEW_OF_ONES_OWN" in own.stderr) == (3, True)
    reviewed = await run("kim", "review", lease, "--findings", "looked at \x1b[2Jeverything")
    assert reviewed.stdout == f"{lease}  reviewed by Kim Adeyemi\n"
    shown = (await run("dana", "show", lease)).stdout
    assert "REVIEWED by Kim Adeyemi" in shown and "  | looked at <U+001B>[2Jeverything" in shown
    assert lease not in (await run("dana", "list")).stdout
    told = json.loads((await run("dana", "list", "--all", "--format", "json")).stdout)
    (use,) = told["uses"]
    assert use["lease"]["breakGlass"]["incident"] == "INC-1" and use["findings"].startswith("looked at")


async def test_what_cannot_be_delivered_is_ended(run: Run, served: Served, tmp_path: Path) -> None:
    done = await run("sam", "use", "orders-production", *WHAT, *WHY, "--out", "/dev/full")
    assert done.exit_code == 2
    refused = await run("dana", "use", "orders-production", *WHAT, *WHY, "--out", str(tmp_path / "secret"))
    assert (refused.exit_code, "BREAK_GLASS_NOT_ALLOWED" in refused.stderr) == (3, True)
    assert not (tmp_path / "secret").exists() and not served.upstream.alive


async def test_codes_from_two_people_to_their_use(run: Run, served: Served, tmp_path: Path) -> None:
    asked = await run("kim", "codes", "create", "--person", "sam", "--count", "1", "--reason", "safe 3")
    batch = asked.stdout.strip()
    assert "wait for a second person" in (await run("kim", "codes", "list")).stdout
    alone = await run("kim", "codes", "create", "--confirm", batch)
    assert (alone.exit_code, "SECOND_PERSON_REQUIRED" in alone.stderr) == (3, True)
    made = await run("ravi", "codes", "create", "--confirm", batch)
    code = made.stdout.split()[0]
    assert "for Sam Lindqvist, once, until" in made.stdout
    # As somebody would type it.
    paper = private(tmp_path / "paper", code.lower().replace("-", " ") + "\n")
    by_code = ("--code-file", str(paper), "--as", "sam")
    done = await run("", "use", "orders-production", *WHAT, *WHY, "--out", str(tmp_path / "secret"), *by_code)
    assert done.exit_code == 0, done.stderr
    lease = done.stdout.split()[0]
    ended = await run("", "end", lease, *by_code)
    assert "REVOKED" in ended.stdout, ended.output
    assert "USED" in (await run("kim", "codes", "list")).stdout
    again = await run("", "use", "orders-production", *WHAT, *WHY, "--out", str(tmp_path / "more"), *by_code)
    assert (again.exit_code, "BREAK_GLASS_CODE_SPENT" in again.stderr) == (3, True)
    assert (await run("kim", "codes", "revoke", batch)).stdout == "0 revoked\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("use", "orders-production", *WHAT, *WHY),
        ("use", "orders-production", *WHAT, *WHY, "--reveal", "--as", "sam"),
        ("use", "orders-production", *WHAT, "--reason", "x", "--reveal"),
        ("codes", "create"),
        ("codes", "create", "--person", "sam", "--confirm", "batch-1"),
        ("override", "everything", "x", "--for", "sam", "--reason", "x"),
    ],
)
async def test_what_is_no_use(run: Run, served: Served, arguments: tuple[str, ...]) -> None:
    assert (await run("sam", *arguments)).exit_code == 2
    assert not served.upstream.alive


async def test_two_people_pass_over_a_suspension(run: Run, served: Served, tmp_path: Path) -> None:
    environment = {
        "BROKER_ADMIN_ADDRESS": f"127.0.0.1:{served.daemon.doors.admin_port}",
        "BROKER_SERVER_NAME": "localhost",
        "BROKER_ADMIN_BUNDLE": str(served.root / "client" / "bundle.pem"),
        **logged_in(served, "kim"),
    }
    stop = ("suspend", "template", "orders-production", "--reason", "odd", "--format", "json")
    stopped = await asyncio.to_thread(CliRunner().invoke, command, stop, env=environment)
    suspension = json.loads(stopped.stdout)["id"]
    out = ("--out", str(tmp_path / "secret"))
    refused = await run("sam", "use", "orders-production", *WHAT, *WHY, *out)
    assert "SUSPENDED" in refused.stderr and f"broker break-glass override suspension {suspension}" in refused.stderr
    given = await run("kim", "override", "suspension", suspension, "--for", "sam", "--reason", "it cannot wait")
    assert "1 of 1: sam can break glass" in given.stdout, given.output
    assert (await run("sam", "use", "orders-production", *WHAT, *WHY, *out)).exit_code == 0
