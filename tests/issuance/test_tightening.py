"""When policy tightens: live leases under another deploy set, with what is told and what is ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.audit.record import Record, decode
from broker.deployfiles.load import policy_schema
from broker.errors import NotReady, Reason
from broker.identity.agent import Registry
from broker.issuance.tightening import TighteningDesk
from broker.lease.machine import State
from broker.policy.cedar import PolicySet
from broker.policy.shadow import ShadowPolicies
from broker.ports.deploys import DeploySet
from broker.ports.leases import EndCause, Granted
from broker.ports.replicas import Heartbeat
from broker.scope.model import OnPolicyChange
from tests.issuance.emergency import Emergency
from tests.issuance.world import ALICE, BOB, POLICY, TENANT, World, gated_policies, template
from tests.patience import eventually

NO_ORDERS = (
    '@id("no-orders") @reason("Orders are closed.") forbid (principal, action, resource)'
    ' when { resource.name == "orders" };'
)


@dataclass
class Told:
    """What was counted."""

    reviews: list[tuple[str, bool]] = field(default_factory=list)

    def policy_review(self, outcome: str, revoked: bool) -> None:
        self.reviews.append((outcome, revoked))


@dataclass
class Current:
    """The set in force: the world's."""

    world: World

    @property
    def current(self) -> DeploySet:
        return self.world.deploy


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = await World.open(tmp_path)
    yield world
    await world.close()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def desk(world: World, told: Told) -> TighteningDesk:
    return desk_of(world, told)


def desk_of(world: World, told: Told, store: Any = None, straggling: float = 3600) -> TighteningDesk:
    return TighteningDesk(
        store or world.store,
        Current(world),
        {"fake": world.upstream}.get,
        world.revoker.kick,
        told,
        world.clock,
        TENANT,
        straggling=timedelta(seconds=straggling),
    )


def policies(more: str = "") -> PolicySet:
    return PolicySet.parse({"test.cedar": POLICY, "more.cedar": more}, policy_schema())


def tighten(world: World, more: str = NO_ORDERS, digest: str = "e" * 64, **changes: Any) -> None:
    world.deploy = replace(world.deploy, policies=policies(more), digest=digest, **changes)


async def events(world: World, kind: str) -> list[Record]:
    return [each for body in await world.store.audit_since(0, 10_000) if (each := decode(body)).type == kind]


async def test_what_would_not_be_granted_any_more_is_reported_and_lives_on(
    world: World, told: Told, desk: TighteningDesk
) -> None:
    task = await world.task()
    grant = await world.grant(task)
    assert grant.lease is not None
    assert await desk.review_all() == 0
    tighten(world)
    assert await desk.review_all() == 1
    lease = await world.lease(grant.lease.id)
    assert lease.state is State.ACTIVE
    assert lease.policy_tightened is not None
    assert (lease.policy_tightened.policies, lease.policy_tightened.why) == (("no-orders",), "Orders are closed.")
    (event,) = await events(world, "lease.policy_tightened")
    assert (event.data["policies"], event.data["policies_now"]) == (["reads"], ["no-orders"])
    assert event.data["policy_digest"] != event.data["policy_digest_now"] == world.deploy.policies.digest
    assert told.reviews == [("DENY", False)]


async def test_it_is_revoked_where_its_template_says_so_and_the_upstream_hears_of_it(
    world: World, told: Told, desk: TighteningDesk
) -> None:
    world.deploy = replace(world.deploy, templates={"orders-read": template(on_policy_change=OnPolicyChange.REVOKE)})
    task = await world.task()
    grant = await world.grant(task)
    assert grant.lease is not None
    tighten(world)
    await desk.review_all()
    lease_id = grant.lease.id

    async def gone() -> bool:
        return (await world.lease(lease_id)).state is State.REVOKED

    await eventually(gone)
    assert (await world.lease(lease_id)).cause is EndCause.POLICY_TIGHTENED
    assert told.reviews == [("DENY", True)]


async def test_a_template_that_said_revoke_and_is_gone_has_its_leases_revoked(
    world: World, desk: TighteningDesk
) -> None:
    world.deploy = replace(world.deploy, templates={"orders-read": template(on_policy_change=OnPolicyChange.REVOKE)})
    grant = await world.grant(await world.task())
    assert grant.lease is not None
    tighten(world, "", templates={})
    await desk.review_all()
    assert (await world.lease(grant.lease.id)).cause is EndCause.POLICY_TIGHTENED
    (event,) = await events(world, "lease.policy_tightened")
    assert (event.data["reason_now"], event.data["revoked"]) == (Reason.TEMPLATE_NOT_FOUND.value, True)


async def test_a_second_review_and_one_after_a_restart_tell_nothing_again(
    world: World, told: Told, desk: TighteningDesk
) -> None:
    await world.grant(await world.task())
    tighten(world)
    await desk.review_all()
    await desk.review_all()
    await desk_of(world, told).review_all()  # a new broker knows nothing but the ledger
    assert len(await events(world, "lease.policy_tightened")) == 1
    assert told.reviews == [("DENY", False)]


