"""``broker policy diff``: decisions the broker itself recorded, made again under other rules."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from broker.approval.rules import ApprovalRule, Quorum
from broker.audit.event import AuditEvent, EventType, Vouch
from broker.audit.record import Record, decode
from broker.cli.main import cli as command
from broker.cli.policy_diff import Comparison, compared
from broker.deployfiles.load import policy_schema
from broker.errors import BrokerError, Reason
from broker.issuance.refusals import refusal, summary
from broker.keys import new_key
from broker.policy.cedar import PolicySet
from broker.policy.decision import Effect
from broker.policy.trial import Rules
from broker.stores.sqlite import SqliteStore
from tests.clock import START
from tests.connectors.fake import contract
from tests.deployfiles.test_broken import private_copy
from tests.house.project import ROOT
from tests.issuance.world import ALICE, RULES, TENANT, StaticKeys, World

READS = '@id("reads") permit (principal, action == Action::"read", resource);'
NO_SECRET = '@id("no-secret") @reason("No.") forbid (principal, action, resource) when { resource.name == "secret" };'
SHORT = '@id("short") @reason("Shorter.") forbid (principal, action, resource) when { context.ttl_seconds > 60 };'
ALONE = '@id("alone") @reason("One.") forbid (principal, action, resource) when { context.active_count > 0 };'
GATE = (
    '@id("gate") @reason("Ask.") @approval("owners") forbid (principal, action, resource)'
    ' when { resource.name == "secret" } unless { context.approvals.contains("owners") };'
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = await World.open(tmp_path)
    under(world, READS, NO_SECRET)
    yield world
    await world.close()


def parsed(*policies: str) -> PolicySet:
    return PolicySet.parse({"p.cedar": "\n".join(policies)}, policy_schema())


def under(world: World, *policies: str) -> None:
    world.deploy = replace(world.deploy, policies=parsed(*policies))


def rules(world: World, *policies: str) -> Rules:
    deploy = world.deploy
    return Rules(deploy.registry, deploy.templates, parsed(*policies), {"fake": contract()}, people=deploy.people)


async def refused(world: World, **changes: Any) -> None:
    """A request that is refused, and recorded as the door records it."""
    with pytest.raises(BrokerError) as caught:
        await world.grant(await world.task(name=str(changes)), name=f"r{abs(hash(str(changes)))}", **changes)
    error = caught.value
    event = refusal(TENANT, str(ALICE.spiffe_id), "/m", error.reason, error.message, error.metadata, error.evidence)
    await world.store.append([event], world.clock.now())


async def records(world: World) -> list[Record]:
    return [decode(body) for body in await world.store.audit_since(0, 1000)]


async def against(world: World, *policies: str) -> Comparison:
    return compared(await records(world), rules(world, *policies))


async def test_under_the_same_rules_nothing_changes(world: World) -> None:
    await world.grant(await world.task(), intent="look", prompt="p", recipient_public_key=b"k" * 32)
    await refused(world, resource="secret", plan="the plan")
    result = await against(world, READS, NO_SECRET)
    assert (result.compared, result.changes, dict(result.unknown)) == (2, [], {})


async def test_what_would_be_refused_and_what_granted_is_told(world: World) -> None:
    await world.grant(await world.task())
    await refused(world, resource="secret")
    result = await against(world, READS, SHORT)
    assert [(each.decision.effect, each.decision.policies, each.outcome.effect) for each in result.changes] == [
        (Effect.ALLOW, ("reads",), Effect.DENY)
    ]
    looser = await against(world, READS)
    assert [(each.decision.effect, each.outcome.effect) for each in looser.changes] == [(Effect.DENY, Effect.ALLOW)]
    gated = await against(world, READS, GATE)
    assert [(each.outcome.effect, each.outcome.approvals) for each in gated.changes] == [
        (Effect.NEEDS_APPROVAL, ("owners",))
    ]


async def test_what_people_were_asked_is_a_decision_too(world: World) -> None:
    under(world, READS, GATE)
    world.deploy = replace(world.deploy, approvals={"owners": replace(RULES["one-sre"], name="owners")})
    assert (await world.grant(await world.task(), resource="secret")).access_request is not None
    same = await against(world, READS, GATE)
    assert (same.compared, same.changes) == (1, [])
    without = await against(world, READS)
    assert [(each.decision.effect, each.outcome.effect) for each in without.changes] == [
        (Effect.NEEDS_APPROVAL, Effect.ALLOW)
    ]


async def test_the_time_and_the_ttl_are_those_of_the_record(world: World) -> None:
    await world.grant(await world.task(), ttl=timedelta(seconds=60, milliseconds=1))
    at = world.clock.now()
    world.clock.advance(timedelta(hours=1))
    exactly = f"context.ttl_seconds == 61 && context.hour == {at.hour}"
    same = await against(world, f'@id("x") permit (principal, action, resource) when {{ {exactly} }};')
    assert (same.compared, same.changes) == (1, [])


async def test_what_a_record_does_not_say_is_not_guessed(world: World) -> None:
    await world.grant(await world.task())
    result = await against(world, READS, ALONE)
    assert (result.compared, dict(result.unknown)) == (0, {"the record does not say active_count": 1})


async def test_what_policies_looked_at_is_in_the_record(world: World) -> None:
    under(world, READS, ALONE)
    await world.grant(await world.task())
    await refused(world)
    assert (await against(world, READS, ALONE)).changes == []
    changed = await against(world, READS, ALONE.replace("> 0", "> 1"))
    assert [(each.decision.effect, each.outcome.effect) for each in changed.changes] == [(Effect.DENY, Effect.ALLOW)]


async def test_approvals_are_none_where_nobody_looked_at_them(world: World) -> None:
    await world.grant(await world.task())
    result = await against(world, READS, GATE.replace('"secret"', '"orders"'))
    assert [each.outcome.approvals for each in result.changes] == [("owners",)]


async def test_what_waits_for_people_is_a_decision_too(world: World) -> None:
    under(world, READS, GATE)
    rule = ApprovalRule("owners", "Asked.", (Quorum("g", 1),), timedelta(minutes=15), timedelta(minutes=10))
    world.deploy = replace(world.deploy, approvals={"owners": rule})
    asked = await world.grant(await world.task(), resource="secret")
    assert asked.decision.effect is Effect.NEEDS_APPROVAL
    same = await against(world, READS, GATE)
    assert (same.compared, same.changes, dict(same.unknown)) == (1, [], {})
    (change,) = (await against(world, READS)).changes
    assert (change.decision.effect, change.decision.policies, change.outcome.effect) == (
        Effect.NEEDS_APPROVAL,
        ("gate",),
        Effect.ALLOW,
    )


async def test_who_has_left_is_refused(world: World) -> None:
    await world.grant(await world.task())
    left = replace(rules(world, READS), registry=type(world.deploy.registry)([]))
    (change,) = compared(await records(world), left).changes
    assert change.outcome.reason is Reason.AGENT_NOT_REGISTERED


async def test_who_was_refused_break_glass_is_of_no_older_release(world: World) -> None:
    event = refusal(TENANT, "https://idp.test#bea", "/m", Reason.POLICY_DENIED, "no", {}, {})
    await world.store.append([event], world.clock.now())
    ((why, count),) = (await against(world, READS)).unknown.items()
    assert ("break-glass" in why, count) == (True, 1)


async def test_other_refusals_are_no_decisions_and_folded_ones_are_counted(world: World) -> None:
    await refused(world, resource="nothing")
    await world.store.append([summary(TENANT, "alice", {"POLICY_DENIED": 3, "TTL_INVALID": 9})], world.clock.now())
    old = AuditEvent(EventType.LEASE_INTENT, "x", Vouch.BROKER, tenant=TENANT, data={"template": "t"})
    await world.store.append([old], world.clock.now())
    result = await against(world, READS)
    assert (result.compared, sorted(result.unknown.values())) == (0, [1, 3])


# --------------------------------------------------------------------------- the command

ANALYST = "spiffe://dev.broker.internal/agent/analyst"
ASKED = {
    "template": "orders-readonly",
    "account": "dev",
    "environment": "dev",
    "resource": "orders",
    "parameters": {},
    "intent": "look",
    "delivery": "direct",
    "sealed": False,
    "policies": ["read"],
    "decided_on": {"ttl_ms": 60_000, "situation": {}},
}


@pytest.fixture
async def ledger(tmp_path: Path) -> Path:
    """A ledger in which an analyst was granted what nobody is granted by deploy/dev, and what is."""
    store = await SqliteStore.open(tmp_path / "ledger.sqlite3", StaticKeys(), "w")
    writes = {**ASKED, "template": "orders-readwrite", "reason": "r", "ticket": "T", "plan_sha256": "0" * 64}
    events = [
        AuditEvent(EventType.LEASE_INTENT, ANALYST, Vouch.BROKER, tenant="t", data=data)
        for data in (ASKED, {**writes, "decided_on": {"ttl_ms": 1000, "situation": {"active_grants": [], "plan": ""}}})
    ]
    await store.append(events, START)
    await store.close()
    return tmp_path / "ledger.sqlite3"


def test_the_command_tells_each_change_and_the_sums(ledger: Path, tmp_path: Path) -> None:
    dev = private_copy(ROOT / "deploy/dev", tmp_path / "dev")
    line = ["policy", "diff", str(dev), "--ledger", str(ledger)]
    done = CliRunner().invoke(command, line)
    assert (done.exit_code, done.stderr) == (0, "")
    change, sums = done.stdout.splitlines()
    assert change.startswith("2  ")
    assert change.endswith(
        f"{ANALYST}  orders-readwrite dev: ALLOW by read -> DENY POLICY_DENIED by advisory-never-changes"
    )
    assert sums == f"2 recorded decisions, 1 would be others under {dev}"
    told = json.loads(CliRunner().invoke(command, [*line, "--format", "json"]).stdout)
    assert (told["compared"], [each["sequence"] for each in told["changes"]]) == (2, [2])
    assert CliRunner().invoke(command, [*line, "--after", "2"]).stdout.startswith("0 recorded decisions")


@pytest.mark.parametrize("of_agent", [True, False])
async def test_what_people_took_by_break_glass_is_counted_and_no_crash(tmp_path: Path, of_agent: bool) -> None:
    """The actor is a person, who is no agent, and no way of delivery of agents' is recorded."""
    store = await SqliteStore.open(tmp_path / "ledger.sqlite3", StaticKeys(), "w")
    data: dict[str, Any] = {**ASKED, "delivery": "people", "person": "https://idp.test#bea", "incident": "INC-1"}
    if not of_agent:
        del data["decided_on"]
    event = AuditEvent(EventType.LEASE_INTENT, "https://idp.test#bea", Vouch.BROKER, tenant="t", data=data)
    await store.append([event], START)
    await store.close()
    dev = private_copy(ROOT / "deploy/dev", tmp_path / "dev")
    line = ["policy", "diff", str(dev), "--ledger", str(tmp_path / "ledger.sqlite3")]
    done = CliRunner().invoke(command, line)
    assert (done.exit_code, done.stderr) == (0, ""), done.exception
    first, sums = done.stdout.splitlines()
    assert first.startswith("1 cannot be made again: ") and "break-glass" in first
    assert sums.startswith("0 recorded decisions, 0 would be others")


