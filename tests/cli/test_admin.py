"""The people's commands against a brokerd, as a person types them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from click.testing import Result

from broker.api.v1 import broker_service_pb2 as pb
from broker.api.v1 import lease_forgetting_pb2 as forgetting_pb
from broker.client import calls
from broker.dev.loopback import free_port
from broker.lease.credential import ContractClass
from tests.api.served import (
    ANALYST,
    CA,
    Served,
    ask,
    fresh,
    person,
    private,
    reason,
    start_task,
)
from tests.cli.at_the_door import at_the_door, served_quietly
from tests.cli.logging_in import visit
from tests.connectors.fake import RevokeMishap, contract
from tests.forge import authority
from tests.patience import eventually

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with served_quietly(tmp_path) as running:
        yield running


@pytest.fixture
def run(served: Served, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command as ``who``."""
    monkeypatch.setattr("broker.cli.person.open_browser", visit)
    monkeypatch.setattr("broker.client.admin.RETRY_WAITS", tuple(wait / 100 for wait in calls.RETRY_WAITS))
    return at_the_door(served, monkeypatch)


async def test_who_one_is(run: Run) -> None:
    done = await run("kim", "operator", "whoami", "--format", "json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["key"], told["displayName"], told["roles"]) == ("kim", "Kim Adeyemi", ["security"])
    assert "roles             security" in (await run("kim", "operator", "whoami")).stdout


async def test_what_is_missing_or_wrong_is_told_with_what_to_do(run: Run, served: Served, tmp_path: Path) -> None:
    stranger = private(tmp_path / "stranger.pem", authority("x.org", at=CA.at).pem)
    for changes, code, told in (
        ({"BROKER_ADMIN_TOKEN_FILE": str(tmp_path / "absent")}, 3, "cannot be read: No such file"),
        ({"BROKER_ADMIN_TOKEN_FILE": str(private(tmp_path / "other", "c2VjcmV0"))}, 3, "ID_TOKEN_MALFORMED"),
        ({"BROKER_ADMIN_ADDRESS": ""}, 2, "Set BROKER_ADMIN_ADDRESS"),
        ({"BROKER_ADMIN_ADDRESS": f"127.0.0.1:{free_port()}"}, 4, "is BROKER_ADMIN_ADDRESS its address?"),
        ({"BROKER_ADMIN_ADDRESS": f"127.0.0.1:{served.port}"}, 4, "people's port"),
        ({"BROKER_ADMIN_BUNDLE": ""}, 2, "There is nothing to believe the broker by"),
        ({"BROKER_ADMIN_BUNDLE": str(stranger)}, 4, "BROKER_UNTRUSTED"),
        ({"BROKER_SERVER_NAME": "elsewhere"}, 4, "BROKER_NAME_MISMATCH"),
    ):
        done = await run("kim", "operator", "whoami", **changes)
        assert (done.exit_code, told in done.stderr.replace("\n", " ")) == (code, True), (changes, done.stderr)
        assert "c2VjcmV0" not in done.output


async def test_stopping_and_starting_again(run: Run, served: Served) -> None:
    assert (await run("kim", "suspensions")).stdout == "nothing is suspended\n"
    agent = served.stub()
    await agent.RequestCredential(ask(await start_task(agent)))
    done = await run("kim", "suspend", "agent", ANALYST, "--reason", "it went mad", "--for", "2h")
    assert (done.exit_code, done.stderr) == (0, "")
    suspension, _, told = done.stdout.partition("  ")
    assert told.startswith(f"agent {ANALYST} is suspended until ")
    # What is revoked at once may be gone, or not, when it is looked at.
    assert "; 1 credential being revoked\n" in told
    (header, line) = (await run("dana", "suspensions")).stdout.splitlines()
    assert header.split() == ["SUSPENSION", "WHAT", "STATE", "SINCE", "BY", "REASON"]
    assert line.startswith(f"{suspension}  agent {ANALYST}  IN_FORCE until ")
    assert line.endswith("Kim Adeyemi  it went mad")
    done = await run("sam", "resume", suspension, "--reason", "fixed")
    assert done.stdout == f"{suspension}  agent {ANALYST} is not suspended by this any more\n"
    done = await run("sam", "resume", suspension, "--reason", "fixed")
    assert (done.exit_code, "SUSPENSION_ENDED" in done.stderr) == (3, True)
    (over,) = json.loads((await run("kim", "suspensions", "--all", "--format", "json")).stdout)
    assert (over["state"], over["resumedBy"]) == ("LIFTED", "https://id.dev.broker.internal#sam")


async def test_what_lives_on_is_told_to_who_stops_it(run: Run, served: Served) -> None:
    agent = served.stub()
    task = await start_task(agent)
    served.upstream.contract = contract(ContractClass.EXPIRY_ONLY)
    await agent.RequestCredential(ask(task))
    lines = (await run("kim", "suspend", "agent", ANALYST, "--reason", "mad")).stdout.splitlines()
    assert lines[0].endswith("; 1 credential being revoked")
    assert lines[1].startswith("  openbao-orders: 1 may still work, the last one until ")
    assert lines[1].endswith(": EXPIRY_ONLY, nothing ends it before")
    served.upstream.contract = replace(served.upstream.contract, on_revoke=timedelta(minutes=5))
    (_, line) = (await run("kim", "suspend", "everything", "--reason", "mad")).stdout.splitlines()
    assert line.startswith("  openbao-orders: 1 may still work, for at most 5m")
    done = json.loads((await run("kim", "suspend", "task", task, "--reason", "mad", "--format", "json")).stdout)
    assert done["stillAliveUnknown"] is False
    (alive,) = done["stillAlive"]
    assert (done["attemptsEnded"], done["unknownValue"], done["kind"]) == (0, False, "TASK")
    assert (alive["connector"], alive["credentials"], alive["contractClass"]) == ("openbao-orders", 1, "EXPIRY_ONLY")


async def test_what_cannot_be_read_is_not_told_as_nothing(
    run: Run, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop stands and says so, whatever becomes of the look at what lives on: a time that somebody wrote, say."""

    async def absurd(*_: object) -> None:
        raise ValueError("year 36536598 is out of range")

    monkeypatch.setattr(served.daemon._store, "still_alive", absurd)
    lines = (await run("kim", "suspend", "agent", ANALYST, "--reason", "mad")).stdout.splitlines()
    assert lines[0].endswith("; 0 credentials being revoked")
    assert lines[1:] == ["  what may still work could not be read: broker admin leases --living"]


async def test_what_only_rotation_ends_is_not_said_to_end_with_its_lease(run: Run, served: Served) -> None:
    agent = served.stub()
    served.upstream.contract = contract(ContractClass.EXPIRY_ONLY)
    await agent.RequestCredential(ask(await start_task(agent)))
    served.upstream.contract = contract(ContractClass.STATIC)
    served.upstream.revoke_mishaps.append(RevokeMishap.BUSY)  # else it may have ended before it is looked at
    (_, line) = (await run("kim", "suspend", "everything", "--reason", "mad")).stdout.splitlines()
    assert line == "  openbao-orders: 1 may still work until somebody rotates it: STATIC, nothing else ends it"


async def test_everything_and_the_second_person(run: Run) -> None:
    done = await run("kim", "suspend", "everything", "--reason", "fire", "--request-id", "one")
    again = await run("kim", "suspend", "everything", "--reason", "fire", "--request-id", "one")
    suspension = done.stdout.partition("  ")[0]
    assert done.stdout == f"{suspension}  everything is suspended; 0 credentials being revoked\n" == again.stdout
    done = await run("sam", "resume", suspension, "--reason", "out")
    assert done.stdout == f"{suspension}  everything stays suspended: a second person has to resume it too\n"
    done = await run("sam", "resume", suspension, "--reason", "really")
    assert done.exit_code == 3
    assert "SECOND_PERSON_REQUIRED: Sam Lindqvist has already said" in done.stderr
    assert f"broker resume {suspension}" in done.stderr
    done = await run("kim", "resume", suspension, "--reason", "out")
    assert "not suspended by this any more" in done.stdout


async def test_what_cannot_be_stopped_so_is_told(run: Run) -> None:
    for who, arguments, code, told in (
        ("kim", ("king", "x", "--reason", "r"), 2, "'king' is not one of 'agent', 'entry', 'owner'"),
        ("kim", ("agent", "analyst", "--reason", "r"), 3, "SUSPENSION_VALUE_INVALID"),
        ("kim", ("agent", ANALYST), 2, "Missing option '--reason'"),
        ("kim", ("agent", ANALYST, "--reason", "r", "--for", "0s"), 2, "--for"),
        ("kim", ("agent", ANALYST, "--reason", "r", "--for", "4000d"), 3, "duration"),
        ("dana", ("agent", ANALYST, "--reason", "r"), 3, "ROLE_REQUIRED"),
    ):
        done = await run(who, "suspend", *arguments)
        assert (done.exit_code, told in done.stderr) == (code, True), (arguments, done.stderr)
    done = await run("kim", "suspend", "template", "orders-readnoly", "--reason", "r")
    assert done.exit_code == 0
    assert "is it spelt as you mean it?" in done.stderr


async def test_live_leases_that_would_not_be_granted_any_more(served: Served, run: Run) -> None:
    agent = served.stub()
    task = await start_task(agent)
    lease = (await agent.RequestCredential(ask(task))).lease
    done = await run("sam", "leases", "review")
    assert (done.exit_code, done.stdout) == (0, "every live lease would be granted again\n")

    closed = '@id("closed") @reason("Orders are closed.") forbid (principal, action, resource);\n'
    (served.root / "deploy" / "policies" / "closed.cedar").write_text(closed)
    await served.daemon.reload()

    async def reported() -> bool:
        return any(record["type"] == "lease.policy_tightened" for record in await served.audit())

    await eventually(reported)
    seen = await agent.GetLease(pb.GetLeaseRequest(lease_id=lease.id))
    assert (seen.policy_tightened.outcome, list(seen.policy_tightened.policies)) == ("DENY", ["closed"])
    assert lease.attempt_id in served.upstream.alive

    assert (await run("dana", "leases", "review")).exit_code != 0
    done = await run("sam", "leases", "review", "--revoke")
    assert done.exit_code == 0, done.stderr
    assert all(text in done.stdout for text in (lease.id, ANALYST, "DENY by closed", "revoking", "Orders are closed."))
    assert len([record for record in await served.audit() if record["type"] == "lease.policy_tightened"]) == 1

    async def dead() -> bool:
        return lease.attempt_id not in served.upstream.alive

    await eventually(dead)
    listed = json.loads((await run("sam", "leases", "review", "--format", "json")).stdout)
    assert listed == []


async def test_what_agents_said_is_read_and_erased_by_whom_it_concerns(run: Run, served: Served) -> None:
    stub = served.stub(ANALYST)
    task = await start_task(stub)
    await stub.RequestCredential(ask(task, prompt="count\x1b[2J them", plan="one\ntwo"))
    refused = await run("sam", "audit", "texts", task)
    assert (refused.exit_code, "ROLE_REQUIRED" in refused.stderr) == (3, True)
    told = await run("kim", "audit", "texts", task)
    assert told.stdout.splitlines()[1:] == [
        "  prompt:",
        "    count<U+001B>[2J them",
        "  plan:",
        "    one",
        "    two",
    ]
    (text,) = json.loads((await run("kim", "audit", "texts", task, "--format", "json")).stdout)
    assert (text["prompt"], text["cut"]) == ("count\x1b[2J them", [])
    assert "Erased." in (await run("kim", "audit", "erase-texts", task, "--reason", "asked for by the client")).stderr
    assert "Nothing is kept" in (await run("kim", "audit", "texts", task)).stderr
    kinds = [each["type"] for each in await served.audit() if each["type"].startswith("texts.")]
    assert kinds == ["texts.read", "texts.read", "texts.erased", "texts.read"]
    assert "TASK_NOT_FOUND" in (await run("kim", "audit", "texts", "task-none")).stderr


async def test_a_lease_is_forgotten_by_the_roles_that_may(run: Run) -> None:
    said = ("leases", "forget", "lease-1", "--reason", "the cluster is gone")
    done = await run("dana", *said)
    assert (done.exit_code, "ROLE_REQUIRED" in done.stderr) == (3, True)
    done = await run("kim", *said)
    assert (done.exit_code, "LEASE_NOT_FOUND" in done.stderr) == (3, True)
    assert (await run("kim", "leases", "forget", "lease-1")).exit_code == 2


async def test_a_lease_is_not_forgotten_on_a_login_that_was_for_something_else(served: Served) -> None:
    kim = person(served, "kim")
    asked = forgetting_pb.ForgetLeaseRequest(lease_id="lease-1", reason="gone")
    for token, expected in (
        ("", "FRESH_LOGIN_REQUIRED"),
        (fresh(served, "kim", "ForgetLease", lease_id="lease-1", reason="other"), "ID_TOKEN_NONCE"),
        (fresh(served, "kim", "ResumeSuspension", lease_id="lease-1", reason="gone"), "ID_TOKEN_NONCE"),
    ):
        asked.fresh_id_token = token
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await kim.ForgetLease(asked)
        assert reason(refused.value)[1] == expected


async def test_the_trail_is_taken_elsewhere_through_the_door(run: Run, served: Served, tmp_path: Path) -> None:
    for number in range(3):
        await start_task(served.stub(ANALYST), f"t{number}")
    out = tmp_path / "trail.jsonl"
    refused = await run("sam", "audit", "export")
    assert (refused.exit_code, "ROLE_REQUIRED" in refused.stderr) == (3, True)
    for _ in range(2):
        assert (await run("kim", "audit", "export", "--output", str(out), "--format", "records")).exit_code == 0
        await start_task(served.stub(ANALYST), "one-more")
    taken = [json.loads(line) for line in out.read_text().splitlines()]
    assert [each["seq"] for each in taken] == list(range(1, len(taken) + 1))
    assert [each for each in await served.audit() if each["seq"] <= len(taken)] == taken
    assert sum(each["type"] == "task.started" for each in taken) == 4
