"""Any evaluation error is a deny: above all, a ``forbid`` that fails cannot open the door."""

from __future__ import annotations

import json

import cedarpy
import pytest

from broker.errors import Reason
from broker.identity.agent import Registry
from broker.policy.cedar import PolicyProblems, PolicySet
from broker.policy.decision import Effect
from broker.policy.trial import Rules, Trial, tried
from broker.scope.request import AccessRequest
from tests.connectors.fake import contract
from tests.issuance.world import ALICE, TTL, template
from tests.policy.world import NOW, PERMIT_ALL, SCHEMA, facts, policies

# Valid by the schema, and yet they fail on an ordinary request.
VALID = {
    "a product that does not fit": "context.ttl_seconds * 9223372036854775807 > 0",
    "a sum that does not fit": "context.ttl_seconds + 9223372036854775807 > 0",
    "a difference that does not fit": "-9223372036854775807 - context.ttl_seconds < 0",
    "an attribute of somebody who was not told": 'Person::"https://id.example.org#nobody".groups.contains("platform")',
    "an attribute of an agent who was not told": (
        'Agent::"spiffe://example.org/agent/x".entry == "x" && principal.tier == "advisory"'
    ),
    "the second of two, where the first does not decide": (
        'principal.tier == "advisory" && context.ttl_seconds * 9223372036854775807 > 0'
    ),
    "the negation of a failure": "!(context.ttl_seconds * 9223372036854775807 > 0)",
}
# What validation refuses; evaluated all the same, should it ever let one through.
INVALID = {
    "a missing attribute": 'principal.colour == "red"',
    "a missing circumstance": "context.approved",
    "a missing tag": 'principal.getTag("namespace") == "payments"',
    "a text that is no number": "principal.tier < 3",
    "a number that is no set": 'context.ttl_seconds.contains("x")',
    "a condition that is no condition": "context.ttl_seconds",
    "a text that is no address": "ip(principal.entry).isLoopback()",
    "a text that is no decimal": 'decimal(principal.entry).lessThan(decimal("1.0"))',
}
ALL = {**VALID, **INVALID}


def failing(effect: str, condition: str) -> str:
    return f'@id("fails") @reason("never read") {effect} (principal, action, resource) when {{ {condition} }};'


def unvalidated(*texts: str) -> PolicySet:
    """A set that nothing was checked of."""
    read = [json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"] for text in texts]
    named = {policy["annotations"]["id"]: policy for each in read for policy in each.values()}
    return PolicySet(named, SCHEMA, "digest", (), {})


@pytest.mark.parametrize("what", VALID)
def test_validation_does_not_see_it(what: str) -> None:
    assert len(policies(failing("forbid", VALID[what]))) == 1


@pytest.mark.parametrize("what", INVALID)
def test_validation_sees_it(what: str) -> None:
    with pytest.raises(PolicyProblems):
        policies(failing("forbid", INVALID[what]))


@pytest.mark.parametrize("what", ALL)
@pytest.mark.parametrize("effect", ["forbid", "permit"])
def test_a_policy_that_fails_denies_beside_a_permit_that_holds(what: str, effect: str) -> None:
    assert unvalidated(PERMIT_ALL).decide(facts()).allowed
    decided = unvalidated(PERMIT_ALL, failing(effect, ALL[what]))
    for _ in range(2):  # the second answer comes from memory
        decision = decided.decide(facts())
        assert (decision.effect, decision.allowed, decision.policies) == (Effect.DENY, False, ())
        assert len(decision.errors) == 1
        assert "`fails`" in decision.errors[0]


@pytest.mark.parametrize("what", ALL)
def test_a_forbid_that_holds_is_told_beside_one_that_fails(what: str) -> None:
    holding = '@id("holds") @reason("no") forbid (principal, action, resource);'
    decision = unvalidated(PERMIT_ALL, failing("forbid", ALL[what]), holding).decide(facts())
    assert (decision.effect, decision.policies, len(decision.errors)) == (Effect.DENY, ("holds",), 1)


@pytest.mark.parametrize("what", ALL)
def test_what_is_never_reached_does_not_fail(what: str) -> None:
    guarded = f'principal.tier == "autonomous" && ({ALL[what]})'
    assert unvalidated(PERMIT_ALL, failing("forbid", guarded)).decide(facts()).allowed


def test_who_asks_is_told_that_it_was_an_error() -> None:
    request = AccessRequest("r", "orders-read", "t", "dev", "dev", "orders", TTL)
    asked = Trial("alice", request, NOW)
    outcomes = {
        name: tried(asked, Rules(Registry([ALICE]), {"orders-read": template()}, decided, {"fake": contract()}))
        for name, decided in {
            "sound": policies(PERMIT_ALL),
            "failing": policies(PERMIT_ALL, failing("forbid", VALID["a product that does not fit"])),
        }.items()
    }
    assert (outcomes["sound"].effect, outcomes["sound"].reason) == (Effect.ALLOW, None)
    assert (outcomes["failing"].effect, outcomes["failing"].reason) == (Effect.DENY, Reason.POLICY_ERROR)
    assert not outcomes["failing"].allowed
