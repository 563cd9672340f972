"""Plans: their machine, their digest, and what an executor may have by one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import BrokerError, Denied, InvalidInput, NotFound, Reason, WrongState
from broker.identity.party import Party
from broker.plan.execution import check_execution
from broker.plan.machine import TRANSITIONS, PlanEvent, PlanState, next_state, standing
from broker.plan.plan import Action, Plan, action_of, plan_digest
from broker.scope.containment import Reach
from broker.scope.narrowing import Narrowing, Narrowings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PETE, VERA, EMIL = (Party(f"spiffe://d/{name}", name) for name in ("pete", "vera", "emil"))
COMPARED = Narrowings(Narrowing.EXACT, {})
REACH = Reach(
    "orders", "d1", "db", "dev", "dev", "orders", "read", frozenset({"select"}), {"p": "1"}, timedelta(minutes=5)
)
PLAN = Plan(
    tenant="t",
    id="plan-1",
    task_id="task-1",
    planner=PETE,
    text="first this",
    actions=(Action("read", REACH),),
    digest="d" * 64,
    created_at=NOW,
    deadline=NOW + timedelta(hours=1),
    state=PlanState.CONFIRMED,
    validator=VERA,
    decided_at=NOW,
)


def test_what_is_decided_is_decided() -> None:
    for state, event in product(PlanState, PlanEvent):
        assert (next_state(state, event) is None) == ((state, event) not in TRANSITIONS)
    ends = {PlanState.REJECTED, PlanState.LAPSED}
    assert {state for state in PlanState if not any(of is state for of, _ in TRANSITIONS)} == ends
    # Nothing leads to a confirmation but a validator's, of what nobody has decided about.
    assert [pair for pair, to in TRANSITIONS.items() if to is PlanState.CONFIRMED] == [
        (PlanState.REGISTERED, PlanEvent.CONFIRM)
    ]


@pytest.mark.parametrize(
    ("stored", "after"),
    [("REGISTERED", "LAPSED"), ("CONFIRMED", "LAPSED"), ("REJECTED", "REJECTED")],
)
def test_a_plan_lapses_at_its_deadline_and_not_before(stored: str, after: str) -> None:
    state = PlanState(stored)
    assert standing(state, NOW, NOW - timedelta(milliseconds=1)) is state
    assert standing(state, NOW, NOW) is PlanState(after)


# ------------------------------------------------------------------ the digest

TEXTS = st.text(max_size=4)
REACHES = st.builds(
    Reach,
    *[st.sampled_from(["a", "b", "ab", ""])] * 6,
    st.just("read"),
    st.frozensets(st.sampled_from(["x", "y", "xy"])),
    st.dictionaries(TEXTS, TEXTS, max_size=3),
    st.sampled_from([timedelta(seconds=1), timedelta(microseconds=1)]),
)
ACTIONS = st.lists(st.builds(Action, TEXTS, REACHES), max_size=3)
SAID = st.tuples(st.sampled_from(["task-1", "task-2"]), st.sampled_from([PETE, VERA]), TEXTS, ACTIONS)


@settings(deadline=None)
@given(SAID, SAID)
def test_two_plans_have_one_digest_exactly_if_they_say_the_same(one: Any, other: Any) -> None:
    assert (plan_digest(*one) == plan_digest(*other)) == (one == other)


@settings(deadline=None)
@given(ACTIONS)
def test_an_action_is_stored_and_read_back_as_it_was(actions: list[Action]) -> None:
    assert [action_of(dict(action.canonical())) for action in actions] == actions


def test_the_order_in_which_a_message_names_parameters_does_not_count() -> None:
    forward, backward = {"a": "1", "b": "2"}, {"b": "2", "a": "1"}
    digests = {
        plan_digest("task-1", PETE, "t", [Action("s", replace(REACH, parameters=each))]) for each in (forward, backward)
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("caf\u00e9", "cafe\u0301"),  # NFC and NFD look alike
        ("a", "a\u200b"),  # a space without width
        ("a", "\u0430"),  # Cyrillic
        ("a\n", "a\r\n"),
        ('x","actions":[]', "x"),
    ],
)
def test_texts_that_look_alike_are_other_plans(one: str, other: str) -> None:
    action = Action("s", REACH)
    assert plan_digest("task-1", PETE, one, [action]) != plan_digest("task-1", PETE, other, [action])


def test_what_moves_between_fields_is_another_plan() -> None:
    """No separator can be forged: each of these would be one text if fields were joined."""
    plans = [
        plan_digest("task-1", PETE, "t", [Action("ab", replace(REACH, resource="c"))]),
        plan_digest("task-1", PETE, "t", [Action("a", replace(REACH, resource="bc"))]),
        plan_digest("task-1", PETE, "t", [Action("ab", REACH), Action("c", REACH)]),
        plan_digest("task-1", PETE, "t", [Action("c", REACH), Action("ab", REACH)]),
    ]
    assert len(set(plans)) == len(plans)


# ------------------------------------------------------------------ execution


def execute(plan: Plan = PLAN, **changes: Any) -> None:
    values: dict[str, Any] = {
        "task_id": "task-1",
        "step": "read",
        "executor": EMIL,
        "roles": {"executor"},
        "asked": REACH,
        "compared": COMPARED,
        "now": NOW,
    }
    check_execution(plan, **{**values, **changes})


def test_exactly_what_was_planned_and_less() -> None:
    execute()
    execute(asked=replace(REACH, ttl=timedelta(minutes=1)))


@pytest.mark.parametrize(
    ("plan", "changes", "family", "reason"),
    [
        ({}, {"task_id": "task-2"}, NotFound, Reason.PLAN_NOT_FOUND),
        ({}, {"roles": {"planner", "validator"}}, Denied, Reason.AGENT_ROLE_REQUIRED),
        ({}, {"executor": PETE}, Denied, Reason.PLAN_SAME_PRINCIPAL),
        ({}, {"executor": VERA}, Denied, Reason.PLAN_SAME_PRINCIPAL),
        # Two pods of one pattern, and one workload whose entry was renamed.
        ({}, {"executor": Party("spiffe://d/vera-2", "vera")}, Denied, Reason.PLAN_SAME_PRINCIPAL),
        ({}, {"executor": Party("spiffe://d/pete", "renamed")}, Denied, Reason.PLAN_SAME_PRINCIPAL),
        ({"state": PlanState.REGISTERED, "validator": None}, {}, WrongState, Reason.PLAN_NOT_CONFIRMED),
        ({"state": PlanState.REJECTED}, {}, WrongState, Reason.PLAN_REJECTED),
        ({"deadline": NOW}, {}, WrongState, Reason.PLAN_LAPSED),
        ({}, {"step": "write"}, InvalidInput, Reason.PLAN_STEP_UNKNOWN),
        ({}, {"step": ""}, InvalidInput, Reason.PLAN_STEP_UNKNOWN),
        ({}, {"asked": replace(REACH, resource="all")}, Denied, Reason.PLAN_EXCEEDED),
        ({}, {"asked": replace(REACH, ttl=timedelta(minutes=5, microseconds=1))}, Denied, Reason.PLAN_EXCEEDED),
        ({}, {"asked": replace(REACH, template_digest="d2")}, Denied, Reason.PLAN_EXCEEDED),
    ],
)
def test_anything_else_is_refused_by_name(
    plan: dict[str, Any], changes: dict[str, Any], family: type[BrokerError], reason: Reason
) -> None:
    with pytest.raises(family) as refused:
        execute(replace(PLAN, **plan), **changes)
    assert refused.value.reason is reason


@settings(deadline=None)
@given(
    st.sampled_from([EMIL.id, PETE.id, VERA.id, "spiffe://d/x"]), st.sampled_from(["emil", "pete", "vera", "planned"])
)
def test_no_name_widens_anything(spiffe_id: str, principal: str) -> None:
    """Whoever asks, and whatever they are called: what they get is within the plan, or refused."""
    with pytest.raises(Denied):
        execute(executor=Party(spiffe_id, principal), asked=replace(REACH, account="prod"))
