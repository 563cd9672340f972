"""Gates: what needs an approval is allowed with it and only with it, and no failure opens one."""

from __future__ import annotations

from itertools import chain, combinations

import pytest

from broker.errors import Reason
from broker.policy.cedar import PolicyProblems
from broker.policy.decision import Decision, Effect
from tests.policy.test_errors import VALID, failing, unvalidated
from tests.policy.world import PERMIT_ALL, facts, policies

TOO_LARGE = VALID["a product that does not fit"]


def gate(approval: str, when: str = "true", name: str = "") -> str:
    """A gate that ``approval`` opens. ``when`` stands before the clause that opens it."""
    return (
        f'@id("{name or approval}-gate") @reason("{approval} decides") @approval("{approval}")'
        f" forbid (principal, action, resource) when {{ {when} }}"
        f' unless {{ context.approvals.contains("{approval}") }};'
    )


def forbid(when: str) -> str:
    return f'@id("final") @reason("no") forbid (principal, action, resource) when {{ {when} }};'


def decided(*texts: str, held: frozenset[str] = frozenset()) -> Decision:
    """The decision, asked for twice: the second answer comes from memory."""
    found = policies(*texts)
    first = found.decide(facts(situation={"approvals": held}))
    assert found.decide(facts(situation={"approvals": held})) == first
    return first


def test_a_gate_names_what_is_missing() -> None:
    decision = decided(PERMIT_ALL, gate("owners"))
    assert (decision.effect, decision.approvals) == (Effect.NEEDS_APPROVAL, ("owners",))
    assert (decision.policies, decision.explanations) == (("owners-gate",), ("owners decides",))
    assert not decision.allowed


def test_what_is_held_opens_it() -> None:
    decision = decided(PERMIT_ALL, gate("owners"), held=frozenset({"owners"}))
    assert (decision.effect, decision.policies, decision.approvals) == (Effect.ALLOW, ("all",), ())


@pytest.mark.parametrize("held", [frozenset({"others"}), frozenset({""}), frozenset({"Owners", "owners-gate"})])
def test_nothing_else_opens_it(held: frozenset[str]) -> None:
    assert decided(PERMIT_ALL, gate("owners"), held=held).approvals == ("owners",)


def test_all_that_are_missing_are_named_at_once() -> None:
    decision = decided(PERMIT_ALL, gate("owners"), gate("network"), gate("calm", when="false"))
    assert decision.approvals == ("network", "owners")
    assert decision.policies == ("network-gate", "owners-gate")
    assert decided(PERMIT_ALL, gate("owners"), gate("network"), held=frozenset({"network"})).approvals == ("owners",)


def test_a_gate_behind_a_gate_is_found() -> None:
    # The second stands only for whom the first let through, the third for whom both did.
    behind = gate("b", when='context.approvals.contains("a")')
    last = gate("c", when='context.approvals.containsAll(["a", "b"])')
    decision = decided(PERMIT_ALL, gate("a"), behind, last)
    assert (decision.effect, decision.approvals) == (Effect.NEEDS_APPROVAL, ("a", "b", "c"))
    assert decision.policies == ("a-gate", "b-gate", "c-gate")
    assert decision.explanations == ("a decides", "b decides", "c decides")


def test_two_gates_may_be_opened_by_one_approval() -> None:
    decision = decided(PERMIT_ALL, gate("owners"), gate("owners", name="again"))
    assert (decision.approvals, decision.policies) == (("owners",), ("again-gate", "owners-gate"))


def test_where_nothing_permits_no_approval_helps() -> None:
    decision = decided(gate("owners"))
    assert (decision.effect, decision.policies, decision.approvals) == (Effect.DENY, ("owners-gate",), ())


def test_where_something_else_forbids_no_approval_helps() -> None:
    decision = decided(PERMIT_ALL, gate("owners"), forbid("true"))
    assert (decision.effect, decision.policies, decision.approvals) == (Effect.DENY, ("final", "owners-gate"), ())


def test_what_an_approval_itself_forbids_is_final() -> None:
    decision = decided(PERMIT_ALL, gate("owners"), forbid('context.approvals.contains("owners")'))
    assert (decision.effect, decision.policies, decision.approvals) == (Effect.DENY, ("owners-gate",), ())


def test_a_permit_may_ask_for_an_approval_and_is_no_gate() -> None:
    permit = '@id("p") permit (principal, action, resource) when { context.approvals.contains("owners") };'
    assert decided(permit).effect is Effect.DENY
    assert decided(permit, held=frozenset({"owners"})).allowed
    # Behind a gate of the same name it makes no difference to the one who asks.
    assert decided(permit, gate("owners")).approvals == ("owners",)


# --------------------------------------------------------------------------- failures

