"""Tasks that act for a human: what proves it, what is granted then, what ends it. Bea may have orders read in dev."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.approval.intent_digest import task_nonce
from broker.approval.separation import ON_BEHALF_OF
from broker.audit.record import decode
from broker.deployfiles.load import policy_schema
from broker.errors import BrokerError, Conflict, Denied, InvalidInput, Reason, Unauthenticated
from broker.identity.agent import Agent, May
from broker.identity.behalf import MAX_AGE, Human, is_enabled
from broker.identity.id_token import Issuer
from broker.identity.oidc_keys import KeySet
from broker.issuance.id_tokens import IdTokens, TrustedIssuer
from broker.issuance.tasks import TaskDesk
from broker.lease.machine import State
from broker.policy.cedar import PolicySet
from broker.ports.leases import EndCause
from broker.ports.tasks import Task
from broker.secret import Secret
from tests.clock import START, CountingRng
from tests.forge_oidc import ForgedProvider
from tests.issuance.world import ALICE, BOB, PEOPLE, POLICY, TENANT, World, template
from tests.patience import eventually
from tests.stores.make import new_task

AUDIENCE, DOOR = "jit-broker-agents", "jit-broker"
PROVIDER = ForgedProvider("https://idp.test", START)
BEA = Human("https://idp.test", "bea", "Bea")


class Keys:
    """The provider's keys, as a port gives them."""

    def current(self, issuer: str, key_id: str = "") -> KeySet:
        return KeySet.from_jwks(PROVIDER.document())


TRUSTED = {PROVIDER.url: TrustedIssuer(Issuer(PROVIDER.url), DOOR, AUDIENCE)}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = await World.open(tmp_path)
    may = May(frozenset({"read"}), frozenset({"dev"}))
    world.deploy = replace(world.deploy, people={**PEOPLE, "bea": replace(PEOPLE["bea"], may=may)})
    world.tasks = desk(world, IdTokens(TRUSTED, Keys()))
    yield world
    await world.close()


def desk(world: World, proofs: IdTokens | None) -> TaskDesk:
    return TaskDesk(
        world.store,
        world.revoker.kick,
        world.gate,
        world.clock,
        CountingRng(),
        default_duration=timedelta(hours=1),
        max_duration=timedelta(hours=8),
        proofs=proofs,
    )


def login(name: str = "t1", who: str = "bea", agent: Agent = ALICE, audience: str = AUDIENCE, **changes: Any) -> Secret:
    """The token of a login for the task ``name`` of ``agent``."""
    good = {"nonce": task_nonce(str(agent.spiffe_id), name), **changes}
    return Secret(PROVIDER.token(who, audience, **good))


async def started(world: World, name: str = "t1", token: Secret | None = None, *others: Agent) -> Task:
    return await world.task(ALICE, *others, name=name, on_behalf_of_token=login(name) if token is None else token)


async def refused(world: World, call: Any, family: type[BrokerError], reason: Reason) -> BrokerError:
    """It is refused, and nothing has changed."""
    before = await world.store.audit_since(0, 1_000)
    with pytest.raises(family) as told:
        await call
    assert told.value.reason is reason, told.value
    assert await world.store.audit_since(0, 1_000) == before
    return told.value


# ------------------------------------------------------------------ proof


async def test_the_task_says_whom_it_acts_for_and_the_trail_what_proved_it(world: World) -> None:
    token = login()
    task = await started(world, token=token)
    assert (task.on_behalf_of, (await world.tasks.get(world.caller(), task.id)).on_behalf_of) == (BEA, BEA)
    record = decode((await world.store.audit_since(0, 10))[0])
    assert record.data["on_behalf_of"] == BEA.id
    assert len(str(record.data["id_token_sha256"])) == 64
    assert token.reveal() not in str(record)


