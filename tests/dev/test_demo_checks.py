"""The demo cannot come true on a broken world: each step, honest once, then cheated in every way it must notice."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.audit.event import AuditEvent, EventType, Vouch
from broker.cli.demo import aws, trail
from broker.cli.demo.completion import (
    completion_defeats_a_reconnect_loop,
    completion_ends_it,
    completion_takes_what_it_made,
)
from broker.cli.demo.database import enter, refusing_words, turned_away
from broker.cli.demo.deadlines import time_ends_it, time_ends_it_without_the_broker
from broker.cli.demo.narrator import Narrator, StepFailed, refusal
from broker.cli.demo.reading import cannot_write, reads
from broker.cli.demo.refusals import hides_from_others, refuses_with_reasons
from broker.cli.demo.story import STORY, Step, play
from broker.cli.demo.world import READ_ORDERS, World
from broker.dev.loopback import free_port
from broker.dev.postgres import PostgresFacts
from broker.errors import Denied, InvalidInput, NotReady, Reason
from broker.keys import FileKeyRing, new_key
from broker.lease.credential import AwsSession
from broker.secret import Secret
from broker.stores.sqlite import SqliteStore
from tests.clock import START
from tests.dev.demo_world import Cheat, a_world
from tests.patience import PATIENCE

Play = Callable[[World], Awaitable[None]]


async def reading(world: World) -> None:
    """The first step without its SVID, which the fake has none of."""
    analyst = world.agent("analyst")
    async with analyst.task("read") as task:
        grant = await world.ask(analyst, READ_ORDERS, task.id)
        async with await enter(grant.conninfo()) as session:
            await reads(world, session)
            await cannot_write(world, session)


HONEST: tuple[Play, ...] = (
    reading,
    refuses_with_reasons,
    hides_from_others,
    completion_ends_it,
    completion_defeats_a_reconnect_loop,
    completion_takes_what_it_made,
    time_ends_it,
    time_ends_it_without_the_broker,
)
CHEATED: tuple[tuple[Play, Cheat, str], ...] = (
    (reading, Cheat.WRITE_ALLOWED, "carried out a DELETE"),
    (refuses_with_reasons, Cheat.GRANTS_ALL, "was not refused"),
    (refuses_with_reasons, Cheat.WRONG_REASON, "refused for PARAMETER_INVALID"),
    (refuses_with_reasons, Cheat.REFUSES_AND_ISSUES, "Nothing was issued"),
    (hides_from_others, Cheat.LEASE_SEEN_BY_ALL, "attempt to see the lease was not refused"),
    (hides_from_others, Cheat.LEASE_LISTED_TO_ALL, "list of leases does not have it"),
    (hides_from_others, Cheat.TASK_ENDED_BY_ANYBODY, "attempt to complete the task was not refused"),
    (hides_from_others, Cheat.IDS_CAN_BE_PROBED, "can tell a real id from a made-up one"),
    (completion_ends_it, Cheat.LOGIN_LIVES, "still lets the login in"),
    (completion_ends_it, Cheat.SESSION_LIVES, "the open session still answers"),
    (completion_ends_it, Cheat.LOGIN_REOPENS, "still lets the login in"),
    (completion_ends_it, Cheat.SAYS_ACTIVE, "its leases are"),
    (completion_defeats_a_reconnect_loop, Cheat.LOGIN_LIVES, "it did not stay so"),
    (completion_defeats_a_reconnect_loop, Cheat.SESSION_LIVES, "it did not stay so"),
    (completion_defeats_a_reconnect_loop, Cheat.LOGIN_REOPENS, "it did not stay so"),
    (completion_defeats_a_reconnect_loop, Cheat.LOGIN_STILLBORN, "the loop gets in"),
    (completion_takes_what_it_made, Cheat.TABLE_LIVES, "the table is still there"),
    (completion_takes_what_it_made, Cheat.LOGIN_LIVES, "its login still works"),
    (time_ends_it, Cheat.NO_DEADLINE, "not so within"),
    (time_ends_it, Cheat.LOGIN_STILLBORN, "did not work to begin with"),
)


@pytest.fixture
def no_broker() -> dict[str, Any]:
    """Facts of a stack whose brokerd is dead."""
    return {"api_port": free_port()}


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's waits, shorter: the fake ends a login in milliseconds, and one that lives must only outlive these."""
    monkeypatch.setattr("broker.cli.demo.completion._AFTERMATH_SECONDS", 0.5)
    monkeypatch.setattr("broker.cli.demo.deadlines.TTL", timedelta(seconds=1.5))
    # What must come, however slow the machine is today.
    monkeypatch.setattr("broker.cli.demo.database._CONNECT_SECONDS", int(PATIENCE))
    monkeypatch.setattr("broker.cli.demo.completion._LOOP_SECONDS", PATIENCE)


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("step", HONEST, ids=lambda step: step.__name__)
async def test_it_comes_true_where_all_is_well(
    step: Play, postgres_server: PostgresFacts, no_broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.cli.demo.deadlines._LATE", timedelta(seconds=PATIENCE))
    for seconds in (1.5, 10, 60):  # the TTL of the steps that have one; a busy machine may take as long
        monkeypatch.setattr("broker.cli.demo.deadlines.TTL", timedelta(seconds=seconds))
        begun = time.monotonic()
        try:
            await _comes_true(step, postgres_server, no_broker)
            return
        except StepFailed:
            if time.monotonic() - begun < seconds:
                raise
    raise AssertionError("a minute was not enough")


async def _comes_true(step: Play, postgres_server: PostgresFacts, no_broker: Any) -> None:
    async with a_world(postgres_server, **no_broker) as world:
        before = await world.database.logins()
        await step(world)
        assert world.tell.checks >= 2
        # None of its own is left; what other tests left of theirs may have ended meanwhile.
        assert await world.database.logins() <= before


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize(("step", "cheat", "words"), CHEATED, ids=lambda each: getattr(each, "__name__", None))
@pytest.mark.slow
async def test_it_does_not_come_true_on_a_broken_world(
    step: Play, cheat: Cheat, words: str, postgres_server: PostgresFacts, no_broker: Any, monkeypatch: Any
) -> None:
    if cheat is Cheat.LOGIN_STILLBORN:  # the loop never gets in
        monkeypatch.setattr("broker.cli.demo.completion._LOOP_SECONDS", 1.0)
    async with a_world(postgres_server, cheat, **no_broker) as world:
        with pytest.raises(StepFailed, match=words):
            await step(world)


def test_every_cheat_is_tried() -> None:
    assert {cheat for _, cheat, _ in CHEATED} == set(Cheat) - {Cheat.NONE}


async def test_brokerd_must_really_be_dead(postgres_server: PostgresFacts) -> None:
    async with a_world(postgres_server, api_port=postgres_server.port) as world:
        with pytest.raises(StepFailed, match="killed with -9"):
            await time_ends_it_without_the_broker(world)


# --------------------------------------------------------------------------- PostgreSQL's words


async def test_a_server_that_is_down_refuses_nobody(postgres_server: PostgresFacts) -> None:
    nobody = replace(postgres_server, port=free_port())
    with pytest.raises(StepFailed, match="neither let the login in nor refused it"):
        await turned_away(nobody.conninfo())
    assert await turned_away(postgres_server.conninfo(password=Secret("wrong"))) is not None
    assert await turned_away(postgres_server.conninfo()) is None


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        ('FATAL:  password authentication failed for user "a"', True),
        ('FATAL:  role "a" is not permitted to log in', True),
        ('FATAL:  role "a" does not exist', True),
        ("FATAL:  sorry, too many clients already", False),
        ("FATAL:  the database system is starting up", False),
        ("connection refused", False),
    ],
)
def test_only_a_refusal_of_the_login_is_one(said: str, refused: bool) -> None:
    if refused:
        assert refusing_words(f"connection failed: {said}") in said
    else:
        with pytest.raises(StepFailed):
            refusing_words(f"connection failed: {said}")


