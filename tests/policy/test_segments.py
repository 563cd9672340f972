"""What policies see of an agent that a pattern matched, and which names in policies are looked up."""

from __future__ import annotations

import json
from typing import Any

import cedarpy
import pytest

from broker.policy.cedar import PolicyProblems
from broker.policy.mentions import Kind, Mention, mentions
from broker.policy.statements import Statement
from tests.policy.world import PERMIT_ALL, facts, policies

PAYMENTS: dict[str, Any] = {"principal": "jobs", "segments": (("namespace", "payments"), ("job", "nightly"))}


def permit(condition: str) -> str:
    return f'@id("x") permit (principal, action, resource) when {{ {condition} }};'


@pytest.mark.parametrize(
    "condition",
    [
        'principal.entry == "jobs"',
        '["jobs", "other"].contains(principal.entry)',
        'principal.hasTag("namespace") && principal.getTag("namespace") == "payments"',
        'principal.hasTag("namespace") && ["payments", "refunds"].contains(principal.getTag("namespace"))',
        'principal.hasTag("namespace") && principal.getTag("namespace") == resource.account',
        'principal.hasTag("job") && principal.getTag("job") like "night*"',
        '!principal.hasTag("tenant")',
    ],
)
def test_policies_see_the_entry_and_the_segments(condition: str) -> None:
    seen = policies(permit(condition))
    decision = seen.decide(facts(agent=PAYMENTS, scope={"account": "payments"}))
    assert decision.errors == ()
    assert decision.allowed


@pytest.mark.parametrize(
    "agent",
    [
        {},
        {"segments": (("namespace", "orders"),)},
        {"segments": (("namespace", "Payments"),)},
        {"segments": (("job", "payments"),)},
        {"segments": (("namespace", "payments2"),)},
    ],
)
def test_another_segment_is_another_answer_and_never_an_error(agent: dict[str, Any]) -> None:
    seen = policies(permit('principal.hasTag("namespace") && principal.getTag("namespace") == "payments"'))
    # In turns: what is kept between calls of one identity must not answer for the other.
    for _ in range(2):
        assert seen.decide(facts(agent=PAYMENTS)).allowed
        refused = seen.decide(facts(agent=agent))
        assert not refused.allowed
        assert refused.errors == ()


def test_a_segment_is_a_value_and_never_policy() -> None:
    hostile = '" || true || "'
    seen = policies(permit('principal.hasTag("namespace") && principal.getTag("namespace") == "payments"'))
    assert not seen.decide(facts(agent={"segments": (("namespace", hostile),)})).allowed
    assert not seen.decide(facts(agent={"segments": ((hostile, "payments"),)})).allowed


def test_a_segment_is_asked_for_before_it_is_used() -> None:
    """Without hasTag an agent that has none would make the policy fail, and a failing policy denies everybody."""
    with pytest.raises(PolicyProblems) as refused:
        policies(permit('principal.getTag("namespace") == "payments"'))
    (problem,) = refused.value.problems
    assert "unable to guarantee safety of access to tag" in problem.message


# --------------------------------------------------------------------------- names

POLICY = """\
@id("jobs") // not this "jobs"
@reason("Of \\"analyst\\".")
forbid (
  principal == Agent::"spiffe://example.org/a",
  action in Action::"change",
  resource in Template::"orders"
) when {
  principal.entry == "jobs" ||
  ["analyst"].contains(principal.entry) || "c" != principal.entry ||
  principal.owner == Person::"https://id.example.org#dana" ||
  (principal.hasTag("namespace") &&
   principal.getTag("namespace") == "payments")
} unless {
  [Agent::"spiffe://example.org/b"].contains(principal) || context.step == "entry" || resource.name == "c"
};
"""


def test_every_name_is_found_with_its_line() -> None:
    (parsed,) = json.loads(cedarpy.policies_to_json_str(POLICY))["staticPolicies"].values()
    found = sorted(mentions(Statement("f", 10, POLICY), "jobs", parsed))
    assert found == [
        Mention("f", 13, "jobs", Kind.AGENT, "spiffe://example.org/a"),
        Mention("f", 15, "jobs", Kind.TEMPLATE, "orders"),
        Mention("f", 17, "jobs", Kind.ENTRY, "jobs"),
        Mention("f", 18, "jobs", Kind.ENTRY, "analyst"),
        Mention("f", 18, "jobs", Kind.ENTRY, "c"),
        Mention("f", 19, "jobs", Kind.PERSON, "https://id.example.org#dana"),
        Mention("f", 20, "jobs", Kind.SEGMENT, "namespace"),
        Mention("f", 23, "jobs", Kind.AGENT, "spiffe://example.org/b"),
    ]