async def test_the_same_call_again_is_the_same_task(world: World) -> None:
    token = login()
    assert await started(world, token=token) == await started(world, token=token)
    other = login(auth_time=int(START.timestamp()) - 1)
    assert (await started(world, token=other)).id == (await started(world, token=token)).id
    await refused(world, world.task(ALICE, name="t1"), Conflict, Reason.REQUEST_ID_REUSED)


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (login(audience=DOOR), Reason.ID_TOKEN_AUDIENCE),  # of somebody who logged in at the people's door
        (login(nonce=None), Reason.ID_TOKEN_NONCE),
        (login("t2"), Reason.ID_TOKEN_NONCE),  # for another task of the agent's
        (login(agent=BOB), Reason.ID_TOKEN_NONCE),  # for another agent's
        (login(auth_time=None), Reason.ID_TOKEN_TOO_OLD),
        (login(auth_time=int(START.timestamp() - MAX_AGE.total_seconds()) - 1), Reason.ID_TOKEN_TOO_OLD),
        (Secret("a.b.c"), Reason.ID_TOKEN_MALFORMED),
        (Secret(ForgedProvider("https://other.test", START).token("bea", AUDIENCE)), Reason.ID_TOKEN_ISSUER_UNKNOWN),
    ],
)
async def test_a_token_that_proves_something_else_starts_no_task(world: World, token: Secret, reason: Reason) -> None:
    await refused(world, started(world, token=token), Unauthenticated, reason)


@pytest.mark.parametrize("who", ["dee", "nobody"])  # disabled; not in people.yaml
async def test_an_agent_acts_for_nobody_who_is_not_enabled(world: World, who: str) -> None:
    await refused(world, started(world, token=login(who=who)), Denied, Reason.ON_BEHALF_OF_NOBODY)


async def test_a_broker_that_takes_no_such_tokens_says_so(world: World) -> None:
    world.tasks = desk(world, None)
    await refused(world, started(world), InvalidInput, Reason.ON_BEHALF_OF_NOT_TAKEN)
    assert (await world.task()).on_behalf_of is None


async def test_a_token_for_the_peoples_door_and_one_for_agents_are_never_taken_for_each_other(world: World) -> None:
    tokens = IdTokens(TRUSTED, Keys())
    with pytest.raises(Unauthenticated) as told:
        tokens.identify(login().reveal(), world.clock.now())
    assert told.value.reason is Reason.ID_TOKEN_AUDIENCE


# ------------------------------------------------------------------ what is granted


async def test_what_both_may_is_granted(world: World) -> None:
    grant = await world.grant(await started(world))
    assert grant.lease is not None
    intent = next(decode(each) for each in await world.store.audit_since(0, 50) if b'"lease.intent"' in each)
    assert intent.data["decided_on"]["on_behalf_of"] == BEA.id  # type: ignore[index,call-overload]


@pytest.mark.parametrize(
    ("may", "word"),
    [
        (None, "nothing"),
        (May(frozenset({"write"}), frozenset({"dev"})), "access read"),
        (May(frozenset({"read"}), frozenset({"prod"})), "environment dev"),
        (May(frozenset({"read"}), frozenset({"dev"}), frozenset({"users-read"})), "template orders-read"),
    ],
)
async def test_what_the_person_may_not_is_not_granted_though_the_agent_may(
    world: World, may: May | None, word: str
) -> None:
    task = await started(world)
    people = {**world.deploy.people, "bea": replace(PEOPLE["bea"], may=may)}
    world.deploy = replace(world.deploy, people=people)
    error = await refused(world, world.grant(task), Denied, Reason.ON_BEHALF_OF_EXCEEDED)
    assert word in error.message and "Bea" in error.message
    assert (await world.grant(await world.task(name="own"), name="r2")).lease is not None


async def test_what_the_agent_may_not_is_not_granted_though_the_person_may(world: World) -> None:
    task = await started(world)
    await refused(world, world.grant(task, resource="secret"), Denied, Reason.POLICY_DENIED)


async def test_policy_sees_both(world: World) -> None:
    only = (
        '@id("not-for-bea") @reason("Not for Bea.") forbid (principal, action, resource) when {'
        ' context has on_behalf_of && context.on_behalf_of == Person::"https://idp.test#bea" };'
    )
    policies = PolicySet.parse({"p.cedar": POLICY, "more.cedar": only}, policy_schema())
    world.deploy = replace(world.deploy, policies=policies)
    error = await refused(world, world.grant(await started(world)), Denied, Reason.POLICY_DENIED)
    assert error.metadata["policies"] == "not-for-bea"
    assert (await world.grant(await world.task(name="own"), name="r2")).lease is not None


