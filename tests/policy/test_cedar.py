import hashlib
import struct
from itertools import permutations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.errors import Reason
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
        assert (decision.effect, decision.set_digest) == (Effect.DENY, everything.digest)
        assert [("surrogates" in error) for error in decision.errors] == [True]
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


def test_the_digest_is_that_of_recorded_decisions() -> None:
    # Each text after its length in 8 bytes, the schema first: a digest in an old record is compared with today's.
    parts = [SCHEMA, "a", "", "b", PERMIT_ALL]
    told = hashlib.sha256(b"".join(struct.pack(">Q", len(part.encode())) + part.encode() for part in parts))
    assert PolicySet.parse({"b": PERMIT_ALL, "a": ""}, SCHEMA).digest == told.hexdigest()


def test_the_same_texts_are_the_same_set_and_what_is_wrong_is_told_every_time() -> None:
    files = {"b": PERMIT_ALL, "a": ""}
    assert PolicySet.parse(files, SCHEMA) is PolicySet.parse(dict(sorted(files.items())), SCHEMA)
    assert PolicySet.parse(files, SCHEMA) is not PolicySet.parse({**files, "a": " "}, SCHEMA)
    for _ in range(2):
        with pytest.raises(PolicyProblems):
            PolicySet.parse({"a": "permit"}, SCHEMA)


def test_a_default_deny_says_so_where_there_are_gates_that_stand_open() -> None:
    gate = (
        '@id("g") @reason("x") @approval("a") forbid (principal, action, resource)'
        ' when { context.hour == 3 } unless { context.approvals.contains("a") };'
    )
    decision = policies(gate).decide(facts())
    assert (decision.effect, decision.explanations) == (Effect.DENY, ("No policy permits this request.",))


def test_what_a_set_looks_at_is_known() -> None:
    reading = '@id("a") permit (principal, action, resource) when { resource.account == "a" && context.hour == 1 };'
    assert policies(reading).attributes == {"account", "hour"}
    # Whoever compares the context as a whole looks at all of it, and is told all of it.
    whole = policies('@id("w") permit (principal, action, resource) when { context == context };')
    assert whole.attributes >= {"ttl_seconds", "approvals", "on_behalf_of"}
    assert whole.reads[AccessClass.READ] >= {"ttl_seconds", "approvals", "on_behalf_of"}
    assert whole.decide(facts()).allowed


def test_every_approval_that_a_gate_about_a_class_of_access_names_is_known() -> None:
    def gate(name: str, action: str) -> str:
        return (
            f'@id("{name}") @reason("x") @approval("{name}") forbid (principal, {action}, resource)'
            f' unless {{ context.approvals.contains("{name}") }};'
        )

    known = policies(
        PERMIT_ALL,
        gate("owners", "action"),
        gate("network", 'action in Action::"change"'),
        gate("readers", 'action == Action::"read"'),
    ).approvals_about
    assert known == {
        access.value: {"owners", "readers"} if access is AccessClass.READ else {"owners", "network"}
        for access in AccessClass
    }


# --------------------------------------------------------------------------- what cannot be loaded


def test_all_that_is_wrong_is_told_in_one_sentence_and_counted() -> None:
    with pytest.raises(PolicyProblems) as caught:
        PolicySet.parse({"b": PERMIT_ALL[10:], "a": "\n" + PERMIT_ALL[10:]}, SCHEMA)
    told = caught.value
    assert told.message == "The policy set has 2 problem(s): a:2: has no @id; b:1: has no @id."
    assert (told.reason, told.metadata) == (Reason.CONFIG_INVALID, {"problems": "2"})
    assert told.hint


NAMED = '@id("x") permit (principal, action, resource)'
UNTYPED = "Names and types are in deploy/schemas/broker.cedarschema."


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("permit", PolicyProblem("f", 1, "", "is not Cedar: unexpected end of input")),
        (
            '@id("x") permit (principal == ?principal, action, resource);',
            PolicyProblem("f", 1, "", "is a Cedar template (?principal, ?resource)", "Write a policy without slots."),
        ),
        (
            "permit (principal, action, resource);",
            PolicyProblem("f", 1, "", "has no @id", 'Start the policy with @id("a-name-of-its-own").'),
        ),
        (
            '@id("two words") permit (principal, action, resource);',
            PolicyProblem(
                "f", 1, "two words", "has the @id 'two words'", "Use letters, digits and . _ - (at most 64)."
            ),
        ),
        (
            '@id("x") forbid (principal, action, resource);',
            PolicyProblem("f", 1, "x", "forbids without a @reason", "Say what the agent shall read when refused."),
        ),
        (
            f'{NAMED}\nwhen {{ principal.colour == "red" }};',
            PolicyProblem("f", 2, "x", "attribute `colour` on entity type `Agent` not found", UNTYPED),
        ),
    ],
)
def test_a_problem_to_the_word(text: str, problem: PolicyProblem) -> None:
    assert problems_of(f=text) == (problem,)


def test_an_id_is_taken_where_it_was_first() -> None:
    again = PolicyProblem("b", 1, "x", "has the @id x again", "It is taken at a:2.")
    third = PolicyProblem("c", 1, "x", "has the @id x again", "It is taken at a:2.")
    assert problems_of(a=f"\n{NAMED};", b=f"{NAMED};", c=f"{NAMED};") == (again, third)


@pytest.mark.parametrize(("name", "good"), [("a" * 64, True), ("a" * 65, False), ("A.b_c-1", True), ("-a", False)])
def test_how_an_id_is_written(name: str, good: bool) -> None:
    text = f'@id("{name}") permit (principal, action, resource);'
    if good:
        assert policies(text).decide(facts()).policies == (name,)
    else:
        assert len(problems_of(f=text)) == 1


def test_white_space_around_an_annotation_is_none_of_it() -> None:
    read = policies('@id(" x ") @reason(" Why. ") permit (principal, action, resource);')
    assert [*read.statements] == ["x"]
    assert problems_of(f='@id("x") @reason("  ") forbid (principal, action, resource);')[0].message == (
        "forbids without a @reason"
    )


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
