"""Firing rules are answered, recorded with their evidence, and counted; what befalls honest agents is not."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from broker.audit.record import Record, decode
from broker.errors import (
    BrokerError,
    Conflict,
    Denied,
    Exhausted,
    NotFound,
    NotReady,
    Reason,
    UpstreamFailed,
    WrongState,
)
from broker.escalation.rules import Answer, Counts, Mode, Rule
from broker.identity.agent import Agent
from broker.issuance import escalation
from broker.issuance.escalation import Named, Suspend, Watch
from broker.ports.deploys import DeploySet
from broker.ports.leases import NamedIds
from tests.issuance.world import ALICE, BOB, EVE, TENANT, World

MINUTE = timedelta(minutes=1)
METHOD = "/broker.api.v1.BrokerService/RequestCredential"
DENIED = Denied(Reason.POLICY_DENIED, "no")


@dataclass
class Told:
    """Where firings are counted."""

    fired: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    dropped: int = 0

    def escalation(self, rule: str, mode: str, took: str) -> None:
        self.fired[rule, mode, took] += 1

    def unquestioned(self) -> None:
        self.dropped += 1


@dataclass
class Deployed:
    current: DeploySet


@dataclass
class Post:
    """A watch, and everything around it."""

    world: World
    told: Told
    watch: Watch

    async def refuse(self, who: Agent = ALICE, failure: BrokerError = DENIED, **named: str) -> None:
        ids = NamedIds(**{name: named.pop(name) for name in NamedIds._fields if name in named})
        await self.watch.refused(failure, METHOD, self.world.caller(who), Named(ids=ids, **named))

    def check(self, who: Agent = ALICE) -> None:
        self.watch.check(str(who.spiffe_id), self.world.clock.now())

    async def firings(self) -> list[Record]:
        records = [decode(body) for body in await self.world.store.audit_since(0, 10_000)]
        return [record for record in records if record.type == "escalation.detected"]


def rule(answer: Answer = Answer.COOL_DOWN, **changes: object) -> Rule:
    made = Rule("r", Counts.REFUSALS, 3, MINUTE, Mode.ENFORCE, answer, cool_down=5 * MINUTE)
    return replace(made, **changes)  # type: ignore[arg-type]


def post(world: World, *rules: Rule, suspend: Suspend | None = None) -> Post:
    told = Told()
    deploy = Deployed(replace(world.deploy, escalation=rules))
    return Post(world, told, Watch(world.store, deploy, told, world.clock, TENANT, suspend))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = await World.open(tmp_path)
    yield world
    await world.close()


async def test_one_who_is_refused_too_much_cools_down(world: World) -> None:
    at = post(world, rule())
    for _ in range(2):
        await at.refuse()
        at.check()
    world.clock.advance(timedelta(seconds=10))
    await at.refuse(request_id="r3", template="orders-read")
    with pytest.raises(Exhausted) as refused:
        at.check()
    assert refused.value.reason is Reason.COOLING_DOWN
    assert refused.value.retry_after == 300
    at.check(BOB)
    world.clock.advance(timedelta(minutes=5))
    at.check()
    assert at.told.fired == {("r", "enforce", "cool_down"): 1}


async def test_the_evidence_is_recorded(world: World) -> None:
    at = post(world, rule())
    await at.refuse(request_id="r1", template="orders-read")
    world.clock.advance(timedelta(seconds=1))
    for name in "23":
        await at.refuse(failure=Denied(Reason.TOOL_NOT_ALLOWED, "no"), request_id=f"r{name}", template="orders-read")
    (event,) = await at.firings()
    assert (event.actor, event.vouched_by, event.tenant) == ("broker", "broker", TENANT)
    assert event.data == {
        "rule": "r",
        "mode": "enforce",
        "answer": "cool_down",
        "took": "cool_down",
        "agent": "spiffe://test/agent/alice",
        "entry": "alice",
        "counts": "refusals",
        "count": 3,
        "within_ms": 60_000,
        "first": "2026-01-01T00:00:00.000+00:00",
        "last": "2026-01-01T00:00:01.000+00:00",
        "reasons": {"POLICY_DENIED": 1, "TOOL_NOT_ALLOWED": 2},
        "methods": ["RequestCredential"],
        "templates": ["orders-read"],
        "request_ids": ["r1", "r2", "r3"],
    }


@pytest.mark.parametrize(
    ("changes", "took"),
    [
        ({"mode": Mode.OBSERVE}, "none"),
        ({"mode": Mode.OBSERVE, "answer": Answer.SUSPEND}, "none"),
        ({"answer": Answer.ALERT}, "alert"),
    ],
)
async def test_what_is_only_told(world: World, changes: dict[str, object], took: str) -> None:
    suspended: list[str] = []

    async def suspend(tenant: str, who: str, why: str, now: datetime) -> None:
        suspended.append(who)

    at = post(world, rule(**changes), suspend=suspend)  # type: ignore[arg-type]
    for _ in range(10):
        await at.refuse()
        at.check()
    assert [event.data["took"] for event in await at.firings()] == [took]  # once per window
    assert suspended == []


async def test_suspending_the_one_identity(world: World) -> None:
    calls: list[tuple[str, ...]] = []

    async def suspend(tenant: str, who: str, why: str, now: datetime) -> None:
        calls.append((tenant, who, why))

    at = post(world, rule(Answer.SUSPEND), suspend=suspend)
    for _ in range(3):
        await at.refuse()
    assert calls == [(TENANT, "spiffe://test/agent/alice", "escalation rule r: 3 refusals within 0:01:00")]
    assert at.told.fired == {("r", "enforce", "suspend"): 1}


async def _failing(tenant: str, who: str, why: str, now: datetime) -> None:
    raise NotReady(Reason.STORE_UNAVAILABLE, "the disk is full")


@pytest.mark.parametrize("suspend", [None, _failing])
async def test_where_nobody_can_suspend_it_cools_down(world: World, suspend: Suspend | None) -> None:
    at = post(world, rule(Answer.SUSPEND), suspend=suspend)
    for _ in range(3):
        await at.refuse()
    with pytest.raises(Exhausted) as refused:
        at.check()
    assert refused.value.retry_after == 3600
    assert at.told.fired == {("r", "enforce", "cool_down"): 1}


@pytest.mark.parametrize(
    "failure",
    [
        NotReady(Reason.STORE_UNAVAILABLE, ""),
        NotReady(Reason.REVOKER_STALLED, ""),
        UpstreamFailed(Reason.UPSTREAM_UNAVAILABLE, ""),
        UpstreamFailed(Reason.PREVIOUS_ATTEMPT_LIVE, "", outcome_known=True),
        Conflict(Reason.REQUEST_IN_FLIGHT, ""),
        WrongState(Reason.TASK_ENDED, ""),
        WrongState(Reason.LEASE_ENDED, ""),
        Exhausted(Reason.QUOTA_REQUESTS, ""),
        Exhausted(Reason.COOLING_DOWN, ""),
    ],
)
async def test_a_burst_of_honest_retries_after_an_outage_does_not_fire(world: World, failure: BrokerError) -> None:
    at = post(world, rule(threshold=1), rule(name="t", counts=Counts.TEMPLATES, threshold=1))
    for number in range(500):
        await at.refuse(failure=failure, request_id=f"r{number}", template="orders-read")
    at.check()
    assert await at.firings() == []


async def test_a_cool_down_is_not_shortened_by_a_second_rule(world: World) -> None:
    long, short = rule(name="long", threshold=1, cool_down=60 * MINUTE), rule(name="short", threshold=2)
    at = post(world, long, short)
    await at.refuse()
    await at.refuse()
    with pytest.raises(Exhausted) as refused:
        at.check()
    assert refused.value.retry_after == 3600


@pytest.fixture
async def guessing(world: World) -> AsyncIterator[Post]:
    at = post(world, rule(counts=Counts.FOREIGN_IDS))
    running = asyncio.create_task(at.watch.run())
    yield at
    running.cancel()


async def not_found(at: Post, who: Agent, task_id: str) -> BrokerError:
    """Ask for a task as the door would: the desk refuses, and the watch hears of it."""
    with pytest.raises(NotFound) as refused:
        await at.world.tasks.get(at.world.caller(who), task_id)
    await at.refuse(who, refused.value, task_id=task_id)
    return refused.value


async def test_using_somebody_elses_ids_is_counted_without_a_word(guessing: Post) -> None:
    task = await guessing.world.task(ALICE, BOB)
    theirs = [await not_found(guessing, EVE, task.id) for _ in range(3)]
    await guessing.watch.settle()
    made_up = await not_found(guessing, EVE, "task-" + "a" * 26)
    assert {str(each).replace(task.id, "ID") for each in theirs} == {str(made_up).replace("task-" + "a" * 26, "ID")}
    assert theirs[0].metadata.keys() == made_up.metadata.keys()
    (event,) = await guessing.firings()
    assert event.data["agent"] == "spiffe://test/agent/eve"
    assert event.data["reasons"] == {"TASK_NOT_FOUND": 3}
    with pytest.raises(Exhausted):
        guessing.check(EVE)


async def test_mistyped_ids_and_own_ones_do_not_count(guessing: Post) -> None:
    task = await guessing.world.task(ALICE)
    for number in range(20):
        await not_found(guessing, EVE, f"task-{number:026d}")
        await guessing.refuse(ALICE, NotFound(Reason.LEASE_NOT_FOUND, ""), task_id=task.id, lease_id="lease-none")
    await guessing.watch.settle()
    assert await guessing.firings() == []


async def test_whether_it_was_real_is_asked_after_the_answer(world: World) -> None:
    """Without :meth:`Watch.run` nothing is asked at all, and the agent's call has come to its end all the same."""
    at = post(world, rule(counts=Counts.FOREIGN_IDS, threshold=1))
    task = await world.task(ALICE)
    await not_found(at, EVE, task.id)
    assert await at.firings() == []
    running = asyncio.create_task(at.watch.run())
    await at.watch.settle()
    running.cancel()
    assert len(await at.firings()) == 1