async def test_a_participant_is_bounded_by_the_same_person_and_a_stranger_hears_of_nobody(world: World) -> None:
    task = await started(world, "t1", None, BOB)
    world.deploy = replace(world.deploy, people={**PEOPLE, "bea": replace(PEOPLE["bea"], may=None)})
    await refused(world, world.grant(task, BOB), Denied, Reason.ON_BEHALF_OF_EXCEEDED)
    eve = next(agent for agent in world.deploy.registry if agent.principal == "eve")
    error = await refused(world, world.grant(task, eve), BrokerError, Reason.TASK_NOT_FOUND)
    assert "Bea" not in error.message


async def test_whom_it_acts_for_does_not_approve_it(tmp_path: Path) -> None:
    world = await World.gated(tmp_path)
    try:
        may = May(frozenset({"read"}), frozenset({"dev"}))
        world.deploy = replace(world.deploy, people={**PEOPLE, "bea": replace(PEOPLE["bea"], may=may)})
        world.tasks = desk(world, IdTokens(TRUSTED, Keys()))
        filed = await world.file(await started(world))
        assert (("https://idp.test", "bea"), ON_BEHALF_OF) in [(each.person, each.part) for each in filed.interests]
        await refused(world, world.approve(filed, "bea"), Denied, Reason.SELF_APPROVAL)
        review = await world.approvals.review(world.person("cyd"), filed.id)
        assert "It acts for Bea (https://idp.test#bea), as that person's own login proved." in review.effect
        assert (await world.approve(filed, "cyd")).state.value == "APPROVED"
    finally:
        await world.close()


# ------------------------------------------------------------------ what ends it


@pytest.mark.parametrize("how", ["disabled", "gone"])
async def test_what_acts_for_somebody_who_is_disabled_ends_and_nothing_new_is_granted(world: World, how: str) -> None:
    task, own = await started(world), await world.task(name="own")
    grant, other = await world.grant(task), await world.grant(own, name="r2")
    assert grant.lease is not None
    assert other.lease is not None
    people = {key: each for key, each in world.deploy.people.items() if key != "bea"}
    if how == "disabled":
        people["bea"] = replace(PEOPLE["bea"], disabled=True)
    world.deploy = replace(world.deploy, people=people)

    async def swept() -> int:
        return await world.store.end_on_behalf_of(
            TENANT, lambda human: is_enabled(human, people, world.clock.now()), world.clock.now()
        )

    assert await swept() == 1
    assert await swept() == 0
    ended, kept = await world.lease(grant.lease.id), await world.lease(other.lease.id)
    assert (ended.state, ended.cause, kept.state) == (State.REVOKING, EndCause.PERSON_DISABLED, State.ACTIVE)
    await refused(world, world.grant(task, name="r3"), Denied, Reason.ON_BEHALF_OF_NOBODY)
    world.revoker.kick("fake")
    lease_id = grant.lease.id

    async def gone() -> bool:
        return (await world.lease(lease_id)).state is State.REVOKED

    await eventually(gone)


async def test_nobody_is_swept_who_is_enabled(world: World) -> None:
    await world.grant(await started(world))
    assert await world.store.end_on_behalf_of(TENANT, lambda human: human == BEA, world.clock.now()) == 0
    assert await world.store.end_on_behalf_of("other", lambda human: False, world.clock.now()) == 0


async def test_one_token_is_for_one_task_whatever_its_nonce(world: World) -> None:
    """The nonce keeps a token from a second task; the ledger does, too, should two tasks ever have one nonce."""
    task = await started(world)
    row = world.store._readers._own.connection.execute("SELECT id_token FROM tasks").fetchone()[0]
    new = new_task("t-9", tenant=TENANT, on_behalf_of=BEA, id_token=row)
    error = await refused(world, world.store.start_task(new), Conflict, Reason.ID_TOKEN_USED)
    assert task.id in error.message


async def test_a_template_of_more_environments_stays_within_the_persons(world: World) -> None:
    world.deploy = replace(
        world.deploy, templates={"orders-read": template(environments=frozenset({"dev", "staging"}))}
    )
    task = await started(world)
    await refused(world, world.grant(task, environment="staging"), Denied, Reason.ON_BEHALF_OF_EXCEEDED)
    assert (await world.grant(task, name="r2")).lease is not None