# --------------------------------------------------------------------------- AWS

ENDS = datetime(2026, 1, 1, 12, 0, 6, tzinfo=UTC)
ALLOW = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::orders-reports/daily/2026-01-31/*"]}
DEADLINE = {
    "Effect": "Deny",
    "Action": "*",
    "Resource": "*",
    "Condition": {"DateGreaterThanEquals": {"aws:CurrentTime": "2026-01-01T12:00:06Z"}},
}
NO_STS = {"Effect": "Deny", "Action": "sts:*", "Resource": "*"}
LATER = {**DEADLINE, "Condition": {"DateGreaterThanEquals": {"aws:CurrentTime": "2026-01-01T12:15:00Z"}}}


def session_with(*statements: dict[str, Any]) -> AwsSession:
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    return AwsSession("AKIA", Secret("secret-key"), Secret("session-token"), "eu-central-1", "arn", policy)


async def test_a_session_policy_must_be_narrow(postgres_server: PostgresFacts) -> None:
    async with a_world(postgres_server) as world:
        aws.policy_is_narrow(world, session_with(ALLOW, DEADLINE, NO_STS), ENDS)
        for wide, words in [
            ((ALLOW, NO_STS), "denies everything"),
            ((ALLOW, LATER, NO_STS), "denies everything"),
            ((ALLOW, {**DEADLINE, "Effect": "Allow"}, NO_STS), "denies everything"),
            ((ALLOW, DEADLINE), "denies STS"),
            (({**ALLOW, "Resource": ["*"]}, DEADLINE, NO_STS), "nothing else"),
            (({**ALLOW, "Action": ["s3:*"]}, DEADLINE, NO_STS), "nothing else"),
        ]:
            with pytest.raises(StepFailed, match=words):
                aws.policy_is_narrow(world, session_with(*wide), ENDS)


@pytest.mark.parametrize(
    ("end_after", "said"),
    [("REVOKED", "REVOKED"), ("EXPIRED", "before its deadline")],
)
async def test_a_session_is_never_revoked_and_never_early(
    end_after: str, said: str, postgres_server: PostgresFacts
) -> None:
    async with a_world(postgres_server) as world:
        reporter = world.agent("reporter")
        task = await reporter.start_task("report")
        grant = await world.ask(reporter, READ_ORDERS, task.id)
        broker: Any = reporter
        broker._broker.leases[grant.lease.id] = replace(grant.lease, state=end_after)
        with pytest.raises(StepFailed, match="the lease went through"):
            await aws.expires(world, grant.lease.id, world.clock.now() + timedelta(seconds=60))


# --------------------------------------------------------------------------- the audit trail


async def a_ledger(directory: Path, records: int) -> dict[str, Any]:
    key = directory / "mac.key"
    key.write_text(new_key())
    key.chmod(0o600)
    ledger = directory / "ledger.sqlite3"
    store = await SqliteStore.open(ledger, FileKeyRing([f"file:{key}"]), writer="test")
    event = AuditEvent(EventType.DAEMON_STARTED, "broker", Vouch.BROKER, tenant="dev")
    for _ in range(records):
        await store.append([event], START)
    await store.close()
    return {"ledger": ledger, "mac_key": key, "state": directory}


@pytest.fixture
def private(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


async def test_the_flipped_byte_must_be_found(
    postgres_server: PostgresFacts, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = await a_ledger(private, 9)
    async with a_world(postgres_server, **facts) as world:
        await trail.audit_verifies(world)
        assert world.tell.checks == 3
        (private / "copy-of-ledger.sqlite3").unlink()
        monkeypatch.setattr(trail, "flip_a_byte", lambda ledger, sequence: 0)
        with pytest.raises(StepFailed, match="a byte of record 4 was flipped"):
            await trail.audit_verifies(world)


async def test_a_damaged_trail_does_not_verify(postgres_server: PostgresFacts, private: Path) -> None:
    facts = await a_ledger(private, 9)
    trail.flip_a_byte(facts["ledger"], 3)
    async with a_world(postgres_server, **facts) as world:
        with pytest.raises(StepFailed, match=r"the audit trail does not verify: .*record 3"):
            await trail.audit_verifies(world)


async def test_an_empty_trail_proves_nothing(postgres_server: PostgresFacts, private: Path) -> None:
    async with a_world(postgres_server, **await a_ledger(private, 0)) as world:
        with pytest.raises(StepFailed):
            await trail.audit_verifies(world)


# --------------------------------------------------------------------------- telling


def told() -> tuple[Narrator, list[str]]:
    lines: list[str] = []
    return Narrator(lines.append), lines


def test_what_is_not_so_is_not_told_as_checked() -> None:
    narrator, lines = told()
    narrator.checked(True, "the sky is up")
    with pytest.raises(StepFailed, match="this is not so: the sky is down"):
        narrator.checked(False, "the sky is down")
    with pytest.raises(StepFailed, match=r"^it is up$"):
        narrator.checked(False, "the sky is down", "it is up")
    assert (lines, narrator.checks) == (["    ok  the sky is up"], 1)


def test_a_secret_is_not_told() -> None:
    narrator, lines = told()
    narrator.hide(Secret("hunter2hunter2"))
    for tell in (narrator.told, narrator.line, lambda text: narrator.title(1, text)):
        with pytest.raises(StepFailed, match="held a secret"):
            tell("the password is hunter2hunter2, do not tell")
    assert lines == []


async def test_a_refusal_is_the_one_that_was_expected() -> None:
    async def denied() -> None:
        raise Denied(Reason.POLICY_DENIED, "No.")

    async def granted() -> str:
        return "here you are"

    assert (await refusal(denied(), Reason.POLICY_DENIED, "it")).message == "No."
    with pytest.raises(StepFailed, match="refused for POLICY_DENIED"):
        await refusal(denied(), Reason.TTL_TOO_LONG, "it")
    with pytest.raises(StepFailed, match="it was not refused"):
        await refusal(granted(), Reason.POLICY_DENIED, "it")


async def nothing(world: World) -> None:
    world.tell.told("la la la")


async def unreachable(world: World) -> None:
    raise NotReady(Reason.BROKER_UNREACHABLE, "Nobody is there.")


async def broken(world: World) -> None:
    raise InvalidInput(Reason.FIELD_INVALID, "Wrong.")


async def one_check(world: World) -> None:
    world.tell.checked(True, "so it is")


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (nothing, "step 2, it: nothing was checked"),
        (unreachable, "step 2, it: NotReady: Nobody is there"),
        (broken, "step 2, it: InvalidInput: Wrong"),
    ],
)
async def test_a_story_ends_at_the_first_step_that_did_not_come_true(
    step: Play, words: str, postgres_server: PostgresFacts
) -> None:
    async with a_world(postgres_server) as world:
        with pytest.raises(StepFailed, match=words):
            await play(world, [Step("good", one_check), Step("it", step), Step("never", one_check)])
        assert world.tell.checks == 1


def test_the_story_is_whole() -> None:
    """What `make demo` must show; a step that is taken out is missed here."""
    assert [step.play.__name__ for step in STORY] == [
        "reads_but_cannot_write",
        "refuses_with_reasons",
        "hides_from_others",
        "completion_ends_it",
        "completion_defeats_a_reconnect_loop",
        "completion_takes_what_it_made",
        "time_ends_it",
        "time_ends_it_without_the_broker",
        "people_approve_it",
        "only_what_was_planned",
        "suspension_kills_it",
        "glass_is_broken",
        "contract_is_measured",
        "s3_session",
        "orphan_is_swept",
        "audit_verifies",
    ]