def test_a_line_quotes_a_name_as_it_is_written_and_is_no_annotation() -> None:
    text = '@id("x")\n  @entry("büro")\npermit (principal, action, resource)\nwhen { principal.entry == "büro" };'
    assert policies(text).mentions == (Mention("0.cedar", 4, "x", Kind.ENTRY, "büro"),)


@pytest.mark.parametrize(
    "name", ["==", ".", "has", "like", "hasTag", "contains", "Var", "&&", "Record", "Value", "type"]
)
def test_an_attribute_of_a_record_may_be_called_as_an_operator_is(name: str) -> None:
    record = f'{{"{name}": principal.entry == "e", "id": context.hour}}'
    read = policies(permit(f'{record} == {{"{name}": true, "id": 23}}'))
    assert [(each.kind, each.name) for each in read.mentions] == [(Kind.ENTRY, "e")]
    assert (read.attributes, read.compared) == ({"entry", "hour"}, {"entry": ("e",)})
    assert read.decide(facts(agent={"principal": "e"})).allowed
    assert not read.decide(facts()).allowed


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ('@id("x") permit (principal in Agent::"a", action, resource);', Kind.AGENT, "a"),
        ('@id("x") permit (principal is Agent in Agent::"a", action, resource);', Kind.AGENT, "a"),
        ('@id("x") permit (principal, action, resource is Scope in Template::"t");', Kind.TEMPLATE, "t"),
        (permit('if context.has_plan then principal == Agent::"a" else false'), Kind.AGENT, "a"),
        (permit('{a: Agent::"a"}.a == principal'), Kind.AGENT, "a"),
        (permit('!(principal.entry == "e")'), Kind.ENTRY, "e"),
        (permit('["e"].containsAny([principal.entry])'), None, ""),  # not understood: nothing is complained about
    ],
)
def test_names_are_found_wherever_cedar_takes_them(text: str, kind: Kind | None, name: str) -> None:
    found = [(each.kind, each.name) for each in policies(text).mentions]
    assert found == ([] if kind is None else [(kind, name)])


@pytest.mark.parametrize(
    ("condition", "texts"),
    [
        ('resource.account == "b" || "a" == resource.account', {"account": ("a", "b")}),
        ('resource.account != "b" && !(principal.entry == "e")', {"account": ("b",), "entry": ("e",)}),
        ('["d", "c"].contains(principal.entry)', {"entry": ("c", "d")}),
        ('context.approvals.containsAll(["x", "y"])', {"approvals": ("x", "y")}),
        ('context.approvals.containsAny(["x"]) || context.approvals.contains("z")', {"approvals": ("x", "z")}),
        ('principal.path like "/ns/*/x*"', {"path": ("/ns//x",)}),
        (
            'if context.has_plan then context.step == "s" else context.ticket like "OPS-*"',
            {"step": ("s",), "ticket": ("OPS-",)},
        ),
        # Nothing is no text, a number is none, and what is compared is an attribute.
        ('context.ticket != "" && context.hour == 3', {}),
        ('"a" == "b" || ["a"].contains("b") || "c" like "d*"', {}),
        ('principal == Agent::"a" && resource.account == resource.environment', {}),
        ('principal.hasTag("job") && principal.getTag("job") like "night*"', {}),
    ],
)
def test_the_texts_that_attributes_are_compared_with(condition: str, texts: dict[str, tuple[str, ...]]) -> None:
    assert policies(permit(condition)).compared == texts


def test_texts_of_all_policies_are_told_together_and_once() -> None:
    one, other = permit('resource.account == "a"'), permit('resource.account == "a" || resource.account == "0"')
    assert policies(one, other.replace('@id("x")', '@id("y")')).compared == {"account": ("0", "a")}


def test_a_set_without_names_mentions_nothing() -> None:
    assert policies(PERMIT_ALL).mentions == ()