async def test_other_people_to_ask_are_told_with_both(tmp_path: Path) -> None:
    """What waited for one approval then, and would wait for another now."""
    store = await SqliteStore.open(tmp_path / "ledger.sqlite3", StaticKeys(), "w")
    decided = {"ttl_ms": 60_000, "situation": {"active_grants": [], "plan": "", "approvals": []}}
    asked = {**ASKED, "template": "orders-production", "environment": "production", "plan_sha256": "0" * 64}
    said = {"reason": "r", "ticket": "T", "policies": ["gate"], "approvals": ["change"], "decided_on": decided}
    releaser = ANALYST.replace("analyst", "releaser")
    for approvals in (["change"], ["production-change"]):
        data = {**asked, **said, "approvals": approvals}
        event = AuditEvent(EventType.ACCESS_REQUESTED, releaser, Vouch.BROKER, tenant="t", data=data)
        await store.append([event], START)
    await store.close()
    dev = private_copy(ROOT / "deploy/dev", tmp_path / "dev")
    line = ["policy", "diff", str(dev), "--ledger", str(tmp_path / "ledger.sqlite3")]
    change, sums = CliRunner().invoke(command, line).stdout.splitlines()
    assert change.endswith(
        "orders-production production: NEEDS_APPROVAL of change by gate"
        " -> NEEDS_APPROVAL of production-change by production-changes-are-approved"
    )
    assert sums.startswith("2 recorded decisions, 1 would be others")
    told = json.loads(CliRunner().invoke(command, [*line, "--format", "json"]).stdout)
    assert told["changes"][0]["before"]["approvals"] == ["change"]


def test_a_ledger_is_named_as_everywhere(tmp_path: Path) -> None:
    """A server's, too: by reference to its DSN."""
    dev = private_copy(ROOT / "deploy/dev", tmp_path / "dev")
    for named, why in ((tmp_path / "absent", "there is no such file"), ("env:NO_SUCH_DSN", "NO_SUCH_DSN")):
        done = CliRunner().invoke(command, ["policy", "diff", str(dev), "--ledger", str(named)])
        assert (done.exit_code, done.stdout) == (2, "")
        assert why in done.stderr


def test_a_trail_that_does_not_verify_is_not_compared(ledger: Path, tmp_path: Path) -> None:
    dev = private_copy(ROOT / "deploy/dev", tmp_path / "dev")
    key = tmp_path / "key"
    key.write_text(new_key())
    key.chmod(0o600)
    done = CliRunner().invoke(command, ["policy", "diff", str(dev), "--ledger", str(ledger), "--key", f"file:{key}"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr
