from itertools import permutations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.policy.cedar import PolicyProblem, PolicyProblems, PolicySet
from broker.policy.decision import Effect
from broker.scope.model import AccessClass
from tests.policy.world import PERMIT_ALL, SCHEMA, facts, policies

# Valid, and yet it fails for every TTL above one second: 2 x (2^63 - 1) does not fit.
FAILING_FORBID = """
@id("fails") @reason("never read")
forbid (principal, action, resource) when { context.ttl_seconds * 9223372036854775807 > 0 };
"""


def problems_of(**files: str) -> tuple[PolicyProblem, ...]:
    with pytest.raises(PolicyProblems) as caught:
        PolicySet.parse({name.replace("_", "."): text for name, text in files.items()}, SCHEMA)
    return caught.value.problems


def test_no_policy_is_a_deny_that_says_so() -> None:
    decision = policies().decide(facts())
    assert (decision.effect, decision.policies, decision.errors) == (Effect.DENY, (), ())
    assert decision.explanations == ("No policy permits this request.",)


def test_a_permit_allows_and_is_named_with_its_reason() -> None:
    allowing = policies(
        '@id("read") @reason("Reading is fine.") permit (principal, action == Action::"read", resource);'
    )
    decision = allowing.decide(facts())
    assert decision.allowed
    assert decision.policies == ("read",)
    assert decision.explanations == ("Reading is fine.",)
    assert decision.set_digest == allowing.digest
    assert not allowing.decide(facts(scope={"access": AccessClass.WRITE})).allowed


def test_a_forbid_beats_every_permit_and_explains() -> None:
    decision = policies(
        PERMIT_ALL,
        '@id("no") @reason("Not on Thursdays.") forbid (principal, action, resource) when { context.weekday == 4 };',
    ).decide(facts())
    assert (decision.effect, decision.policies, decision.explanations) == (Effect.DENY, ("no",), ("Not on Thursdays.",))


def test_a_forbid_that_fails_cannot_open_the_door() -> None:
    decision = policies(PERMIT_ALL, FAILING_FORBID).decide(facts())
    assert decision.effect is Effect.DENY
    assert not decision.allowed
    assert decision.policies == ()
    assert len(decision.errors) == 1
    assert "`fails`" in decision.errors[0]
    assert "overflow" in decision.errors[0]


def test_a_permit_that_fails_denies_even_beside_one_that_holds() -> None:
    failing = FAILING_FORBID.replace("forbid", "permit")
    decision = policies(PERMIT_ALL, failing).decide(facts())
    assert not decision.allowed
    assert decision.errors


def test_a_forbid_that_holds_is_still_named_beside_one_that_fails() -> None:
    holding = '@id("holds") @reason("no") forbid (principal, action, resource);'
    decision = policies(PERMIT_ALL, FAILING_FORBID, holding).decide(facts())
    assert (decision.effect, decision.policies) == (Effect.DENY, ("holds",))
    assert decision.errors


def test_facts_that_cedar_cannot_read_are_a_deny() -> None:
    # A lone surrogate is no text. It cannot come over the wire; if it did, it would not help where a policy looks.
    reading = '@id("i") permit (principal, action, resource) when { context.intent == "" || resource.name == "" };'
    everything = policies(PERMIT_ALL, reading)
    for strange in (facts(request={"intent": "\ud800"}), facts(scope={"resource": "\ud800"})):
        decision = everything.decide(strange)
        assert decision.effect is Effect.DENY
        assert decision.errors
    assert everything.decide(facts()).allowed


def test_the_order_of_policies_and_files_changes_nothing() -> None:
    texts = [
        PERMIT_ALL,
        '@id("b") @reason("B") forbid (principal, action, resource) when { principal.tier == "advisory" };',
        '@id("a") @reason("A") forbid (principal, action, resource) when { context.hour == 23 };',
        '@id("c") permit (principal, action == Action::"read", resource);',
    ]
    decisions = set()
    for order in permutations(texts):
        together = policies("\n".join(order)).decide(facts())
        apart = policies(*order).decide(facts())
        for decision in (together, apart):
            decisions.add((decision.effect, decision.policies, decision.explanations, decision.errors))
    assert decisions == {(Effect.DENY, ("a", "b"), ("A", "B"), ())}


def test_every_text_of_the_set_is_in_its_digest() -> None:
    base = PolicySet.parse({"a": PERMIT_ALL}, SCHEMA).digest
    assert PolicySet.parse({"a": PERMIT_ALL}, SCHEMA).digest == base
    others = [
        PolicySet.parse({"b": PERMIT_ALL}, SCHEMA),
        PolicySet.parse({"a": PERMIT_ALL + " "}, SCHEMA),
        PolicySet.parse({"a": PERMIT_ALL}, SCHEMA + " "),
        PolicySet.parse({"a": PERMIT_ALL, "c": ""}, SCHEMA),
        PolicySet.parse({}, SCHEMA),
    ]
    assert len({base, *(other.digest for other in others)}) == 6


# --------------------------------------------------------------------------- what cannot be loaded

SYNTAX = """\
@id("fine") permit (principal, action, resource);

@id("broken")
permit (
  principal,
  action = Action::"read",
  resource
);
"""


def test_every_problem_of_every_file_is_told_with_its_line() -> None:
    found = problems_of(
        a_cedar=SYNTAX,
        b_cedar='permit (principal, action, resource);\n@id("two words") permit (principal, action, resource);',
        c_cedar='\n@id("fine") permit (principal, action, resource);\n@id("mute")forbid (principal, action, resource);',
        d_cedar='@id("typo") permit (principal, action, resource) when {\n principal.colour == "red" };',
        e_cedar='@id("slot") permit (principal == ?principal, action, resource);',
        f_cedar='@id("open") permit (principal,\naction, resource)',
    )
    assert [(p.file, p.line, p.policy) for p in found] == [
        ("a.cedar", 6, ""),  # where the lone = stands
        ("b.cedar", 1, ""),
        ("b.cedar", 2, "two words"),
        ("c.cedar", 2, "fine"),
        ("c.cedar", 3, "mute"),
        ("d.cedar", 2, "typo"),
        ("e.cedar", 1, ""),
        ("f.cedar", 2, ""),
    ]
    assert "not Cedar" in found[0].message
    assert "no @id" in found[1].message
    assert found[3].hint == "It is taken at a.cedar:1."
    assert "@reason" in found[4].message
    assert "colour" in found[5].message


@pytest.mark.parametrize(
    "condition",
    [
        'principal.tier == 3 || principal.tier.contains("x")',  # wrong type
        'resource.nothing == "x"',  # unknown attribute
        "context.nothing",
        'principal in Group::"x"',  # unknown entity type
        'action == Action::"reed"',  # unknown action
        "context.ttl_seconds",  # not a condition
    ],
)
def test_a_policy_outside_the_schema_is_refused(condition: str) -> None:
    (problem, *_) = problems_of(x=f'@id("x") permit (principal, action, resource) when {{ {condition} }};')
    assert (problem.file, problem.line, problem.policy) == ("x", 1, "x")


def test_a_schema_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="schema"):
        PolicySet.parse({"a": PERMIT_ALL}, "entity")


_ANYTHING = st.lists(
    st.sampled_from(
        [
            '@id("a")',
            "permit",
            "forbid",
            "(",
            ")",
            "principal",
            ",",
            "action",
            "resource",
            ";",
            '"',
            "//",
            "\n",
            "when",
            "{",
            "}",
            "?principal",
            "é",
        ]
    ),
    max_size=14,
).map(" ".join)


@example("@\x850")  # a line for str.splitlines(), and for nobody else
@settings(deadline=None)
@given(_ANYTHING | st.text(max_size=30))
def test_any_text_is_a_set_or_a_list_of_problems(text: str) -> None:
    try:
        PolicySet.parse({"f": text}, SCHEMA)
    except PolicyProblems as error:
        assert error.problems
        assert all(1 <= p.line <= text.count("\n") + 1 for p in error.problems)
