"""Which policies may be left out of a request: those that certainly neither hold nor fail."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import cedarpy
import pytest

from bench.decisions import policies as many
from bench.decisions import requests
from broker.policy import engine
from broker.policy.decision import Effect
from broker.policy.question import parties, telling
from broker.policy.slicing import KEPT, PRINCIPAL, SINGLE, Key, certain_keys, cut
from tests.policy import test_differential as by_chance
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
        (body(f'when {{ {ROLES} && resource.sensitivity == "x" }}'), {Key(("resource", "sensitivity"), "x")}),
        (
            body(f"when {{ {ACCOUNT} }}", head='principal is Agent, action, resource is Scope in Template::"t"'),
            {TEAM},
        ),
        (body(head='principal == Agent::"spiffe://x/y", action, resource'), {Key(("principal", ""), "spiffe://x/y")}),
        # What stands before may fail, or is in no form that is known not to.
        (body(f"when {{ {FAILS} && {ACCOUNT} }}"), set()),
        (body(f"when {{ context.hour < 6 && {ACCOUNT} }}"), set()),
        (body(f"when {{ {FAILS} }} when {{ {ACCOUNT} }}"), set()),
        (body(f'when {{ context.approvals.contains("r") && {ACCOUNT} }}'), set()),
        (body(f"when {{ principal.roles.contains(context.ticket) && {ACCOUNT} }}"), set()),
        (body(f"when {{ principal.roles.contains(3) && {ACCOUNT} }}"), set()),
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
        (body("when { resource.account == 3 }"), set()),
        (body('when { resource.account == {"Value": "a"} }'), set()),
        (body(head="principal, action, resource is Scope"), set()),
        (body(head='principal in Agent::"spiffe://x/y", action, resource'), set()),
        (body(head='principal, action, resource == Template::"t"'), set()),
        (body(head='principal == Person::"x#y", action, resource'), set()),
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


@pytest.mark.parametrize("what", sorted(SINGLE))
def test_every_single_attribute_is_told_as_the_engine_sees_it(
    what: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "cut", partial(cut, worth=10**9, kinds=1))
    text = telling(what)(parties(facts(), with_parameters=True, with_behind=True))
    for found, allowed in ((text, True), (f"{text}x", False)):
        seen = policies(f'{PERMIT} when {{ {".".join(what)} == "{found}" }};')
        assert seen.decide(facts()).allowed is allowed


def test_the_principal_is_told_as_the_engine_sees_it() -> None:
    agent = telling(PRINCIPAL)(parties(facts(), with_parameters=True, with_behind=True))
    assert policies(f'@id("p") permit (principal == Agent::"{agent}", action, resource);').decide(facts()).allowed


def test_only_what_pays_is_cut() -> None:
    made = {f"p{number}": parsed(body(f'when {{ resource.account == "{number}" }}')) for number in range(10)}
    made["everybody"] = parsed(body())
    assert cut(made, worth=11).by == {}
    slices = cut(made, worth=10)
    assert set(slices.rest) == {"everybody"}
    assert {literal: set(found) for literal, found in slices.by["resource", "account"].items()} == {
        str(number): {f"p{number}"} for number in range(10)
    }


def test_each_is_cut_by_what_most_compare() -> None:
    account, entry = ("resource", "account"), ("principal", "entry")
    both = {f"b{number}": parsed(body(f'when {{ {ACCOUNT} && principal.entry == "{number}" }}')) for number in range(3)}
    one = {"e": parsed(body('when { principal.entry == "0" }'))}
    # As many compare the account as the entry: by the last of the names, then.
    slices = cut(both, worth=3)
    assert (slices.rest, slices.by) == ({}, {account: {"a": both}})
    # One more compares the entry.
    slices = cut({**both, **one}, worth=4)
    assert (slices.rest, slices.by) == (
        {},
        {entry: {"0": {"b0": both["b0"], **one}, "1": {"b1": both["b1"]}, "2": {"b2": both["b2"]}}},
    )
    # What is chosen for too few is not cut, though it could have been by something else.
    assert cut({**both, **one}, worth=5).rest == {**both, **one}


def test_a_slice_pays_from_sixty_four_on() -> None:
    made = {f"p{number}": parsed(body(f'when {{ resource.account == "{number}" }}')) for number in range(64)}
    assert not cut(made).rest
    assert not cut(dict([*made.items()][:63])).by


def test_nothing_is_cut_into_nothing() -> None:
    assert cut({}) == ({}, {}, {}, {})


def test_the_rest_is_sorted_by_kind_of_request() -> None:
    texts = {
        "everybody": body(),
        "here": body('when { resource.environment == "dev" }'),
        "there": body('when { resource.environment == "production" && principal.tier == "advisory" }'),
        "them": body('when { principal.tier == "advisory" }'),
    }
    slices = cut({name: parsed(text) for name, text in texts.items()})
    environment, tier = ("resource", "environment"), ("principal", "tier")
    assert slices.kinds == {environment: {"dev", "production"}, tier: {"advisory"}}
    assert [set(slices.of_kind(kind)) for kind in ((None, None), ("dev", None), ("production", "advisory"))] == [
        {"everybody"},
        {"everybody", "here"},
        {"everybody", "there", "them"},
    ]
    assert slices.needs == {
        "here": Key(environment, "dev"),
        "there": Key(environment, "production"),
        "them": Key(tier, "advisory"),
    }
    # Three by environment (each of two, or another), by two by tier, are six.
    for kinds, told in ((6, {environment, tier}), (5, {environment}), (3, {environment})):
        assert set(cut({name: parsed(text) for name, text in texts.items()}, kinds=kinds).kinds) == told
    # What most compare comes first.
    more = {**texts, "others": body('when { principal.tier == "autonomous" }')}
    assert set(cut({name: parsed(text) for name, text in more.items()}, kinds=3).kinds) == {tier}
    # No more kinds than are said, and no more policies kept parsed for them: then more are evaluated, for all alike.
    assert set(cut({name: parsed(text) for name, text in texts.items()}, kinds=2).kinds) == {tier}
    assert cut({name: parsed(text) for name, text in texts.items()}, kinds=1).kinds == {}
    many = {f"{number}": parsed(body()) for number in range(KEPT // 2)}
    assert set(cut({**many, "them": parsed(texts["them"])}).kinds) == set()
    del many["0"]
    assert set(cut({**many, "them": parsed(texts["them"])}).kinds) == {tier}


def test_a_large_set_decides_cut_as_it_does_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    sliced = many(100)
    monkeypatch.setattr(engine, "cut", partial(cut, worth=10**9, kinds=1))
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
    monkeypatch.setattr(engine, "cut", partial(cut, worth=1))
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


@pytest.mark.slow
@pytest.mark.parametrize("part", [0, 1])
def test_any_set_decides_cut_as_it_does_whole(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole decision is the same: effect, determining policies, explanations, errors and missing approvals."""
    chance = random.Random(f"cut {part}")
    asked = [by_chance.request(chance, by_chance.parties(chance)) for _ in range(25)]
    seen: Counter[Effect] = Counter()
    failed = 0
    for _ in range(12):
        rules = [by_chance.rule(chance) for _ in range(chance.randrange(2, 25))]
        text = "\n".join(by_chance.policy(index, each) for index, each in enumerate(rules))
        made = []
        for how in by_chance.CUTS:
            monkeypatch.setattr(engine, "cut", partial(cut, **how))
            made.append(policies(f"// {how}\n{text}"))  # equal texts are one set
        for each in asked:
            finely, by_kind, whole = (replace(decided.decide(each), set_digest="") for decided in made)
            assert finely == by_kind == whole, (text, each)
            seen[whole.effect] += 1
            failed += bool(whole.errors)
    assert min(seen[effect] for effect in Effect) > 0 and failed > 0, (seen, failed)
