"""Asking the engine: every request is of the schema, all that hold are named, and nobody is asked twice for nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import cedarpy
import orjson
import pytest

from broker.identity.agent import Person
from broker.identity.spiffe_id import SpiffeId
from broker.policy import engine
from broker.policy.decision import Effect
from broker.policy.facts import RequestFacts
from broker.policy.slicing import cut
from broker.scope.model import AccessClass
from tests.policy.world import PERMIT_ALL, SCHEMA, facts, policies

READING = (
    '@id("p") permit (principal, action, resource) when {'
    ' principal.roles.contains("analyst") && resource.parameters.contains("table=lines") && context.ticket == "" &&'
    ' !context.active_grants.contains("x") &&'
    ' (if principal.hasTag("team") then principal.getTag("team") == "red" else true) };'
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[dict[str, Any], bool]]]:
    """Every question to the engine: the request, and whether it was held against the schema."""
    seen: list[tuple[dict[str, Any], bool]] = []
    real = cedarpy.is_authorized

    def counted(request: dict[str, Any], *arguments: Any, schema: Any = None) -> cedarpy.AuthzResult:
        seen.append((request, schema is not None))
        return real(request, *arguments, schema=schema)

    monkeypatch.setattr(cedarpy, "is_authorized", counted)
    yield seen


def test_the_schema_says_nothing_of_values() -> None:
    """What is equal in form conforms alike: no enumerations, no extension types, no records within records."""
    types = set(re.findall(r"^ +\w+\??: (.*?),", SCHEMA, re.MULTILINE))
    assert types == {"String", "Long", "Bool", "Set<String>", "Person"}
    assert " enum " not in SCHEMA and "} tags String;" in SCHEMA


def test_each_form_is_held_against_the_schema_once(asked: list[tuple[dict[str, Any], bool]]) -> None:
    decided = policies(READING, '@id("q") permit (principal, action, resource) when { context has on_behalf_of };')
    for number in range(3):
        assert decided.decide(facts(scope={"parameters": {"table": "lines", "n": str(number)}})).allowed
    assert [schema for _, schema in asked] == [True, False, False]
    # Another form: a list that was empty, somebody who was not there.
    decided.decide(facts(situation={"active_grants": frozenset({"y"})}))
    decided.decide(facts(situation={"on_behalf_of": facts().agent.owner}))
    assert [schema for _, schema in asked[3:]] == [True, True]


@pytest.mark.parametrize(
    "wrong",
    [
        {"agent": {"roles": frozenset({1})}},
        {"agent": {"segments": (("team", 7),)}},
        {"scope": {"resource": 7}},
        {"request": {"ticket": 7}},
        {"situation": {"active_grants": frozenset({7})}},
    ],
)
def test_what_is_not_of_the_schema_is_refused_after_what_was(wrong: dict[str, Any]) -> None:
    named = '@id("n") permit (principal, action, resource) when { resource.name != "" };'
    decided = policies(READING, named)
    good = [
        facts(),
        facts(scope={"parameters": {"table": "lines", "n": "1"}}),
        facts(agent={"segments": (("team", "red"),)}),
    ]
    for _ in range(2):
        assert all(decided.decide(each).allowed for each in good)
        refused = decided.decide(facts(**wrong))
        assert (refused.effect, refused.policies, len(refused.errors)) == (Effect.DENY, (), 1)


def test_where_a_policy_looks_at_the_action_the_engine_knows_which_are_changes() -> None:
    decided = policies('@id("p") permit (principal, action, resource) when { action in Action::"change" };')
    for number in range(3):
        for access in AccessClass:
            each = facts(scope={"access": access, "resource": f"r{number}"})
            assert decided.decide(each).allowed is (access is not AccessClass.READ)


@pytest.mark.parametrize("head", ['action in Action::"change"', 'action in [Action::"change", Action::"read"]'])
def test_a_group_of_actions_in_a_head_is_known_of_everybody_who_asks(head: str) -> None:
    """Of the second, too, whose entities are not held against the schema, which alone knows the groups."""
    forbidding = policies(PERMIT_ALL, f'@id("f") @reason("x") forbid (principal, {head}, resource);')
    permitting = policies(f'@id("p") permit (principal, {head}, resource);')
    for number in range(3):
        for access in AccessClass:
            each = facts(scope={"access": access, "resource": f"r{number}"})
            about = access is not AccessClass.READ or "read" in head
            assert forbidding.decide(each).allowed is not about
            assert permitting.decide(each).allowed is about


def test_all_that_hold_are_known_behind_a_gate(asked: list[tuple[dict[str, Any], bool]]) -> None:
    """Asked again are those alone that read approvals; what else holds has been said."""
    gate = (
        '@id("g") @reason("x") @approval("a") forbid (principal, action, resource)'
        ' when { context.ticket == "" } unless { context.approvals.contains("a") };'
    )
    waiting = policies(PERMIT_ALL, gate).decide(facts())
    assert (waiting.effect, waiting.policies, waiting.approvals) == (Effect.NEEDS_APPROVAL, ("g",), ("a",))
    assert [sorted(_circumstances(each)) for each, _ in asked] == [["approvals", "ticket"]] * 2
    # Without a permit there is nothing to open.
    assert policies(gate).decide(facts()).effect is Effect.DENY
    # Nor where the permit itself does not like the approval.
    moody = '@id("m") permit (principal, action, resource) unless { context.approvals.contains("a") };'
    assert policies(moody, gate).decide(facts()).effect is Effect.DENY
    assert policies(moody, gate, PERMIT_ALL).decide(facts()).effect is Effect.NEEDS_APPROVAL


def test_what_was_asked_is_answered_from_memory_with_every_approval(
    asked: list[tuple[dict[str, Any], bool]],
) -> None:
    def gate(name: str, when: str) -> str:
        return (
            f'@id("{name}") @reason("x") @approval("{name}") forbid (principal, action, resource)'
            f' when {{ {when} }} unless {{ context.approvals.contains("{name}") }};'
        )

    gated = policies(PERMIT_ALL, gate("a", "true"), gate("b", 'context.approvals.contains("a")'))
    first = gated.decide(facts())
    assert (first.approvals, len(asked)) == (("a", "b"), 3)  # without, with a, with both
    assert gated.decide(facts()) == first
    assert len(asked) == 3


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was parsed for a decision: ``entities``, ``entities, checked`` against the schema, ``policies``."""
    seen: list[str] = []

    entities, policies = cedarpy.Entities.from_json_str, cedarpy.PolicySet.from_json_str

    def entities_told(text: str, schema: cedarpy.Schema | None) -> cedarpy.Entities:
        seen.append("entities" if schema is None else "entities, checked")
        return entities(text, schema)

    def policies_told(text: str) -> cedarpy.PolicySet:
        seen.append("policies")
        return policies(text)

    monkeypatch.setattr(cedarpy.Entities, "from_json_str", entities_told)
    monkeypatch.setattr(cedarpy.PolicySet, "from_json_str", policies_told)
    yield seen


