"""GCRA: as many at once as the rate says, then one each interval, in memory that does not grow."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.policy.quotas import Rate
from broker.policy.rate import RateTable
from tests.clock import START

RATE = Rate(4, timedelta(minutes=1))  # one is earned back each 60 / 4 = 15 s


def ask(table: RateTable, subject: str, seconds: float, rate: Rate = RATE) -> float:
    """Ask once; 0 where it was allowed (and counted), else the wait in seconds."""
    now = START + timedelta(seconds=seconds)
    wait = table.wait(subject, rate, now).total_seconds()
    if wait == 0:
        table.spend(subject, rate, now)
    return wait


@pytest.mark.parametrize(
    ("asked", "waits"),
    [
        ([0, 0, 0, 0, 0], [0, 0, 0, 0, 15]),
        ([0, 0, 0, 0, 14.999, 15, 15], [0, 0, 0, 0, 0.001, 0, 15]),  # a refusal costs nothing
        ([0, 0, 0, 0, 30, 30, 30], [0, 0, 0, 0, 0, 0, 15]),  # 30 / 15 = 2 earned back
        ([0, 0, 0, 0, 60, 60, 60, 60, 60], [0, 0, 0, 0, 0, 0, 0, 0, 15]),
        ([0, 15, 30, 45, 60, 75, 90], [0] * 7),  # exactly at the rate, for ever
        ([0, 0, 0, 0, -3600], [0, 0, 0, 0, 15]),  # a clock set back by an hour locks out for no hour
    ],
)
def test_table(asked: list[float], waits: list[float]) -> None:
    table = RateTable()
    assert [ask(table, "a", seconds) for seconds in asked] == pytest.approx(waits)


def test_subjects_do_not_count_for_each_other() -> None:
    table = RateTable()
    assert [ask(table, subject, 0) for subject in "aaaabaa"] == [0, 0, 0, 0, 0, 15, 15]


def test_looking_counts_nothing() -> None:
    table = RateTable()
    for _ in range(100):
        assert table.wait("a", RATE, START) == timedelta(0)
    assert len(table) == 0


def test_inventing_subjects_grows_nothing_and_lets_nobody_through() -> None:
    table = RateTable(max_subjects=10)
    for number in range(10):
        assert ask(table, f"a{number}", 0) == 0
    allowed = [ask(table, f"late{number}", 0) == 0 for number in range(100)]
    assert sum(allowed) == 4  # all who are too many share one allowance
    assert len(table) == 11
    assert ask(table, "a0", 0) == 0  # who was there before keeps its own


def test_a_subject_with_all_of_its_allowance_is_forgotten_to_make_room() -> None:
    table = RateTable(max_subjects=10)
    for number in range(10):
        ask(table, f"a{number}", 0)
    assert ask(table, "new", 16) == 0  # 15 s after its one request each is as if it had never been
    assert len(table) == 1


def test_what_may_be_forgotten_is_looked_for_once_a_second() -> None:
    table = RateTable(max_subjects=2)
    for subject in "ab":
        ask(table, subject, 0)
    ask(table, "late", 14.5)  # looked, and found nothing: 15 s after their requests are not over
    ask(table, "later", 15.25)
    assert len(table) == 3  # a and b, and everybody else
    ask(table, "latest", 15.5)  # a second after the last look
    assert len(table) == 2  # the newcomer, and everybody else, who asked at 14.5 and 15.25


def test_a_table_with_room_is_not_looked_through() -> None:
    table = RateTable(max_subjects=2)
    ask(table, "a", 0)
    ask(table, "b", 14.5)
    ask(table, "c", 15)  # the first look, and a has all of its allowance again
    assert len(table) == 2
    assert [ask(table, "c", 15) for _ in range(4)] == [0, 0, 0, 15]  # its own, not everybody's


def test_who_has_all_of_its_allowance_at_this_moment_is_forgotten() -> None:
    table = RateTable(max_subjects=1)
    ask(table, "a", 0)
    ask(table, "b", 15)
    assert len(table) == 1
    assert [ask(table, "b", 15) for _ in range(4)] == [0, 0, 0, 15]  # its own, not everybody's


def test_a_table_holds_twenty_thousand_and_everybody_else() -> None:
    table = RateTable()
    for number in range(20_002):
        table.spend(str(number), RATE, START)
    assert len(table) == 20_001


@given(
    st.lists(st.integers(0, 5_000), min_size=1, max_size=80),
    st.integers(1, 7),
    st.integers(100, 10_000),
)
def test_never_more_than_the_burst_and_what_was_earned(gaps: list[int], requests: int, within_ms: int) -> None:
    rate, table, now, allowed = Rate(requests, timedelta(milliseconds=within_ms)), RateTable(), START, []
    for gap in gaps:
        now += timedelta(milliseconds=gap)
        if not table.wait("a", rate, now):
            table.spend("a", rate, now)
            allowed.append(now)
    for first, start in enumerate(allowed):
        for count, end in enumerate(allowed[first:], 1):
            assert count <= requests + (end - start) / rate.interval + 1e-6


@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=60))
def test_who_waits_as_long_as_it_is_told_is_let_in(gaps: list[int]) -> None:
    table, now = RateTable(), START
    for gap in gaps:
        now += timedelta(milliseconds=gap)
        now += table.wait("a", RATE, now)
        assert table.wait("a", RATE, now) == timedelta(0)
        table.spend("a", RATE, now)