FAILURES = {
    "a forbid beside a gate": (gate("owners"), failing("forbid", TOO_LARGE)),
    "a permit beside a gate": (gate("owners"), failing("permit", TOO_LARGE)),
    "the gate itself": (gate("owners", when=TOO_LARGE),),
    "one gate of two": (gate("owners"), gate("network", when=TOO_LARGE)),
    "a forbid that fails with the approval": (
        gate("owners"),
        failing("forbid", f'context.approvals.contains("owners") && {TOO_LARGE}'),
    ),
    "a gate that fails behind another": (
        gate("owners"),
        gate("network", when=f'context.approvals.contains("owners") && {TOO_LARGE}'),
    ),
    "a forbid that fails behind two gates": (
        gate("owners"),
        gate("network", when='context.approvals.contains("owners")'),
        failing("forbid", f'context.approvals.contains("network") && {TOO_LARGE}'),
    ),
}
NAMES = ("owners", "network")
HELD = [frozenset(each) for each in chain.from_iterable(combinations(NAMES, count) for count in range(3))]


@pytest.mark.parametrize("what", FAILURES)
@pytest.mark.parametrize("held", HELD, ids=lambda held: "+".join(sorted(held)) or "none")
def test_no_failure_opens_the_door_nor_promises_that_people_could(what: str, held: frozenset[str]) -> None:
    decision = decided(PERMIT_ALL, *FAILURES[what], held=held)
    assert (decision.effect, decision.allowed, decision.approvals) == (Effect.DENY, False, ())


@pytest.mark.parametrize("what", FAILURES)
def test_a_failure_is_told_as_one_in_whichever_evaluation(what: str) -> None:
    assert len(decided(PERMIT_ALL, *FAILURES[what]).errors) == 1


def test_what_cannot_be_told_in_the_schema_s_words_is_a_deny_in_the_second_evaluation_too() -> None:
    # A gate that nothing validated, and that no approval opens.
    shut = '@id("shut") @reason("r") @approval("owners") forbid (principal, action, resource);'
    decision = unvalidated(PERMIT_ALL, shut).decide(facts())
    assert (decision.effect, decision.policies, decision.approvals) == (Effect.DENY, ("shut",), ())


# --------------------------------------------------------------------------- what is no gate

OPENS = 'unless { context.approvals.contains("owners") }'
HEAD = '@id("g") @reason("r") @approval("owners") forbid (principal, action, resource)'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"{HEAD};", "would not open"),
        (f"{HEAD} when {{ true }};", "would not open"),
        (f'{HEAD} unless {{ context.approvals.contains("network") }};', "would not open"),
        (f'{HEAD} when {{ context.approvals.contains("owners") }};', "would not open"),
        (f'{HEAD} unless {{ !context.approvals.contains("owners") }};', "would not open"),
        (f'{HEAD} unless {{ context.approvals.contains("owners") && context.hour == 3 }};', "would not open"),
        (f'{HEAD} unless {{ context.approvals.containsAll(["owners", "network"]) }};', "would not open"),
        (f'{HEAD} unless {{ principal.roles.contains("owners") }};', "would not open"),
        (HEAD.replace('"owners"', '"Owners"') + f" {OPENS};", "has the @approval 'Owners'"),
        (HEAD.replace('"owners"', '"a, b"') + f" {OPENS};", "has the @approval 'a, b'"),
        (HEAD.replace('"owners"', '""') + f" {OPENS};", "has the @approval ''"),
        (HEAD.replace('("owners")', "") + f" {OPENS};", "has the @approval ''"),
        (HEAD.replace("forbid", "permit") + f" {OPENS};", "has an @approval and permits"),
    ],
)
def test_a_gate_that_would_not_open_by_what_it_names_is_a_problem(text: str, told: str) -> None:
    with pytest.raises(PolicyProblems) as caught:
        policies(PERMIT_ALL, "\n" + text)
    (problem,) = caught.value.problems
    assert (caught.value.reason, problem.file, problem.line, problem.policy) == (
        Reason.CONFIG_INVALID,
        "1.cedar",
        2,
        "g",
    )
    assert told in problem.message
    assert problem.hint


ONE_KEY = "Name one key of approvals.yaml: a-z 0-9 and -, at most 63. For two approvals write two forbids."


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"{HEAD};", ("would not open when owners is held", f"Give it the clause {OPENS}, by itself.")),
        (HEAD.replace('"owners"', '"Owners"') + f" {OPENS};", ("has the @approval 'Owners'", ONE_KEY)),
        (HEAD.replace('("owners")', "") + f" {OPENS};", ("has the @approval ''", ONE_KEY)),
        (
            HEAD.replace("forbid", "permit") + f" {OPENS};",
            ("has an @approval and permits", "An approval opens a forbid. Write a forbid, and a permit without it."),
        ),
    ],
)
def test_what_is_wrong_with_a_gate_to_the_word(text: str, told: tuple[str, str]) -> None:
    with pytest.raises(PolicyProblems) as caught:
        policies(text)
    assert [(each.message, each.hint) for each in caught.value.problems] == [told]


def test_white_space_around_the_name_of_an_approval_is_none_of_it() -> None:
    spaced = f"{HEAD} {OPENS};".replace('@approval("owners")', '@approval(" owners ")')
    assert decided(PERMIT_ALL, spaced).approvals == ("owners",)


def test_more_conditions_may_stand_around_the_one_that_opens() -> None:
    text = f"{HEAD} when {{ true }} {OPENS} unless {{ context.hour == 3 }};"
    assert decided(PERMIT_ALL, text).approvals == ("owners",)
    assert decided(PERMIT_ALL, text, held=frozenset({"owners"})).allowed
