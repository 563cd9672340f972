"""What a set can see is what it names; the rest is not told, and changes nothing."""

import json
import re
from typing import Any

import cedarpy
import pytest

from broker.policy.question import CIRCUMSTANCES
from broker.policy.reads import attributes_read, of_any_action, policies_about, with_attributes, without_circumstances
from broker.scope.model import AccessClass
from tests.policy.world import PERMIT_ALL, SCHEMA, facts, policies

WHOLE = {*CIRCUMSTANCES, ""}


def read(text: str) -> frozenset[str]:
    return attributes_read(json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"], CIRCUMSTANCES)


@pytest.mark.parametrize(
    ("condition", "attributes"),
    [
        ("true", set()),
        ("context.hour == 3", {"hour"}),
        ('context.ticket like "OPS-*"', {"ticket"}),
        ("context has hour && context.hour > 3", {"hour"}),
        ('[context.step, "x"].contains(context.intent)', {"step", "intent"}),
        ('{a: context.step} == {a: "x"}', {"step"}),
        ("if context.has_plan then resource.parameters.isEmpty() else false", {"has_plan", "parameters"}),
        ("!(context.hour + 1 < -context.date)", {"hour", "date"}),
        ('principal.owner.groups.contains("g")', {"owner", "groups"}),
        ("context == context", WHOLE),
        ("(if true then context else context).hour == 3", WHOLE),
        ('[context].contains({hour: 3, step: "x"})', WHOLE),
    ],
)
def test_every_attribute_that_is_named_is_read(condition: str, attributes: set[str]) -> None:
    assert read(f"permit (principal, action, resource) when {{ {condition} }};") == attributes
    assert read(f"forbid (principal, action, resource) unless {{ {condition} }};") == attributes


def test_names_of_all_policies_count() -> None:
    assert read(
        PERMIT_ALL
        + '@id("a") permit (principal, action, resource) when { context.hour == 1 } unless { context.step == "x" };'
        + '@id("b") forbid (principal, action, resource) when { context.date == 1 };'
    ) == {"hour", "step", "date"}


def test_any_circumstance_can_be_left_out_of_the_schema_and_nothing_else_changes() -> None:
    for name in CIRCUMSTANCES:
        shorter = without_circumstances(SCHEMA, [name])
        gone = set(SCHEMA.splitlines()) - set(shorter.splitlines())
        assert len(gone) == 1 and gone.pop().split(":")[0].strip() in (name, f"{name}?")
        cedarpy.Schema.from_str(shorter)
    assert without_circumstances(SCHEMA, []) == SCHEMA
    cedarpy.Schema.from_str(without_circumstances(SCHEMA, CIRCUMSTANCES))


@pytest.mark.parametrize(
    ("schema", "unread"), [(SCHEMA, ["hours"]), (SCHEMA, ["hour", "hour"]), ("entity A;", ["hour"]), (SCHEMA, ["tier"])]
)
def test_a_circumstance_that_is_not_there_is_a_defect(schema: str, unread: list[str]) -> None:
    with pytest.raises(ValueError):
        without_circumstances(schema, unread)


def test_the_schema_has_exactly_the_circumstances_that_are_told() -> None:
    block = SCHEMA.split("type Circumstances = {\n")[1].split("};")[0]
    assert [line.split(":")[0].strip(" ?") for line in block.splitlines()] == list(CIRCUMSTANCES)


def test_a_set_that_reads_nothing_decides_as_one_that_reads_everything() -> None:
    blind = policies(PERMIT_ALL)
    condition = 'context.hour == 99 || resource.parameters.contains("no")'
    seeing = policies(
        PERMIT_ALL, f'@id("n") @reason("no") forbid (principal, action, resource) when {{ {condition} }};'
    )
    for asked in (facts(), facts(scope={"parameters": {"table": "other"}}), facts(request={"intent": "else"})):
        assert blind.decide(asked).allowed
        assert seeing.decide(asked).allowed


def test_entities_are_kept_over_parameters_only_where_no_policy_reads_them() -> None:
    first, second = facts(), facts(scope={"parameters": {"table": "other"}})
    reading = policies(
        '@id("r") permit (principal, action, resource) when { resource.parameters.contains("table=lines") };'
    )
    assert reading.decide(first).allowed
    assert not reading.decide(second).allowed
    assert reading.decide(first).allowed


@pytest.mark.parametrize(
    ("head", "read", "write"),
    [
        ("action", True, True),
        ('action == Action::"read"', True, False),
        ('action == Action::"write"', False, True),
        ('action == Action::"secrets"', False, False),
        ('action in Action::"request"', True, True),
        ('action in Action::"change"', False, True),
        ('action in Action::"read"', True, False),
        ('action in [Action::"read", Action::"secrets"]', True, False),
        ('action in [Action::"change", Action::"read"]', True, True),
    ],
)
def test_what_is_looked_at_of_each_access_class(head: str, read: bool, write: bool) -> None:
    decided = policies(
        PERMIT_ALL, f'@id("x") permit (principal, {head}, resource) when {{ context.active_count < 3 }};'
    )
    assert (decided.reads[AccessClass.READ] == {"active_count"}) is read
    assert (decided.reads[AccessClass.WRITE] == {"active_count"}) is write
    # The engine agrees: who is not about such a request does not decide on it.
    alone = policies(f'@id("x") permit (principal, {head}, resource);')
    assert alone.decide(facts()).allowed is read
    assert alone.decide(facts(scope={"access": AccessClass.WRITE})).allowed is write


def parsed(*texts: str) -> dict[str, dict[str, Any]]:
    policies: dict[str, dict[str, Any]] = json.loads(cedarpy.policies_to_json_str("".join(texts)))["staticPolicies"]
    return policies


HEADS = ("action", 'action == Action::"read"', 'action in Action::"change"', 'action in [Action::"read"]')


@pytest.mark.parametrize("head", HEADS)
def test_what_its_head_says_of_the_action_is_left_out_and_nothing_else(head: str) -> None:
    condition = 'when { context.step == "action" && ["Var"].contains(principal.entry) }'
    policies = parsed(PERMIT_ALL, f"forbid (principal, {head}, resource) {condition};")
    shorter = of_any_action(policies)
    assert shorter == parsed(PERMIT_ALL, f"forbid (principal, action, resource) {condition};")
    assert of_any_action({}) == {}


@pytest.mark.parametrize(
    "condition",
    [
        'when { action == Action::"read" }',
        'unless { action in Action::"change" }',
        "when { true } when { [action].contains(action) }",
        'when { context.hour == 3 && !(if context.has_plan then true else Action::"read" == action) }',
        "when { {a: [1, action]} == {a: [1, action]} }",
    ],
)
@pytest.mark.parametrize("head", HEADS)
def test_where_a_policy_looks_at_the_action_nothing_is_left_out(head: str, condition: str) -> None:
    looking = f"permit (principal, {head}, resource) {condition};"
    assert of_any_action(parsed(looking)) is None
    assert of_any_action(parsed(PERMIT_ALL, looking, PERMIT_ALL)) is None


@pytest.mark.parametrize(
    "head",
    [
        {"op": "==", "slot": "?action"},
        {"op": "in", "slot": "?action"},
        {"op": "in", "entities": [{"type": "Action", "id": "secrets"}, None]},
        {"op": "is", "entity": {"type": "Action", "id": "secrets"}},
        {"op": "is", "entity_type": "Action"},
    ],
)
def test_a_head_of_a_form_that_is_not_known_is_about_everything_and_stays(head: dict[str, Any]) -> None:
    (policy,) = parsed(PERMIT_ALL).values()
    policies = {"x": {**policy, "action": head}}
    assert all(policies_about(policies, access) == policies for access in AccessClass)
    assert of_any_action(policies) is None


def test_a_policy_about_a_group_by_name_is_about_none_of_its_actions() -> None:
    # The schema lets no set have one; Cedar says that no action is a group.
    policies = parsed('permit (principal, action == Action::"change", resource);')
    assert not any(policies_about(policies, access) for access in AccessClass)


def test_of_entities_those_attributes_are_left_that_are_read() -> None:
    names = set(
        re.findall(r"^ +(\w+)\??: ", re.sub(r"^type .*", "", SCHEMA, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    )
    assert {"owner", "groups", "sensitivity", "bound_on_revoke_seconds"} <= names
    assert with_attributes(SCHEMA, names) == SCHEMA
    for name in names:
        shorter = with_attributes(SCHEMA, names - {name})
        gone = [line for line in SCHEMA.splitlines() if line not in shorter.splitlines()]
        assert {line.split(":")[0].strip().removesuffix("?") for line in gone} == {name}
        cedarpy.Schema.from_str(shorter)
    # Circumstances are somebody else's to cut, and tags are no attributes.
    assert "ttl_seconds: Long" in with_attributes(SCHEMA, ())
    assert "} tags String;" in with_attributes(SCHEMA, ())
    cedarpy.Schema.from_str(with_attributes(SCHEMA, ()))


@pytest.mark.parametrize(
    "condition",
    [
        'principal.owner.groups.contains("platform")',
        'principal.owner == Person::"https://id.test#ada"',
        'principal.hasTag("namespace")',
        "resource has bound_on_revoke_seconds && resource.bound_on_revoke_seconds <= 60",
        'resource in Template::"orders"',
        "principal == principal && resource == resource",
    ],
)
def test_what_a_policy_reads_is_there_beside_what_none_does(condition: str) -> None:
    """Alone in its set, and in one that reads everything, a policy finds the same."""
    text = f'@id("x") permit (principal, action, resource) when {{ {condition} }};'
    everything = " || ".join(
        f"{whose} has {name}"
        for whose, names in (
            ("principal", ("tier", "path", "tools", "roles")),
            ("resource", ("name", "binding", "sensitivity")),
        )
        for name in names
    )
    all_read = f'@id("y") @reason("no") forbid (principal, action, resource) when {{ !({everything}) }};'
    alone, among = policies(text).decide(facts()), policies(text, all_read).decide(facts())
    assert (alone.effect, alone.errors) == (among.effect, among.errors)
    assert alone.errors == ()
