"""Which refusals a rule counts: what says something about the agent, and nothing that befalls honest ones."""

from datetime import timedelta

import pytest

from broker.errors import (
    BrokerError,
    Conflict,
    Defect,
    Denied,
    Exhausted,
    InvalidInput,
    NotFound,
    NotReady,
    Reason,
    Tampered,
    Unauthenticated,
    UpstreamFailed,
    WrongState,
)
from broker.escalation.rules import Answer, Counts, Mode, Rule, Sighting, family_of
from tests.clock import START


def rule(counts: Counts, *reasons: Reason) -> Rule:
    return Rule("r", counts, 3, timedelta(minutes=1), Mode.ENFORCE, Answer.ALERT, frozenset(reasons))


def sighting(reason: Reason, family: type[BrokerError], *, foreign: bool = False) -> Sighting:
    return Sighting("spiffe://test/a", "a", START, reason, family, foreign=foreign)


@pytest.mark.parametrize(
    ("family", "countable"),
    [
        (Denied, True),
        (InvalidInput, True),
        (NotFound, True),
        (Unauthenticated, False),
        (Conflict, False),
        (WrongState, False),
        (Exhausted, False),
        (UpstreamFailed, False),
        (NotReady, False),
        (Tampered, False),
        (Defect, False),
    ],
)
def test_families(family: type[BrokerError], countable: bool) -> None:
    assert (family_of(family(Reason.INTERNAL, "...")) is family) is countable


POLICY, TTL, TEMPLATE, TASK = (
    (Reason.POLICY_DENIED, Denied),
    (Reason.TTL_TOO_LONG, InvalidInput),
    (Reason.TEMPLATE_NOT_FOUND, NotFound),
    (Reason.TASK_NOT_FOUND, NotFound),
)


@pytest.mark.parametrize(
    ("of", "taken"),
    [
        (rule(Counts.REFUSALS), [True, True, False, False]),
        (rule(Counts.REFUSALS, Reason.POLICY_DENIED), [True, False, False, False]),
        (rule(Counts.REFUSALS, Reason.TASK_NOT_FOUND, Reason.TTL_TOO_LONG), [False, True, False, True]),
        (rule(Counts.TEMPLATES), [True, True, True, False]),
        (rule(Counts.RESOURCES), [True, True, True, False]),
        (rule(Counts.TEMPLATES, Reason.TTL_TOO_LONG), [False, True, False, False]),
        (rule(Counts.FOREIGN_IDS), [False, False, False, False]),
    ],
)
def test_what_a_rule_takes(of: Rule, taken: list[bool]) -> None:
    assert [of.takes(sighting(*each)) for each in (POLICY, TTL, TEMPLATE, TASK)] == taken


def test_somebody_elses_ids_are_counted_by_their_rules_alone() -> None:
    theirs = sighting(*TASK, foreign=True)
    assert rule(Counts.FOREIGN_IDS).takes(theirs)
    assert not rule(Counts.REFUSALS, Reason.TASK_NOT_FOUND).takes(theirs)
    assert not rule(Counts.TEMPLATES).takes(theirs)