@pytest.mark.parametrize("worth", [1, 10**9])
def test_entities_are_held_against_the_schema_once_but_where_a_policy_looks_at_the_action(
    worth: int, parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "cut", partial(cut, worth=worth))
    named = f'@id("n") permit (principal, action, resource) when {{ resource.account == "acct" && {worth} > 0 }};'
    agents = [SpiffeId("example.org", f"/agent/{number}") for number in range(3)]
    asking = [facts(agent={"spiffe_id": each}) for each in agents]
    plain = policies(PERMIT_ALL, named)
    assert all(plain.decide(each).allowed for each in asking)
    assert [each for each in parsed if each != "policies"] == ["entities, checked", "entities", "entities"]
    parsed.clear()
    looking = policies(PERMIT_ALL, named.replace("&&", '&& action in Action::"request" &&'))
    assert all(looking.decide(each).allowed for each in asking)
    assert [each for each in parsed if each != "policies"] == ["entities, checked"] * 3


def test_the_policies_about_a_kind_of_request_are_parsed_once(parsed: list[str]) -> None:
    known = policies(
        PERMIT_ALL,
        '@id("f") @reason("x") forbid (principal, action, resource) when { resource.environment == "production" };',
        "// parsed anew",
    )
    everywhere = [facts(scope={"environment": each}) for each in ("dev", "lab", "production", "staging", "dev")]
    parsed.clear()
    assert [known.decide(each).allowed for each in everywhere] == [True, True, False, True, True]
    # Production, and wherever no policy is about; and who asks for what a second time is known.
    assert Counter(parsed) == {"policies": 2, "entities, checked": 2, "entities": 2}


