"""F10, F11: an upstream that fails at one attempt after the other is tried now and then, and issues nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import NotReady, Reason
from broker.lease.backoff import CAP, LONGEST_RETRY_AFTER
from broker.lease.breaker import FAILURES, LOST_AFTER, Breakers
from broker.lease.root import Work

T0 = datetime(2026, 1, 1, tzinfo=UTC)
MIDDLE = 0.5  # the jitter by which a wait is what the doubling says


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def fail(breakers: Breakers, count: int, now: float = 0, work: Work = Work.REVOKE, **how: timedelta) -> None:
    for number in range(count):
        breakers.failed("bao", work, f"attempt-{number}", "no answer", at(now), MIDDLE, **how)


def allowed(breakers: Breakers, now: float, work: Work = Work.REVOKE, connector: str = "bao") -> int:
    return breakers.allowance(connector, work, 16, at(now))


def refused(breakers: Breakers, now: float, connector: str = "bao") -> float | None:
    """After how many seconds to ask again; None: it may be asked now."""
    try:
        breakers.check(connector, at(now))
    except NotReady as error:
        assert error.reason is Reason.CONNECTOR_CIRCUIT_OPEN
        assert error.retry_after is not None
        return error.retry_after
    return None


def test_so_many_distinct_failures_in_a_row_open_it_and_fewer_do_not() -> None:
    breakers = Breakers()
    fail(breakers, FAILURES - 1)
    assert (allowed(breakers, 0), dict(breakers.open)) == (16, {})
    fail(breakers, FAILURES)
    assert (allowed(breakers, 0), list(breakers.open)) == (0, ["bao"])
    assert "no answer" in breakers.told()["bao"]
    assert (allowed(breakers, 0, connector="sts"), refused(breakers, 0, "sts")) == (16, None)  # others notice nothing


def test_one_attempt_that_fails_again_and_again_is_a_trouble_of_its_own() -> None:
    breakers = Breakers()
    for number in range(10 * FAILURES):
        breakers.failed("bao", Work.REVOKE, "attempt-1", "its role owns tables", at(number), MIDDLE)
    assert (allowed(breakers, 60), breakers.told()) == (16, {})


def test_a_success_between_begins_the_count_anew() -> None:
    breakers = Breakers()
    for _ in range(5):
        fail(breakers, FAILURES - 1)
        breakers.works("bao", Work.REVOKE)
    assert allowed(breakers, 0) == 16


def test_when_its_time_has_come_one_try_is_let_through_and_its_success_closes_it() -> None:
    breakers = Breakers()
    fail(breakers, FAILURES)  # the first wait is 1 s
    assert (allowed(breakers, 0.999), allowed(breakers, 1)) == (0, 1)
    breakers.begin("bao", Work.REVOKE, at(1))
    assert allowed(breakers, 1) == 0  # while that one is under way
    breakers.works("bao", Work.REVOKE)
    assert (allowed(breakers, 1), refused(breakers, 1)) == (16, None)


def test_a_try_of_which_nothing_is_heard_does_not_wedge_it() -> None:
    breakers = Breakers()
    fail(breakers, FAILURES)
    breakers.begin("bao", Work.REVOKE, at(1))
    lost = 1 + LOST_AFTER.total_seconds()
    assert (allowed(breakers, lost - 0.001), allowed(breakers, lost)) == (0, 1)


def test_a_try_that_says_nothing_of_the_upstream_opens_nothing_and_holds_no_other_up() -> None:
    breakers = Breakers()
    breakers.untold("bao", Work.REVOKE)
    assert (allowed(breakers, 0), dict(breakers.open)) == (16, {})
    fail(breakers, FAILURES)
    breakers.begin("bao", Work.REVOKE, at(1))
    assert allowed(breakers, 1) == 0
    breakers.untold("bao", Work.REVOKE)
    assert (allowed(breakers, 1), list(breakers.open)) == (1, ["bao"])


def test_what_was_under_way_when_it_opened_makes_no_longer_wait() -> None:
    breakers = Breakers()
    fail(breakers, 10 * FAILURES, now=0)
    assert allowed(breakers, 1) == 1


@given(st.lists(st.floats(0, 0.999), min_size=1, max_size=40))
def test_it_is_never_given_up_and_never_rarer_than_the_cap(jitters: list[float]) -> None:
    breakers, now = Breakers(), 0.0
    fail(breakers, FAILURES)
    for jitter in jitters:
        wait = next(wait for wait in (x / 10 for x in range(1000)) if allowed(breakers, now + wait))
        assert wait <= CAP.total_seconds()
        now += wait
        breakers.begin("bao", Work.REVOKE, at(now))
        breakers.failed("bao", Work.REVOKE, "attempt-1", "down", at(now), jitter)


def test_while_revoking_is_open_nothing_is_issued_and_the_caller_is_told_when() -> None:
    breakers = Breakers()
    fail(breakers, FAILURES)
    assert refused(breakers, 0) == pytest.approx(1.0)
    assert refused(breakers, 1) is None  # one may try
    breakers.works("bao", Work.ISSUE)
    assert (refused(breakers, 1), allowed(breakers, 1)) == (None, 16)  # it issues, so it is there


def test_issuing_that_fails_stops_issuing_and_never_spaces_out_revoking() -> None:
    breakers = Breakers()
    fail(breakers, FAILURES, work=Work.ISSUE)
    assert refused(breakers, 0) is not None
    assert allowed(breakers, 0) == 16
    assert refused(breakers, 1) is None
    assert refused(breakers, 1) is not None  # one at a time
    breakers.works("bao", Work.REVOKE)
    assert refused(breakers, 1) is not None  # who can revoke can not for that reason issue


def test_an_upstream_that_names_a_time_is_left_alone_until_then_and_still_issues() -> None:
    breakers = Breakers()
    fail(breakers, 1, retry_after=timedelta(seconds=7))
    assert (allowed(breakers, 6.999), allowed(breakers, 7), refused(breakers, 0)) == (0, 16, None)


def test_an_upstream_cannot_keep_a_credential_alive_by_naming_a_time() -> None:
    breakers = Breakers()
    fail(breakers, 1, retry_after=timedelta(days=9))
    longest = LONGEST_RETRY_AFTER.total_seconds()
    assert (allowed(breakers, longest - 1), allowed(breakers, longest)) == (0, 16)


def test_of_connectors_that_are_gone_nothing_is_kept() -> None:
    breakers = Breakers()
    fail(breakers, FAILURES)
    breakers.only({"sts"})
    assert (allowed(breakers, 0), breakers.told()) == (16, {})
