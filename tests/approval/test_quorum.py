"""Counting: what carries a request and what does not. A person is a letter, an issuer of one's own."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.approval.quorum import Ballot, may_vote, rule_for, tally
from broker.approval.rules import ApprovalRule, Quorum

HOUR = timedelta(hours=1)


def rule(name: str, *quorums: tuple[str, int]) -> ApprovalRule:
    return ApprovalRule(name, name, tuple(Quorum(*each) for each in quorums), HOUR, HOUR)


def yes(who: str, to: str, *groups: str) -> Ballot:
    return Ballot(("i", who), frozenset(groups), to)


ONE, TWO = rule("one", ("sre", 1)), rule("two", ("sre", 2), ("dba", 1))


@pytest.mark.parametrize(
    ("rules", "ballots", "barred", "missing"),
    [
        ([ONE], [], "", ["one: 1 of sre"]),
        ([ONE], [yes("a", "one", "sre")], "", []),
        ([ONE], [yes("a", "one", "sre")], "a", ["one: 1 of sre"]),
        ([ONE], [yes("a", "one")], "", ["one: 1 of sre"]),  # has left the group, or is disabled
        ([ONE], [yes("a", "one", "dba", "ops")], "", ["one: 1 of sre"]),
        ([ONE], [yes("a", "two", "sre")], "", ["one: 1 of sre"]),  # was given for something else
        ([TWO], [yes("a", "two", "sre")], "", ["two: 1 of sre or 1 of dba"]),
        ([TWO], [yes("a", "two", "sre"), yes("a", "two", "sre")], "", ["two: 1 of sre or 1 of dba"]),
        ([TWO], [yes("a", "two", "sre"), yes("b", "two", "sre")], "", []),
        ([TWO], [yes("a", "two", "sre"), yes("b", "two", "sre")], "b", ["two: 1 of sre or 1 of dba"]),
        ([TWO], [yes("a", "two", "dba")], "", []),  # or one of the other group
        ([TWO], [yes("a", "two", "sre", "dba")], "", []),
        # Two of a group by one person of both groups is one; two of a group by two people of both is two.
        ([rule("x", ("sre", 2), ("dba", 2))], [yes("a", "x", "sre", "dba")], "", ["x: 1 of sre or 1 of dba"]),
        ([ONE, TWO], [yes("a", "one", "sre"), yes("a", "two", "sre", "dba")], "", ["two: 2 of sre or 1 of dba"]),
        ([ONE, TWO], [yes("a", "one", "sre"), yes("b", "two", "dba")], "", []),
        # A quorum of people is not put together from two groups.
        (
            [rule("x", ("sre", 2), ("dba", 2))],
            [yes("a", "x", "sre"), yes("b", "x", "dba")],
            "",
            ["x: 1 of sre or 1 of dba"],
        ),
    ],
)
def test_counting(rules: list[ApprovalRule], ballots: list[Ballot], barred: str, missing: list[str]) -> None:
    counted = tally(rules, ballots, {("i", each) for each in barred})
    assert [str(each) for each in counted.missing] == missing
    assert counted.satisfied is (not missing)
    assert counted.denied is False
    assert counted.held == {each.name for each in rules} - {each.rule for each in counted.missing}


def test_one_no_denies_whoever_says_it() -> None:
    for who in "ab":
        counted = tally([ONE], [yes("a", "one", "sre"), Ballot(("i", who), frozenset(), "", yes=False)], {("i", "b")})
        assert counted.denied
        assert not counted.satisfied


def test_a_subject_of_another_issuer_is_another_person() -> None:
    other = Ballot(("j", "a"), frozenset({"sre"}), "two")
    assert tally([TWO], [yes("a", "two", "sre"), other], {}).satisfied
    assert not tally([TWO], [yes("a", "two", "sre"), other], {("j", "a")}).satisfied


def test_which_approval_a_yes_is_for() -> None:
    rules = {"one": ONE, "two": TWO}
    counted = tally([ONE, TWO], [], set())
    assert rule_for(frozenset({"sre"}), counted, rules) == "one"
    assert rule_for(frozenset({"dba"}), counted, rules) == "two"
    assert rule_for(frozenset({"ops"}), counted, rules) is None
    counted = tally([ONE, TWO], [yes("a", "one", "sre")], set())
    assert rule_for(frozenset({"sre"}), counted, rules) == "two"
    assert may_vote(TWO, frozenset({"dba"})) and not may_vote(ONE, frozenset({"dba"}))


PEOPLE = st.sampled_from("abcd")
BALLOTS = st.lists(
    st.builds(
        lambda who, groups, to: Ballot(("i", who), groups, to),
        PEOPLE,
        st.frozensets(st.sampled_from(["sre", "dba"])),
        st.sampled_from(["one", "two"]),
    ),
    max_size=8,
)


@given(BALLOTS, st.sets(PEOPLE))
def test_barring_or_losing_a_vote_never_helps(ballots: list[Ballot], barred: set[str]) -> None:
    out = {("i", each) for each in barred}
    some, all_of_them = tally([ONE, TWO], ballots, out), tally([ONE, TWO], ballots, set())
    assert some.held <= all_of_them.held
    if ballots and len({each.person for each in ballots}) == len(ballots):
        assert tally([ONE, TWO], ballots[:-1], out).held <= some.held


@given(BALLOTS)
def test_as_many_different_people_as_the_quorums_say(ballots: list[Ballot]) -> None:
    """Against a count from scratch: enough people, each by the first of its votes."""
    counted = tally([ONE, TWO], ballots, set())
    first: dict[tuple[str, str], Ballot] = {}
    for ballot in ballots:
        first.setdefault(ballot.person, ballot)
    for each in (ONE, TWO):
        enough = any(
            len([b for b in first.values() if b.rule == each.name and q.group in b.groups]) >= q.people
            for q in each.any_of
        )
        assert (each.name in counted.held) is enough
    if counted.satisfied:
        assert len(first) >= 2


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Quorum("", 1),
        lambda: Quorum("sre", 0),
        lambda: Quorum("sre", -1),
        lambda: rule("x"),
        lambda: ApprovalRule("", "", (Quorum("sre", 1),), HOUR, HOUR),
        lambda: ApprovalRule("x", "", (Quorum("sre", 1),), timedelta(0), HOUR),
        lambda: ApprovalRule("x", "", (Quorum("sre", 1),), HOUR, -HOUR),
        lambda: ApprovalRule("x", "", (Quorum("sre", 1),), HOUR, timedelta(0)),
    ],
)
def test_a_rule_that_nobody_or_nothing_satisfies_is_none(wrong: object) -> None:
    with pytest.raises(ValueError):
        wrong()  # type: ignore[operator]


def test_the_least_that_a_rule_can_ask() -> None:
    moment = timedelta(microseconds=1)
    assert ApprovalRule("x", "", (Quorum("sre", 1),), moment, moment).redeem_within == moment
