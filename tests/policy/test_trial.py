"""A trial says what the broker says: each request goes to both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.errors import BrokerError, Reason
from broker.identity.agent import Delivery
from broker.lease.credential import ContractClass
from broker.policy.decision import Effect
from broker.policy.remedies import remedies
from broker.policy.trial import Rules, Supposed, Trial, tried
from tests.issuance.world import World
from tests.policy.world import NOW, policies


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = await World.open(tmp_path)
    yield world
    await world.close()


def rules_of(world: World) -> Rules:
    deploy = world.deploy
    return Rules(deploy.registry, deploy.templates, deploy.policies, {"fake": world.upstream.contract})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"resource": "secret"}, Reason.POLICY_DENIED),
        ({"template": "no-such"}, Reason.TEMPLATE_NOT_FOUND),
        ({"account": "elsewhere"}, Reason.ACCOUNT_NOT_IN_TEMPLATE),
        ({"environment": "production"}, Reason.ENVIRONMENT_NOT_IN_TEMPLATE),
        ({"resource": "nothing"}, Reason.RESOURCE_NOT_IN_TEMPLATE),
        ({"parameters": {"x": "y"}}, Reason.PARAMETER_UNKNOWN),
        ({"ttl": timedelta(0)}, Reason.TTL_INVALID),
        ({"ttl": timedelta(hours=1)}, Reason.TTL_TOO_LONG),
    ],
)
async def test_the_broker_and_a_trial_agree(world: World, changes: dict[str, Any], reason: Reason | None) -> None:
    asked = world.asked(await world.task(), **changes)
    refused: Reason | None = None
    decided: tuple[str, ...] = ()
    try:
        decided = (await world.issuer.request(world.caller(), asked, validate_only=True)).decision.policies
    except BrokerError as error:
        refused = error.reason
        decided = tuple(filter(None, error.metadata.get("policies", "").split(",")))
    outcome = tried(Trial("alice", asked, world.clock.now()), rules_of(world))
    assert (outcome.reason, outcome.policies) == (refused, decided)
    assert refused is reason
    assert outcome.allowed is (reason is None)
    assert bool(outcome.explanations) is (reason is not None)


async def test_nothing_of_a_trial_reaches_the_upstream(world: World) -> None:
    asked = world.asked(await world.task())
    assert tried(Trial("alice", asked, world.clock.now()), rules_of(world)).allowed
    assert (world.upstream.alive, world.upstream.calls) == ({}, [])


@pytest.mark.parametrize("who", ["mallory", "spiffe://test/agent/mallory"])
async def test_who_is_not_registered_is_refused(world: World, who: str) -> None:
    asked = world.asked(await world.task())
    assert tried(Trial(who, asked, NOW), rules_of(world)).reason is Reason.AGENT_NOT_REGISTERED


async def test_what_is_supposed_holds_for_the_trial_alone(world: World) -> None:
    rules = replace(
        rules_of(world),
        policies=policies(
            '@id("p") permit (principal, action, resource) when { resource.environment == "production" &&'
            ' principal.environments.contains("production") && resource.contract_class == "EXPIRY_ONLY" &&'
            " !(resource has bound_on_revoke_seconds) };"
        ),
    )
    asked = world.asked(await world.task(), environment="production")
    supposed = Supposed({"cls": ContractClass.EXPIRY_ONLY}, frozenset({"production"}), frozenset({"production"}))
    assert tried(Trial("alice", asked, NOW, supposed=supposed), rules).allowed
    assert tried(Trial("alice", asked, NOW), rules).reason is Reason.ENVIRONMENT_NOT_IN_TEMPLATE


# --------------------------------------------------------------------------- what would have to change


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("context.ttl_seconds <= 42", ("ask for 42s or less",)),
        ('context.ticket != ""', ("say ticket",)),
        ("context.has_plan", ("say plan",)),
        ("context.sealed", ("have it sealed",)),
        ('context.delivery == "direct"', ("ask directly, not through a proxy",)),
        ("context.weekday == 1 && context.hour == 9", ("ask on Monday 2026-12-28 at 09:00 UTC",)),
        ('principal.entry == "bob"', ("have bob ask",)),
        ('context.has_plan && context.ticket != ""', ("say ticket", "say plan")),
        ("context.has_plan && context.ttl_seconds <= 42", ("say plan", "ask for 42s or less")),
    ],
)
async def test_what_is_told_would_be_allowed(world: World, condition: str, expected: tuple[str, ...]) -> None:
    rules = replace(
        rules_of(world),
        policies=policies(f'@id("p") permit (principal, action, resource) when {{ {condition} }};'),
    )
    asked = Trial("alice", world.asked(await world.task()), NOW, Delivery.PROXY)
    assert tried(asked, rules).effect is Effect.DENY
    assert expected in remedies(asked, rules)
    assert {len(each) for each in remedies(asked, rules)} == {len(expected)}


async def test_where_nothing_helps_nothing_is_told(world: World) -> None:
    rules = replace(rules_of(world), policies=policies())
    asked = Trial("alice", world.asked(await world.task()), NOW)
    assert remedies(asked, rules) == ()
