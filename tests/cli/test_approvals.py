"""Deciding on the command line, against a brokerd: what is shown and asked, and what an agent's words cannot do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from broker.api.v1 import access_request_pb2 as requests_pb
from tests.api.served import (
    ANALYST,
    CA,
    DECIDING,
    Served,
    approval,
    ask,
    gate,
    person,
    start_task,
    svid,
)
from tests.cli.at_the_door import Invoke, at_the_door, served_quietly
from tests.cli.logging_in import visit
from tests.client.fake_broker import svid_files
from tests.patience import PATIENCE

Run = Invoke
# Clears the screen, goes up, writes a line that looks like ours, and turns letters round.
PAINT = "\x1b[2J\x1b[1A\rStill missing\n  | nothing\u202e\u2028\x9b"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with served_quietly(tmp_path, roles=DECIDING) as running:
        gate(running, staging=("sre",))
        yield running


@pytest.fixture
def run(served: Served, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command as a person (``who``), or as the analyst."""
    monkeypatch.setattr("broker.cli.person.open_browser", visit)
    files = svid_files(served.root / "client" / "analyst", svid(ANALYST), CA)
    invoke, address = at_the_door(served, monkeypatch), f"127.0.0.1:{served.port}"

    async def asked(who: str, *words: str, typed: str = "") -> Result:
        if who == "analyst":
            return await invoke("", *files.options(), *words, typed=typed, BROKER_ADDRESS=address)
        return await invoke(who, *words, typed=typed, BROKER_ADDRESS=address)

    return asked


async def filed(served: Served, name: str = "r1", **changes: Any) -> Any:
    stub = served.stub(ANALYST)
    asked = ask(await start_task(stub, f"task-of-{name}"), name, **{"environment": "staging", **changes})
    return (await stub.RequestCredential(asked)).access_request


async def state(served: Served, request: Any) -> str:
    store = served.daemon._store
    assert store is not None
    return (await store.get_access_request("test", request.id)).state


async def test_listing_showing_and_approving(run: Run, served: Served) -> None:
    request = await filed(served, plan="1. look\n2. leave", reason="nightly")
    listed = await run("sam", "approvals", "list")
    assert request.id in listed.stdout
    shown = (await run("sam", "approvals", "show", request.id)).stdout
    order = [
        shown.index(each) for each in ("What the credential will", "Who asks", "Still missing", "CLAIMED by", "plan")
    ]
    assert order == sorted(order)
    for told in ("It can select on orders.", "owner Dana", "1 of operations", "reason: nightly", "  | 2. leave"):
        assert told in shown
    assert f"{request.digest[:12]} {request.digest[12:]}" in shown

    done = await run("sam", "approvals", "approve", request.id, typed=request.digest[:12] + "\n")
    assert done.exit_code == 0, done.stderr
    assert f"{request.id}  APPROVED" in done.stdout
    assert await state(served, request) == "APPROVED"


@pytest.mark.parametrize("typed", ["", "y", "yes", "0" * 12, "{first11}"])
async def test_a_yes_takes_the_digest(run: Run, served: Served, typed: str) -> None:
    request = await filed(served)
    typed = typed.replace("{first11}", request.digest[:11])
    done = await run("sam", "approvals", "approve", request.id, typed=typed + "\n")
    assert done.exit_code != 0
    given = await run("sam", "approvals", "approve", request.id, "--digest", typed or "x")
    assert (given.exit_code, "APPROVAL_DIGEST_MISMATCH" in given.stderr) == (3, True)
    assert await state(served, request) == "AWAITING_APPROVAL"


async def test_an_agents_words_do_not_paint_the_approvers_terminal(run: Run, served: Served) -> None:
    request = await filed(served, plan=PAINT, reason=PAINT, intent=PAINT, tool_call=PAINT, step="\x1b]0;x\x07")
    for form in ("text", "json"):
        shown = (await run("sam", "approvals", "show", request.id, "--format", form)).stdout
        assert {each for each in shown if not (each.isprintable() or each == "\n")} == set()
        assert "<U+001B>[2J" in shown
    text = (await run("sam", "approvals", "show", request.id)).stdout
    # The only line that begins as a heading of ours is ours.
    assert [line for line in text.splitlines() if line.startswith("Still missing")] == ["Still missing"]
    asked = await run("sam", "approvals", "approve", request.id, typed="no\n")
    assert "\x1b" not in asked.output


async def test_denying_with_a_note_that_the_agent_reads(run: Run, served: Served) -> None:
    request = await filed(served)
    assert "DENIED" in (await run("sam", "approvals", "deny", request.id, "--note", "not tonight")).stdout
    assert "not tonight" in (await run("analyst", "requests", "show", request.id)).stdout
    assert request.id not in (await run("sam", "approvals", "list")).stdout
    assert request.id in (await run("sam", "approvals", "list", "--all")).stdout


async def test_the_agents_side(run: Run, served: Served, tmp_path: Path) -> None:
    stub = served.stub(ANALYST)
    task = await start_task(stub)
    asked = ["request", "--template", "orders-readonly", "--account", "dev", "--environment", "staging"]
    asked += ["--resource", "orders", "--ttl", "60s", "--intent", "count", "--task", task, "--request-id", "r1"]
    done = await run("analyst", *asked, "--out", str(tmp_path / "one.env"))
    assert (done.exit_code, "APPROVAL_NEEDED" in done.stderr) == (3, True)
    assert not (tmp_path / "one.env").exists()
    (request,) = json.loads((await run("analyst", "requests", "list", "--format", "json")).stdout)
    assert request["state"] == "AWAITING_APPROVAL"
    early = await run("analyst", "requests", "redeem", request["id"], "--out", str(tmp_path / "two.env"))
    assert (early.exit_code, "ACCESS_REQUEST_PENDING" in early.stderr) == (3, True)
    await run("sam", "approvals", "approve", request["id"], "--digest", request["digest"])
    done = await run("analyst", "requests", "redeem", request["id"], "--out", str(tmp_path / "three.env"))
    assert done.exit_code == 0, done.stderr
    assert "PGPASSWORD=" in (tmp_path / "three.env").read_text()
    again = await run("analyst", "requests", "redeem", request["id"], "--reveal")
    assert (again.exit_code, "ACCESS_REQUEST_REDEEMED" in again.stderr) == (3, True)
    other = await filed(served, "r2", reason="b")
    assert "WITHDRAWN" in (await run("analyst", "requests", "withdraw", other.id)).stdout


async def test_waiting_on_the_command_line(run: Run, served: Served, tmp_path: Path) -> None:
    out = tmp_path / "login.env"
    asked = ["--template", "orders-readonly", "--account", "dev", "--environment", "staging", "--resource", "orders"]
    asked += ["--ttl", "60s", "--intent", "count"]
    waiting = asyncio.create_task(
        run("analyst", "request", *asked, "--purpose", "p", "--wait", "60s", "--out", str(out))
    )
    # By the wire: two commands at once in one process would share their standard output.
    people = person(served, "sam")
    async with asyncio.timeout(PATIENCE):
        while not (page := await people.ListAccessRequests(requests_pb.ListAccessRequestsRequest())).access_requests:
            await asyncio.sleep(0.02)
    (request,) = page.access_requests
    await people.ApproveAccessRequest(approval(served, "sam", request))
    done = await waiting
    assert done.exit_code == 0, done.stderr
    assert "PGPASSWORD=" in out.read_text()
    # Who waits has whom to fetch, and what for.
    assert f"access request {request.id} waits for {request.approvals[0].missing}" in done.stderr
