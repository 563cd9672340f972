"""Grants stop while the promise could not be kept, and resume by themselves."""

from datetime import timedelta

import pytest

from broker.errors import NotReady, Reason
from broker.issuance.gate import Gate
from broker.timekeeping import Timekeeper
from tests.clock import START


def gate(**figures: object) -> Gate:
    made = Gate(timedelta(seconds=5), max_backlog_records=100, max_backlog_age=timedelta(minutes=5), heartbeat=START)
    for name, value in figures.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("figures", "after", "reason"),
    [
        ({}, timedelta(0), None),
        ({}, timedelta(seconds=5), None),  # the bound itself is still good
        ({}, timedelta(seconds=5, milliseconds=1), Reason.REVOKER_STALLED),
        ({"heartbeat": None}, timedelta(0), Reason.REVOKER_STALLED),  # before the first tick
        ({"backlog_records": 100}, timedelta(0), None),
        ({"backlog_records": 101}, timedelta(0), Reason.AUDIT_BACKLOG),
        ({"backlog_age": timedelta(minutes=5, seconds=1)}, timedelta(0), Reason.AUDIT_BACKLOG),
        ({"own_svid_ends": START}, timedelta(0), None),  # notAfter is part of its life (RFC 5280, 4.1.2.5)
        ({"own_svid_ends": START}, timedelta(milliseconds=1), Reason.OWN_SVID_EXPIRED),
        ({"draining": True}, timedelta(0), Reason.SHUTTING_DOWN),
        ({"draining": True, "heartbeat": None}, timedelta(0), Reason.SHUTTING_DOWN),
    ],
)
def test_the_gate(figures: dict[str, object], after: timedelta, reason: Reason | None) -> None:
    """F27, F31, F49: an SVID that has ended, an export that hangs, a revoker that stands still."""
    closed = gate(**figures).why_closed(START + after)
    assert (closed.reason if closed else None) == reason


@pytest.mark.parametrize("held", [True, False])
def test_a_full_disk_closes_it(held: bool) -> None:
    """F36: for everybody but break-glass, whose rate is capped, and which says so."""

    class Kept:
        def __init__(self) -> None:
            self.held = held

    closed = gate(reserve=Kept()).why_closed(START)
    assert (closed.reason if closed else None) == (None if held else Reason.LEDGER_FULL)
    assert gate(reserve=Kept()).passed_over(START) == (() if held else ("LEDGER_FULL",))


def test_a_database_that_does_not_answer_closes_it_by_its_own_name() -> None:
    """F20: although no tick gets through to it either, which says less. Break-glass passes over it, and is told."""

    class Hanging:
        unanswered = timedelta(seconds=5)
        failing = timedelta(0), ""

    made = gate(ledger=(hanging := Hanging()))
    assert made.why_closed(START) is None
    hanging.unanswered += timedelta(milliseconds=1)
    closed = made.why_closed(START + timedelta(minutes=1))
    assert closed is not None and closed.reason is Reason.STORE_UNAVAILABLE
    assert made.passed_over(START) == ("STORE_UNAVAILABLE",)


def test_a_ledger_that_takes_nothing_closes_it_though_it_can_be_read() -> None:
    """F36: a disk that turned read-only. Every tick that only looks gets through."""

    class Failing:
        unanswered = timedelta(0)
        failing = timedelta(seconds=5), "SQLITE_READONLY"

    made = gate(ledger=(broken := Failing()))
    assert made.why_closed(START) is None
    broken.failing = timedelta(seconds=6), "SQLITE_READONLY"
    closed = made.why_closed(START)
    assert closed is not None and closed.reason is Reason.STORE_UNAVAILABLE and "SQLITE_READONLY" in closed.message
    assert made.passed_over(START) == ("STORE_UNAVAILABLE",)


def test_a_ledger_that_goes_with_the_process_closes_it_for_everybody() -> None:
    """Not even an emergency is to be granted what nobody will know of."""
    made = gate(displaced="ledger.sqlite3", heartbeat=None)
    closed = made.why_closed(START)
    assert closed is not None and closed.reason is Reason.STORE_UNAVAILABLE and "ledger.sqlite3" in closed.message
    with pytest.raises(NotReady):
        made.passed_over(START)


@pytest.mark.parametrize("by", [3_600_000, -3_600_000])
def test_doubtful_time_closes_it_at_once_and_for_nothing_else(by: int) -> None:
    """F38, F39: who asks for the time finds the jump, so there is no moment between. Break-glass passes over it."""
    made, keeper = gate(), Timekeeper()
    made.keeper = keeper
    keeper.look(10**12, 0)
    assert made.why_closed(START) is None and not made.time_doubted
    keeper.look(10**12 + by, 0)
    closed = made.why_closed(START)
    assert closed is not None and closed.reason is Reason.CLOCK_DOUBTED
    assert closed.metadata["byMs"] == "3600000"
    assert made.time_doubted
    assert made.passed_over(START) == ("CLOCK_DOUBTED",)


def test_check_raises_what_why_closed_says() -> None:
    with pytest.raises(NotReady, match="shutting down"):
        gate(draining=True).check(START)
    gate().check(START)
