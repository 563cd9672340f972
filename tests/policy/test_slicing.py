"""Which policies may be left out of a request: those that certainly neither hold nor fail."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

import cedarpy
import pytest

from bench.decisions import policies as many
from bench.decisions import requests
from broker.policy import cedar
from broker.policy.decision import Effect
from broker.policy.question import _SINGLE
from broker.policy.slicing import SINGLE, Key, certain_keys, cut
from tests.policy.world import facts, policies

ACCOUNT, ROLES = 'resource.account == "a"', 'principal.roles.contains("r")'
TEAM = Key(("resource", "account"), "a")
PERMIT = '@id("p") permit (principal, action, resource)'
FORBID = '@id("f") @reason("x") forbid (principal, action, resource)'
# 60 seconds times this do not fit into 64 bits: it fails.
FAILS = "context.ttl_seconds * 9223372036854775807 > 0"


def parsed(text: str) -> dict[str, Any]:
    (policy,) = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values()
    assert isinstance(policy, dict)
    return policy


def body(*conditions: str, head: str = "principal, action, resource") -> str:
    return f"forbid ({head}) {' '.join(conditions)};"


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (body(f"when {{ {ACCOUNT} }}"), {TEAM}),
        (body('when { "a" == resource.account }'), {TEAM}),
        (body(f"when {{ {ROLES} && {ACCOUNT} }}"), {TEAM}),
        (body(f"when {{ {ACCOUNT} && {FAILS} }}"), {TEAM}),
        (body(f"when {{ ({ROLES} && ({ACCOUNT} && true)) && {FAILS} }}"), {TEAM}),
        (body(f"when {{ {ACCOUNT} }} unless {{ {FAILS} }}"), {TEAM}),
        (body(f'when {{ {ACCOUNT} && principal.entry == "x" }}'), {TEAM, Key(("principal", "entry"), "x")}),
        (body(head='principal, action, resource in Template::"t"'), {Key(("resource", "template"), "t")}),
        (body(head='principal == Agent::"spiffe://x/y", action, resource'), {Key(("principal", ""), "spiffe://x/y")}),
        # What stands before may fail, or is in no form that is known not to.
        (body(f"when {{ {FAILS} && {ACCOUNT} }}"), set()),
        (body(f"when {{ context.hour < 6 && {ACCOUNT} }}"), set()),
        (body(f"when {{ {FAILS} }} when {{ {ACCOUNT} }}"), set()),
        # Not a part of a conjunction, or the other way round.
        (body(f"when {{ {ACCOUNT} || {ROLES} }}"), set()),
        (body(f"when {{ !({ACCOUNT}) }}"), set()),
        (body('when { resource.account != "a" }'), set()),
        (body(f"unless {{ {ACCOUNT} }}"), set()),
        (body(f"when {{ if {ACCOUNT} then true else {FAILS} }}"), set()),
        # Not compared with a text that every request has exactly one of.
        (body("when { resource.account == resource.environment }"), set()),
        (body(f"when {{ {ROLES} }}"), set()),
        (body('when { context.ticket == "a" }'), set()),
        (body('when { principal.owner.subject == "a" }'), set()),
        (body(head="principal, action, resource is Scope"), set()),
        (body(), set()),
    ],
)
def test_what_a_policy_certainly_needs(text: str, keys: set[Key]) -> None:
    assert set(certain_keys(parsed(text))) == keys


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        (f'when {{ resource.account == "none" && {FAILS} }}', 0),
        (f'when {{ {FAILS} && resource.account == "none" }}', 1),
        (f'when {{ resource.account == "none" }} unless {{ {FAILS} }}', 0),
        (f'when {{ resource.account == "none" }} when {{ {FAILS} }}', 0),
        (f'when {{ {FAILS} }} when {{ resource.account == "none" }}', 1),
        (f'when {{ (principal.roles.contains("none") && resource.account == "none") && {FAILS} }}', 0),
    ],
)
def test_the_engine_stops_where_slicing_counts_on_it(text: str, errors: int) -> None:
    """Of an engine that evaluated in another order this would be told here, and not by a door that opened."""
    decision = policies(f"{FORBID} {text}; {PERMIT};").decide(facts())
    assert (len(decision.errors), decision.allowed) == (errors, not errors)


def test_every_single_attribute_is_told_as_the_engine_sees_it() -> None:
    assert set(_SINGLE) == SINGLE | {("principal", "")}


def test_only_what_pays_is_cut() -> None:
    made = {f"p{number}": parsed(body(f'when {{ resource.account == "{number}" }}')) for number in range(10)}
    made["everybody"] = parsed(body())
    assert cut(made, worth=11).by == {}
    slices = cut(made, worth=10)
    assert set(slices.always) == {"everybody"}
    assert {literal: set(found) for literal, found in slices.by["resource", "account"].items()} == {
        str(number): {f"p{number}"} for number in range(10)
    }


def test_a_large_set_decides_cut_as_it_does_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    sliced = many(100)
    monkeypatch.setattr(cedar, "cut", partial(cut, worth=10**9))
    whole = many(100)
    seen = set()
    for asked in requests(60):
        at_night = replace(asked, now=asked.now.replace(hour=3))
        nobodys = replace(asked, scope=replace(asked.scope, account="nobody's"))
        for each in (asked, at_night, nobodys):
            decision = sliced.decide(each)
            # The digest is of the texts, which are made unlike each other.
            assert replace(decision, set_digest="") == replace(whole.decide(each), set_digest="")
            seen.add(decision.effect)
    assert seen == set(Effect)


def test_a_forbid_in_one_part_and_a_permit_in_another_deny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cedar, "cut", partial(cut, worth=1))
    account = facts().scope.account
    mine = f'when {{ resource.account == "{account}" }}'
    for rules, expected in (
        (f"{PERMIT}; {FORBID} {mine};", (Effect.DENY, ("f",))),
        (f"{PERMIT} {mine}; {FORBID};", (Effect.DENY, ("f",))),
        (f"{PERMIT} {mine};", (Effect.ALLOW, ("p",))),
        (f'{PERMIT} when {{ resource.account == "x" }};', (Effect.DENY, ())),
        (f"{PERMIT}; {FORBID} {mine[:-1]} && {FAILS} }};", (Effect.DENY, ())),
    ):
        decision = policies(rules).decide(facts())
        assert (decision.effect, decision.policies) == expected
    assert decision.errors
