"""The facts as policies see them, asked through policies: what cannot be decided on was not handed over."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from broker.identity.agent import Person, Tier
from broker.identity.behalf import Wanted
from broker.lease.credential import Binding, ContractClass
from broker.policy.facts import wanted
from broker.policy.question import entities, parties
from broker.scope.model import AccessClass
from tests.policy.world import PERMIT_ALL, facts, policies


@pytest.mark.parametrize(
    "condition",
    [
        'principal == Agent::"spiffe://example.org/agent/analyst"',
        'principal.trust_domain == "example.org" && principal.path == "/agent/analyst"',
        'principal.path like "/agent/*"',
        'principal.owner == Person::"https://id.example.org#dana"',
        'principal.owner.issuer == "https://id.example.org" && principal.owner.subject == "dana"',
        'principal.owner.groups.contains("platform")',
        'principal.tier == "advisory" && principal.roles.contains("analyst")',
        'principal.environments.containsAll(["dev", "staging"])',
        'resource in Template::"orders-readonly"',
        'resource.template == "orders-readonly" && resource.connector == "openbao"',
        'resource.account == "acct" && resource.environment == "dev" && resource.name == "orders"',
        'resource.access == "read" && resource.actions.contains("select")',
        'resource.contract_class == "IMMEDIATE"',
        'resource.parameters.contains("table=lines")',
        "context.ttl_seconds == 60",
        "context.date == 20261224 && context.hour == 23 && context.weekday == 4",
        'context.intent == "look" && context.step == "" && context.ticket == ""',
        "!context.has_reason && !context.has_prompt && !context.has_tool_call && !context.has_plan",
        'action == Action::"read" && action in Action::"request" && !(action in Action::"change")',
    ],
)
def test_policies_see(condition: str) -> None:
    seen = policies(f'@id("x") permit (principal, action, resource) when {{ {condition} }};')
    decision = seen.decide(facts())
    assert decision.errors == ()
    assert decision.allowed


@pytest.mark.parametrize(
    ("change", "condition"),
    [
        ({"scope": {"ttl": timedelta(milliseconds=1)}}, "context.ttl_seconds == 1"),  # up, so no limit is slipped under
        ({"scope": {"ttl": timedelta(seconds=300, microseconds=1)}}, "context.ttl_seconds == 301"),
        ({"now": datetime(2027, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=2)))}, "context.date == 20261231"),
        ({"now": datetime(2027, 1, 3, tzinfo=UTC)}, "context.weekday == 7 && context.hour == 0"),
        (
            {"request": {"reason": "r", "prompt": "p", "tool_call": "c", "plan": "p"}},
            "context.has_reason && context.has_prompt && context.has_tool_call && context.has_plan",
        ),
        ({"agent": {"tier": Tier.SEMI_AUTONOMOUS}}, 'principal.tier == "semi-autonomous"'),
        ({"agent": {"roles": frozenset()}}, '!principal.roles.contains("analyst")'),
        ({"contract": {"cls": ContractClass.EXPIRY_ONLY}}, 'resource.contract_class == "EXPIRY_ONLY"'),
        ({"contract": {"binding": Binding.KEY}}, 'resource.binding == "KEY"'),
        ({"contract": {"on_expiry": timedelta(milliseconds=7001)}}, "resource.bound_on_expiry_seconds == 8"),
        ({"contract": {"on_revoke": None}}, "!(resource has bound_on_revoke_seconds)"),
        (
            {"contract": {"on_broker_dead": timedelta(seconds=2)}},
            "resource has bound_on_broker_dead_seconds && resource.bound_on_broker_dead_seconds == 2",
        ),
        (
            {"contract": {"on_upstream_dead": timedelta(seconds=3)}},
            "resource has bound_on_upstream_dead_seconds && resource.bound_on_upstream_dead_seconds == 3",
        ),
        ({"request": {"intent": '" || true //\n\0\u202e'}}, 'context.intent != "look"'),
    ],
)
def test_policies_see_what_changed(change: dict[str, Any], condition: str) -> None:
    seen = policies(f'@id("x") permit (principal, action, resource) when {{ {condition} }};')
    assert seen.decide(facts(**change)).allowed
    assert not seen.decide(facts()).allowed


@pytest.mark.parametrize("name", ["reason", "prompt", "tool_call", "plan"])
def test_what_nobody_could_read_is_none(name: str) -> None:
    seen = policies(f'@id("x") permit (principal, action, resource) when {{ context.has_{name} }};')
    for nothing in (" \t\n", "\u200b", "\u2060\ufeff"):
        assert not seen.decide(facts(request={name: nothing})).allowed
    assert seen.decide(facts(request={name: "."})).allowed


@pytest.mark.parametrize("access", list(AccessClass))
def test_every_access_class_is_an_action_of_the_schema(access: AccessClass) -> None:
    group = "request" if access is AccessClass.READ else "change"
    asked = facts(scope={"access": access})
    assert policies(PERMIT_ALL).decide(asked).allowed
    named = policies(f'@id("x") permit (principal, action == Action::"{access.value}", resource);')
    assert named.decide(asked).allowed
    grouped = policies(f'@id("x") permit (principal, action in Action::"{group}", resource);')
    assert grouped.decide(asked).allowed


def test_what_is_kept_between_calls_never_answers_for_somebody_else() -> None:
    # The same set is asked about each change in turn, twice: whoever differs must be decided on their own facts.
    only = policies(
        '@id("x") permit (principal, action, resource) when { resource.name == "orders" && '
        'principal.roles.contains("analyst") && resource.parameters.contains("table=lines") && '
        'resource.contract_class == "IMMEDIATE" };'
    )
    others = [
        facts(scope={"resource": "other"}),
        facts(scope={"parameters": {"table": "orders"}}),
        facts(agent={"roles": frozenset({"other"})}),
        facts(contract={"cls": ContractClass.EXPIRY_ONLY}),
    ]
    for _ in range(2):
        assert only.decide(facts()).allowed
        assert [only.decide(other).allowed for other in others] == [False] * 4


def test_on_whose_behalf_is_told_with_all_that_is_known_of_them() -> None:
    behalf = "context has on_behalf_of && context.on_behalf_of"
    groups = policies(f'@id("x") permit (principal, action, resource) when {{ {behalf}.groups.contains("ops") }};')
    subject = policies(f'@id("x") permit (principal, action, resource) when {{ {behalf}.subject == "bea" }};')
    bea = Person("https://id.example.org", "bea", "Bea", groups=frozenset({"ops"}))
    for seen in (groups, subject):
        assert seen.decide(facts(situation={"on_behalf_of": bea})).allowed
        # Who has the same place in the question and is somebody else; and nobody.
        for other in (replace(bea, subject="eve", groups=frozenset()), None):
            decision = seen.decide(facts(situation={"on_behalf_of": other}))
            assert (decision.allowed, decision.errors) == (False, ())


def test_an_owner_who_is_also_the_one_it_is_for_is_one_person() -> None:
    both = policies(
        '@id("x") permit (principal, action, resource) when { context has on_behalf_of &&'
        ' context.on_behalf_of == principal.owner && principal.owner.groups.contains("platform") };'
    )
    assert both.decide(facts(situation={"on_behalf_of": facts().agent.owner})).allowed
    assert not both.decide(facts(situation={"on_behalf_of": Person("https://id.example.org", "x", "X")})).allowed


@pytest.mark.parametrize(
    ("read", "told"),
    [
        (set(), {}),
        ({"owner"}, {"dana": {}}),
        ({"on_behalf_of"}, {"bea": {}}),
        ({"owner", "on_behalf_of", "subject"}, {"dana": {"subject": "dana"}, "bea": {"subject": "bea"}}),
    ],
)
def test_of_persons_those_are_told_whom_a_policy_looks_at(read: set[str], told: dict[str, dict[str, str]]) -> None:
    bea = Person("https://id.example.org", "bea", "Bea")
    who = parties(facts(situation={"on_behalf_of": bea}), with_parameters=False, with_behind=True)
    everybody = json.loads(entities(who, frozenset(read))[0])
    persons = {each["uid"]["id"]: each["attrs"] for each in everybody if each["uid"]["type"] == "Person"}
    assert persons == {f"https://id.example.org#{name}": attributes for name, attributes in told.items()}
    assert sorted(each["uid"]["type"] for each in everybody) == sorted(
        ["Agent", "Template", "Scope", *("Person" for _ in told)]
    )


def test_what_is_wanted_of_a_person_is_what_is_asked_for() -> None:
    assert wanted(facts().scope) == Wanted("orders-readonly", "dev", "read")
