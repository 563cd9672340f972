"""Sliding windows: when a rule fires, with which evidence, and in how much memory."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import Denied, Reason
from broker.escalation.detect import Detector
from broker.escalation.rules import Answer, Counts, Mode, Rule, Sighting
from tests.clock import START

ACTED = Rule("acted", Counts.REFUSALS, 3, timedelta(seconds=10), Mode.ENFORCE, Answer.COOL_DOWN)


def seen(seconds: float, who: str = "a", entry: str = "entry", **changes: object) -> Sighting:
    at = START + timedelta(seconds=seconds)
    made = Sighting(f"spiffe://test/{who}", entry, at, Reason.POLICY_DENIED, Denied, "Ask", f"r{seconds:g}", "t", "x")
    return replace(made, **changes)  # type: ignore[arg-type]


def fires(rule: Rule, sightings: list[Sighting]) -> list[int]:
    """The numbers (from 1) of the sightings by which ``rule`` fires."""
    detector = Detector()
    return [number for number, each in enumerate(sightings, 1) if detector.see([rule], each)]


@pytest.mark.parametrize(
    ("seconds", "by"),
    [
        ([0, 1], []),
        ([0, 1, 2], [3]),
        ([0, 1, 9.999], [3]),
        ([0, 1, 10], []),  # at 10 the one at 0 no longer counts
        ([0, 5, 10, 14], [4]),  # 5, 10, 14
        ([0, 6, 12, 18, 24], []),  # never three within 10 s
        ([0, 1, 2, 3, 4, 5], [3, 6]),  # it begins anew
        ([0, 0, 0], [3]),
    ],
)
def test_when_it_fires(seconds: list[float], by: list[int]) -> None:
    assert fires(ACTED, [seen(each) for each in seconds]) == by


@pytest.mark.parametrize(
    "rule",
    [
        replace(ACTED, mode=Mode.OBSERVE),
        replace(ACTED, answer=Answer.ALERT),
        replace(ACTED, mode=Mode.OBSERVE, answer=Answer.SUSPEND),
    ],
)
def test_where_nothing_is_done_one_who_goes_on_is_told_once_per_window(rule: Rule) -> None:
    # Fires at 2, is quiet until 12; then 12, 13, 14 fire again.
    assert fires(rule, [seen(second) for second in range(16)]) == [3, 15]


def test_agents_do_not_count_for_each_other() -> None:
    assert fires(ACTED, [seen(number, who="abc"[number % 3]) for number in range(6)]) == []


@pytest.mark.parametrize(
    ("counts", "asked", "by"),
    [
        (Counts.TEMPLATES, [("t1", "x"), ("t1", "y"), ("t1", "z"), ("t2", "x")], []),
        (Counts.TEMPLATES, [("t1", "x"), ("t2", "x"), ("t1", "x"), ("t3", "x")], [4]),
        (Counts.RESOURCES, [("t1", "x"), ("t1", "x"), ("t1", "x")], []),
        (Counts.RESOURCES, [("t1", "x"), ("t1", "y"), ("t2", "x")], [3]),
    ],
)
def test_different_things(counts: Counts, asked: list[tuple[str, str]], by: list[int]) -> None:
    rule = replace(ACTED, counts=counts)
    assert fires(rule, [seen(n, template=t, resource=x) for n, (t, x) in enumerate(asked)]) == by


def test_what_is_seen_again_counts_from_then() -> None:
    rule = replace(ACTED, counts=Counts.TEMPLATES)
    again = [(0, "t1"), (8, "t1"), (9, "t2"), (15, "t3")]  # t1 is of 8, not of 0
    assert fires(rule, [seen(second, template=name) for second, name in again]) == [4]


def test_the_evidence() -> None:
    detector, rule = Detector(), replace(ACTED, threshold=12, within=timedelta(minutes=1))
    sightings = [
        seen(n, template=f"t{n}", reason=Reason.TTL_TOO_LONG if n % 3 else Reason.POLICY_DENIED) for n in range(12)
    ]
    *none, (firing,) = [detector.see([rule], each) for each in sightings]
    assert none == [[]] * 11
    assert (firing.rule, firing.spiffe_id, firing.entry, firing.count) == (rule, "spiffe://test/a", "entry", 12)
    assert (firing.first, firing.last) == (START, START + timedelta(seconds=11))
    assert firing.reasons == {"POLICY_DENIED": 4, "TTL_TOO_LONG": 8}
    assert firing.methods == ["Ask"]
    assert firing.request_ids == [f"r{n}" for n in range(2, 12)]  # the last ten
    assert firing.templates == [f"t{n}" for n in range(2, 12)]


def test_every_rule_that_is_reached_fires() -> None:
    detector = Detector()
    rules = [replace(ACTED, name="one", threshold=1), replace(ACTED, name="two", threshold=2), ACTED]
    fired = [[each.rule.name for each in detector.see(rules, seen(number))] for number in range(3)]
    assert fired == [["one"], ["one", "two"], ["one", "acted"]]


def test_a_pattern_with_countless_workloads_pushes_out_its_own_and_nobody_elses() -> None:
    detector = Detector(max_windows_of_entry=10)
    detector.see([ACTED], seen(0, who="victim", entry="other"))
    detector.see([ACTED], seen(1, who="victim", entry="other"))
    for number in range(1_000):
        detector.see([ACTED], seen(2, who=f"job-{number}", entry="jobs"))
    assert len(detector) == 11
    assert detector.see([ACTED], seen(3, who="victim", entry="other"))


def test_forgetting() -> None:
    detector = Detector()
    detector.see([ACTED], seen(0))
    detector.forget([ACTED], START + timedelta(seconds=9))
    assert len(detector) == 1
    detector.forget([ACTED], START + timedelta(seconds=10))
    assert len(detector) == 0
    detector.see([ACTED], seen(20))
    detector.forget([], START + timedelta(seconds=20))  # its rule is no longer in force
    assert len(detector) == 0


def test_forgetting_does_not_end_the_quiet() -> None:
    detector, rule = Detector(), replace(ACTED, mode=Mode.OBSERVE, threshold=1)
    assert detector.see([rule], seen(0))
    detector.forget([rule], START + timedelta(seconds=5))
    assert not detector.see([rule], seen(6))


@given(
    st.lists(st.tuples(st.integers(0, 8_000), st.sampled_from("ab"), st.sampled_from("xyz")), max_size=80),
    st.integers(1, 6),
    st.sampled_from([Counts.REFUSALS, Counts.TEMPLATES]),
)
def test_against_a_naive_count(happened: list[tuple[int, str, str]], threshold: int, counts: Counts) -> None:
    """Every window remembered whole: the rule fires exactly where that many are within the time since it last did."""
    rule, detector, now = replace(ACTED, threshold=threshold, counts=counts), Detector(), 0.0
    kept: dict[str, list[tuple[float, str]]] = {"a": [], "b": []}
    for number, (gap, who, template) in enumerate(happened):
        now += gap / 1000
        kept[who].append((now, template if counts is Counts.TEMPLATES else str(number)))
        within = {what for when, what in kept[who] if round((now - when) * 1000) < 10_000}
        expected = len(within) >= threshold
        assert bool(detector.see([rule], seen(now, who=who, template=template))) is expected
        if expected:
            kept[who].clear()
