"""What the ledger knows around a request: read where policy looks at it, and not moved under a decision."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.approval.rules import ApprovalRule, Quorum
from broker.deployfiles.load import policy_schema
from broker.errors import BrokerError, Denied, NotReady, Reason
from broker.issuance import issue
from broker.issuance.situation import Situations
from broker.policy.cedar import PolicySet
from broker.policy.decision import Effect
from broker.policy.facts import NOTHING_KNOWN
from broker.ports.intents import Holdings
from broker.ports.leases import LeaseFilter
from tests.issuance.world import ALICE, BOB, EVE, TENANT, World, template

PERMIT = '@id("all") permit (principal, action, resource);'
NOT_BOTH = (
    '@id("not-both") @reason("Not both at a time.") forbid (principal, action, resource) when {'
    ' (resource.template == "b" && context.active_grants.contains("a")) ||'
    ' (resource.template == "a" && context.active_grants.contains("b")) };'
)
GATE = (
    '@id("gate") @reason("Ask the owners.") @approval("owners") forbid (principal, action, resource)'
    ' unless { context.approvals.contains("owners") };'
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World.open(tmp_path)
    yield made
    await made.close()


def deploy(world: World, *policies: str) -> None:
    templates = {name: template(name=name) for name in ("a", "b")}
    parsed = PolicySet.parse({"p.cedar": "\n".join((PERMIT, *policies))}, policy_schema())
    world.deploy = replace(world.deploy, policies=parsed, templates={**world.deploy.templates, **templates})


async def living(world: World) -> list[str]:
    found = await world.store.list_leases(LeaseFilter(TENANT, str(ALICE.spiffe_id), living_only=True), "", 100)
    return sorted(lease.template for lease in found)


async def test_nothing_is_read_that_no_policy_looks_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(world)
    task = await world.task(task_type="report")

    async def unexpected(*_: Any) -> Any:
        raise AssertionError("somebody read the ledger")

    monkeypatch.setattr(world.store, "holdings", unexpected)
    situations = Situations(world.store)
    assert await situations.read(world.caller(), world.asked(task)) is NOTHING_KNOWN
    # For whom a task acts is read once.
    monkeypatch.setattr(world.store, "get_task", unexpected)
    assert await situations.read(world.caller(), world.asked(task, "r2")) is NOTHING_KNOWN
    monkeypatch.undo()
    assert (await world.grant(task)).lease is not None


async def test_the_type_of_the_task_reaches_policy(world: World) -> None:
    deploy(
        world,
        '@id("no-incident") @reason("Not in an incident.") forbid (principal, action, resource)'
        ' when { context.task_type == "incident" };',
    )
    assert (await world.grant(await world.task(name="t1", task_type="report"))).lease is not None
    with pytest.raises(Denied):
        await world.grant(await world.task(name="t2", task_type="incident"), name="r2")


async def test_a_task_of_others_tells_nothing_of_itself(world: World) -> None:
    deploy(
        world,
        '@id("no-incident") @reason("Not in an incident.") forbid (principal, action, resource)'
        ' when { context.task_type == "incident" };',
    )
    task = await world.task(BOB, task_type="incident")
    told = []
    for asked in (world.asked(task), world.asked(task, task_id="task-of-nobody")):
        with pytest.raises(BrokerError) as caught:
            await world.issuer.request(world.caller(EVE), asked)
        told.append((caught.value.reason, caught.value.message.replace(asked.task_id, "...")))
    assert told[0] == told[1]
    assert told[0][0] is Reason.TASK_NOT_FOUND


async def test_what_is_held_is_seen_and_a_retry_replaces_its_own(world: World) -> None:
    deploy(world, NOT_BOTH)
    task = await world.task()
    await world.grant(task, name="r1", template="a")
    with pytest.raises(Denied) as caught:
        await world.grant(task, name="r2", template="b")
    assert caught.value.metadata["policies"] == "not-both"
    await world.grant(task, name="r3", template="a")
    assert await living(world) == ["a", "a"]


async def test_two_at_once_do_not_decide_on_each_other_s_absence(world: World) -> None:
    deploy(world, NOT_BOTH)
    task = await world.task()
    results = await asyncio.gather(
        *(world.grant(task, name=f"r{number}", template="ab"[number % 2]) for number in range(4)),
        return_exceptions=True,
    )
    assert len(set(await living(world))) == 1
    refused = [each for each in results if isinstance(each, BrokerError)]
    assert {each.reason for each in refused} == {Reason.POLICY_DENIED}
    assert len(refused) == 2


@pytest.mark.parametrize("moves", [1, issue.DECISIONS - 1])
async def test_what_moved_is_decided_on_again(world: World, monkeypatch: pytest.MonkeyPatch, moves: int) -> None:
    deploy(world, NOT_BOTH)
    calls = stale(world, monkeypatch, moves)
    assert (await world.grant(await world.task())).lease is not None
    assert len(calls) == moves + 1


async def test_but_not_for_ever(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(world, NOT_BOTH)
    calls = stale(world, monkeypatch, 1000)
    task = await world.task()
    with pytest.raises(NotReady) as caught:
        await world.grant(task)
    assert (caught.value.reason, len(calls)) == (Reason.SITUATION_MOVED, issue.DECISIONS)
    assert (await living(world), world.upstream.calls) == ([], [])


def stale(world: World, monkeypatch: pytest.MonkeyPatch, times: int) -> list[Holdings]:
    """The first ``times`` reads see what is not there (any more)."""
    calls: list[Holdings] = []
    real = world.store.holdings

    async def holdings(*key: str) -> Holdings:
        calls.append(Holdings(frozenset({"gone"}), 1) if len(calls) < times else await real(*key))
        return calls[-1]

    monkeypatch.setattr(world.store, "holdings", holdings)
    return calls


async def test_what_needs_people_is_filed_and_nothing_is_issued(world: World) -> None:
    deploy(world, GATE)
    rule = ApprovalRule("owners", "Theirs.", (Quorum("sre", 1),), timedelta(minutes=5), timedelta(minutes=5))
    world.deploy = replace(world.deploy, approvals={"owners": rule})
    task = await world.task()
    for validate_only in (True, False):
        grant = await world.issuer.request(world.caller(), world.asked(task), validate_only=validate_only)
        assert (grant.decision.effect, grant.decision.approvals) == (Effect.NEEDS_APPROVAL, ("owners",))
        assert (grant.access_request is None) is validate_only
    assert (await living(world), world.upstream.calls) == ([], [])


async def test_an_approval_that_nobody_has_defined_denies(world: World) -> None:
    deploy(world, GATE)
    with pytest.raises(Denied) as caught:
        await world.grant(await world.task())
    assert caught.value.reason is Reason.POLICY_ERROR
    assert (await living(world), world.upstream.calls) == ([], [])


async def test_how_many_requests_wait_is_read_where_policy_looks_at_it(world: World) -> None:
    deploy(
        world,
        GATE,
        '@id("few") @reason("Too many wait.") forbid (principal, action, resource) when { context.pending_count > 1 };',
    )
    rule = ApprovalRule("owners", "Theirs.", (Quorum("sre", 1),), timedelta(minutes=5), timedelta(minutes=5))
    world.deploy = replace(world.deploy, approvals={"owners": rule})
    task = await world.task()
    for name in ("r1", "r2"):
        assert (await world.grant(task, name=name, reason=name)).access_request is not None
    with pytest.raises(Denied) as caught:
        await world.grant(task, name="r3", reason="r3")
    assert caught.value.metadata["policies"] == "few,gate"