async def test_rules_that_are_loosened_again_take_the_mark_away(world: World, told: Told, desk: TighteningDesk) -> None:
    grant = await world.grant(await world.task())
    assert grant.lease is not None
    tighten(world)
    await desk.review_all()
    tighten(world, "", digest="f" * 64)
    assert await desk.review_all() == 0
    assert (await world.lease(grant.lease.id)).policy_tightened is None
    assert len(await events(world, "lease.policy_loosened")) == 1
    assert told.reviews == [("DENY", False), ("ALLOW", False)]


async def test_time_alone_tightens_nothing(world: World, desk: TighteningDesk) -> None:
    """A lease that was granted in the minute in which that may be, and is reviewed in another."""
    minute = world.clock.now().minute
    tighten(world, f'@id("m") @reason("x") forbid (principal, action, resource) when {{ context.minute != {minute} }};')
    await world.grant(await world.task())
    world.later(timedelta(minutes=2))
    assert await desk.review_all() == 0


async def test_of_what_stands_nothing_is_written(
    world: World, desk: TighteningDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.grant(await world.task())
    tighten(world, "")

    async def unexpected(*_: Any) -> bool:
        raise AssertionError("somebody wrote")

    monkeypatch.setattr(world.store, "record_review", unexpected)
    assert await desk.review_all() == 0


async def test_shadow_policies_do_not_count(world: World, desk: TighteningDesk) -> None:
    await world.grant(await world.task())
    shadow = ShadowPolicies.parse({"s.cedar": NO_ORDERS}, {"test.cedar": POLICY}, policy_schema())
    world.deploy = replace(world.deploy, shadow=shadow, digest="e" * 64)
    assert await desk.review_all() == 0


async def test_approvals_that_it_was_granted_with_count_as_held(tmp_path: Path, told: Told) -> None:
    world = await World.gated(tmp_path)
    try:
        task = await world.task()
        filed = await world.file(task)
        await world.approve(filed)
        grant = await world.redeem(filed)
        assert grant.lease is not None
        assert grant.lease.access_request_id == filed.id
        desk = desk_of(world, told)
        world.deploy = replace(world.deploy, policies=gated_policies("\n"), digest="e" * 64)
        assert await desk.review_all() == 0
        another = (
            '@id("more") @approval("security") @reason("x") forbid (principal, action, resource)'
            ' when { resource.account == "prod" } unless { context.approvals.contains("security") };'
        )
        world.deploy = replace(world.deploy, policies=gated_policies(another), digest="f" * 64)
        assert await desk.review_all() == 1
        (event,) = await events(world, "lease.policy_tightened")
        assert (event.data["outcome"], event.data["policies_now"]) == ("NEEDS_APPROVAL", ["more"])
    finally:
        await world.close()


async def test_on_demand_a_person_ends_what_its_template_would_only_report(
    world: World, told: Told, desk: TighteningDesk
) -> None:
    task = await world.task(ALICE, BOB)
    for number in range(3):
        await world.grant(task, name=f"r{number}")
    await world.grant(task, BOB)
    tighten(world)
    found, after = await desk.review("", 2, revoke=False, by="https://idp.test#bea")
    assert (len(found), [each.revoked for each in found]) == (2, [False, False])
    ended = []
    after = ""
    while True:
        found, after = await desk.review(after, 2, revoke=True, by="https://idp.test#bea")
        ended += [each.granted.lease.id for each in found if each.revoked]
        if not after:
            break
    assert len(ended) == 4
    revoking = [each for each in await events(world, "lease.revoking") if each.data["cause"] == "POLICY_TIGHTENED"]
    assert {each.actor for each in revoking} == {"https://idp.test#bea"}
    assert len(revoking) == 4


class Breaking:
    """A ledger that fails at one read, once."""

    def __init__(self, world: World, at: int) -> None:
        self._world = world
        self._at = at
        self.reads = 0

    async def living_grants(self, tenant: str, after: str, limit: int) -> Any:
        self.reads += 1
        if self.reads == self._at:
            raise NotReady(Reason.STORE_UNAVAILABLE, "no disk")
        found: list[Granted] = list(await self._world.store.living_grants(tenant, after, 1))
        return found

    async def record_review(self, *said: Any) -> bool:
        return await self._world.store.record_review(*said)


async def test_a_review_that_was_broken_off_is_made_again_and_tells_each_once(world: World, told: Told) -> None:
    task = await world.task()
    for number in range(3):
        await world.grant(task, name=f"r{number}")
    tighten(world)
    breaking = Breaking(world, at=3)
    desk = desk_of(world, told, breaking)
    with pytest.raises(NotReady):
        await desk.review_all()
    assert len(await events(world, "lease.policy_tightened")) == 2
    assert await desk.review_all() == 3
    assert len(await events(world, "lease.policy_tightened")) == 3


async def test_grants_have_their_turn_between_any_two_decisions(world: World, told: Told) -> None:
    task = await world.task()
    for number in range(5):
        await world.grant(task, name=f"r{number}")
    tighten(world, "")
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    await desk_of(world, told).review_all()
    other.cancel()
    assert turns >= 5


async def test_in_the_background_it_reviews_after_a_change_and_what_straggled_in_after_that(
    world: World, told: Told
) -> None:
    task = await world.task()
    first = await world.grant(task, name="first")
    before = world.deploy
    desk = desk_of(world, told, straggling=0.2)
    running = asyncio.create_task(desk.run())
    try:
        tighten(world)
        after = world.deploy
        desk.changed()

        async def reported(count: int) -> bool:
            return len(await events(world, "lease.policy_tightened")) == count

        await eventually(lambda: reported(1))
        # One that was decided on by the set before, and comes to its intent only now.
        world.deploy = before
        caller, asked = world.caller(), world.asked(task, "second")
        world.deploy = after
        second = await world.issuer.request(caller, asked)
        await eventually(lambda: reported(2))
        assert first.lease is not None
        assert second.lease is not None
        assert (await world.lease(second.lease.id)).policy_tightened is not None
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_by_a_set_that_was_replaced_nothing_is_recorded_or_ended(
    world: World, told: Told, desk: TighteningDesk
) -> None:
    """F28: another replica has a newer set in force, which may grant it; whose are reviewed there."""
    world.deploy = replace(world.deploy, templates={"orders-read": template(on_policy_change=OnPolicyChange.REVOKE)})
    task = await world.task()
    grant = await world.grant(task)
    assert grant.lease is not None
    tighten(world)
    await in_force(world, "the newer one")
    for review in (desk.review_all(), desk.review("", 10, revoke=True, by="somebody")):
        with pytest.raises(NotReady) as refused:
            await review
        assert refused.value.reason is Reason.DEPLOY_SET_OVERTAKEN
    lease = await world.lease(grant.lease.id)
    assert (lease.state, lease.policy_tightened) == (State.ACTIVE, None)
    await in_force(world, world.deploy.digest)
    await desk.review_all()
    assert (await world.lease(grant.lease.id)).state is not State.ACTIVE
    assert told.reviews == [("DENY", True)]


async def in_force(world: World, digest: str) -> None:
    await world.store.put_in_force(Heartbeat("another", TENANT, digest), world.clock.now(), deliberate=True)


# ------------------------------------------------------------------ break-glass


NO_PROD = (
    '@id("no-prod") @reason("Prod is closed.") forbid (principal, action, resource)'
    ' when { resource.account == "prod" };'
)


@pytest.mark.parametrize("of_agent", [False, True])
async def test_an_emergency_stands_while_its_template_pre_authorises_it(
    tmp_path: Path, told: Told, of_agent: bool
) -> None:
    """It was granted over approvals, for longer than to agents, and says nothing of what they must say: a reload in the
    middle of an emergency is no reason to end it, although its template has leases revoked when policy tightens."""
    glass = await Emergency.open(tmp_path)
    world, desk = glass.world, desk_of(glass.world, told)
    (made,) = world.deploy.templates.values()
    revoking = replace(made, on_policy_change=OnPolicyChange.REVOKE, max_ttl=timedelta(minutes=5))
    world.deploy = replace(world.deploy, templates={made.name: revoking}, digest="1" * 64)
    task = (await world.task()).id if of_agent else ""
    lease = await glass.used(task_id=task)
    assert await desk.review_all() == 0
    # Another set, that changes nothing about it; nor does a list of tools, of which a person calls none.
    listed = Registry([replace(ALICE, tools=frozenset({"psql"})), BOB])
    world.deploy = replace(world.deploy, registry=listed, digest="2" * 64)
    assert await desk.review_all() == 0
    assert (await world.store.get_lease(TENANT, lease.id, lease.holder)).policy_tightened is None
    assert told.reviews == []
    # Where nobody may break this glass any more it does not stand, whoever holds it.
    world.deploy = replace(world.deploy, break_glass={}, digest="3" * 64)
    assert await desk.review_all() == 1
    assert told.reviews == [("DENY", True)]
    (event,) = await events(world, "lease.policy_tightened")
    assert event.data["why"] == "template orders-read pre-authorises nobody for emergencies any more"
    await world.close()


@pytest.mark.parametrize("of_agent", [False, True])
async def test_what_policy_finally_denies_an_agent_no_emergency_keeps(
    tmp_path: Path, told: Told, of_agent: bool
) -> None:
    glass = await Emergency.open(tmp_path)
    world, desk = glass.world, desk_of(glass.world, told)
    await glass.used(task_id=(await world.task()).id if of_agent else "")
    tighten(world, NO_PROD)
    assert await desk.review_all() == (1 if of_agent else 0)
    assert told.reviews == ([("DENY", False)] if of_agent else [])
    await world.close()
