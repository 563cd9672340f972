"""The time that all daemons on one ledger go by."""

from datetime import timedelta

import pytest

from broker.daemon.ledger_time import LedgerTime
from tests.clock import START, TICK, ManualClock

SECOND = timedelta(seconds=1)


def test_until_it_was_heard_it_is_this_machines() -> None:
    assert LedgerTime(ManualClock(START)).now() == START


@pytest.mark.parametrize("wrong", [timedelta(hours=-1), -SECOND, SECOND, timedelta(hours=1)])
def test_a_clock_that_is_wrong_is_put_right(wrong: timedelta) -> None:
    """F36: due times are compared with the database's time, not with that of whichever machine looks."""
    own = ManualClock(START + wrong)
    time = LedgerTime(own)
    time.heard(START, own.now(), own.now())
    assert time.now() == START
    own.advance(SECOND)
    assert time.now() == START + SECOND
    assert time.mine() == own.now()


def test_half_of_what_asking_took_is_taken_for_the_way_back() -> None:
    own = ManualClock(START)
    time = LedgerTime(own)
    asked = own.now()
    answered = own.advance(40 * TICK)
    time.heard(START + SECOND, asked, answered)
    assert time.now() == START + SECOND + 20 * TICK


def test_what_the_answer_cannot_tell_apart_stays_as_it_is() -> None:
    own = ManualClock(START)
    time = LedgerTime(own)
    asked = own.now()
    answered = own.advance(40 * TICK)
    time.heard(START + 35 * TICK, asked, answered)
    assert time.offset == timedelta(0)


@pytest.mark.parametrize("took", [timedelta(seconds=1) + TICK, -TICK])
def test_an_answer_that_took_too_long_says_nothing(took: timedelta) -> None:
    own = ManualClock(START)
    time = LedgerTime(own)
    asked = own.now()
    time.heard(START + timedelta(hours=1), asked, own.advance(took))
    assert time.offset == timedelta(0)


def test_it_is_in_whole_milliseconds() -> None:
    own = ManualClock(START)
    time = LedgerTime(own)
    time.heard(START + timedelta(seconds=5, microseconds=1), own.now(), own.advance(TICK))
    assert time.now().microsecond % 1000 == 0