async def test_more_questions_than_can_be_kept_are_dropped_and_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(escalation, "MAX_QUESTIONS", 5)
    at = post(world, rule(counts=Counts.FOREIGN_IDS))
    for _ in range(8):
        await at.refuse(failure=NotFound(Reason.TASK_NOT_FOUND, ""), task_id="task-x")
    assert at.told.dropped == 3


async def test_the_memory_of_who_cools_down_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(escalation, "MAX_COOLING", 2)
    at = post(world, rule(threshold=1))
    for who in (ALICE, BOB, EVE):
        await at.refuse(who)
        world.clock.advance(timedelta(seconds=1))
    at.check(ALICE)  # would have been free soonest
    for who in (BOB, EVE):
        with pytest.raises(Exhausted):
            at.check(who)
    world.clock.advance(timedelta(hours=1))
    await at.watch.forget()
    for who in (BOB, EVE):
        at.check(who)


async def test_without_rules_nothing_is_counted(world: World) -> None:
    at = post(world)
    for _ in range(100):
        await at.refuse(failure=NotFound(Reason.TASK_NOT_FOUND, ""), task_id="task-x")
    at.check()
    assert await at.firings() == []


async def test_a_ledger_that_fails_changes_no_answer(world: World) -> None:
    at = post(world, rule(threshold=1))
    await world.store.close()
    await at.refuse()
    with pytest.raises(Exhausted):
        at.check()