def test_what_no_policy_reads_makes_no_other_question(asked: list[tuple[dict[str, Any], bool]]) -> None:
    def different(number: int) -> RequestFacts:
        return facts(
            scope={"parameters": {"n": str(number)}},
            request={"intent": str(number)},
            situation={"on_behalf_of": Person("https://id.test", str(number), "")},
        )

    blind = policies('@id("p") permit (principal, action, resource) when { context.ticket == "" };')
    assert all(blind.decide(different(number)).allowed for number in range(3))
    assert len(asked) == 1
    seeing = policies('@id("p") permit (principal, action, resource) when { context has on_behalf_of };')
    assert all(seeing.decide(different(number)).allowed for number in range(3))
    assert len(asked) == 4


@pytest.mark.parametrize(("errors", "told"), [(["no schema"], "no schema"), ([], "the engine gave no decision")])
@pytest.mark.parametrize("sliced", [False, True])
def test_an_engine_that_decides_nothing_is_a_deny(
    errors: list[str], told: str, sliced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cedarpy says of a question that it cannot read, whatever it says of another part of the set."""
    monkeypatch.setattr(engine, "cut", partial(cut, worth=1 if sliced else 10**9))
    named = '@id("n") permit (principal, action, resource) when { resource.account == "acct" };'
    parts = [False] * sliced + [True]  # of two parts that are asked, the second
    real = cedarpy.is_authorized

    def undecided(*arguments: Any, **more: Any) -> cedarpy.AuthzResult:
        if not parts.pop(0):
            return real(*arguments, **more)
        return cedarpy.AuthzResult({"decision": "NoDecision", "diagnostics": {"reason": [], "errors": errors}})

    monkeypatch.setattr(cedarpy, "is_authorized", undecided)
    decision = policies(PERMIT_ALL, named, f"// {sliced} {errors}").decide(facts())
    assert (decision.effect, decision.policies, decision.errors) == (Effect.DENY, (), (told,))
    assert (decision.explanations, parts) == ((), [])


def test_of_a_kind_of_request_is_told_what_the_policies_about_it_read(
    asked: list[tuple[dict[str, Any], bool]],
) -> None:
    decided = policies(
        PERMIT_ALL,
        '@id("f") @reason("x") forbid (principal, action, resource)'
        ' when { resource.environment == "production" && context.intent != "look" };',
    )
    at_home, abroad = (facts(scope={"environment": each}) for each in ("dev", "production"))
    assert [decided.decide(each).allowed for each in (at_home, abroad, _intending(abroad), _intending(at_home))] == [
        True,
        True,
        False,
        True,
    ]
    assert [sorted(_circumstances(each)) for each, _ in asked] == [[], ["intent"], ["intent"], []]


def test_a_slice_is_told_what_it_reads_and_the_rest_what_that_does(
    asked: list[tuple[dict[str, Any], bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "cut", partial(cut, worth=1))
    sliced = policies(
        PERMIT_ALL,
        '@id("f") @reason("x") forbid (principal, action, resource)'
        ' when { resource.account == "acct" && context.intent != "look" };',
        "// sliced",
    )
    assert [sliced.decide(facts(scope={"resource": name})).allowed for name in ("a", "b")] == [True, True]
    assert not sliced.decide(_intending(facts())).allowed
    assert [(sorted(_circumstances(each)), checked) for each, checked in asked] == [
        (["intent"], True),  # the form of whatever any part of it reads
        (["intent"], False),
        *[([], False), (["intent"], False)] * 2,
    ]


def _intending(what: RequestFacts) -> RequestFacts:
    return replace(what, request=replace(what.request, intent="other"))


def _circumstances(request: dict[str, Any]) -> dict[str, Any]:
    told = orjson.loads(request["context"])
    assert isinstance(told, dict)
    return told
