"""When an attempt is looked at next. Times are seconds after T0."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.lease.deadlines import due_at, no_late_create_after, until_next_sweep
from broker.lease.machine import TERMINAL, State

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float | None) -> datetime | None:
    return None if seconds is None else T0 + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("state", "issue_deadline", "confirm_by", "expires", "retry", "due"),
    [
        (State.ISSUING, 10, None, 60, None, 10),
        (State.ISSUING, 10, None, 5, None, 5),  # min(10, 5): a TTL shorter than the call's allowance
        (State.ACTIVE, 10, 30, 60, None, 30),  # min(30, 60)
        (State.ACTIVE, 10, 30, 20, None, 20),  # min(30, 20)
        (State.ACTIVE, 10, None, 60, None, 60),  # confirmed
        (State.REVOKING, 10, None, 60, 17, 17),
        (State.REVOKING, 10, None, 60, None, 10),  # no retry time: long due
        (State.REVOKED, 10, None, 60, 17, None),
        (State.EXPIRED, 10, None, 60, 17, None),
        (State.VOID, 10, None, 60, 17, None),
    ],
)
def test_table(
    state: State,
    issue_deadline: float,
    confirm_by: float | None,
    expires: float,
    retry: float | None,
    due: float | None,
) -> None:
    found = due_at(
        state,
        issue_deadline=T0 + timedelta(seconds=issue_deadline),
        confirm_by=at(confirm_by),
        expires_at=T0 + timedelta(seconds=expires),
        retry_at=at(retry),
    )
    assert found == at(due)


times = st.timedeltas(timedelta(0), timedelta(days=36500)).map(lambda passed: T0 + passed)


@given(st.sampled_from(State), times, st.none() | times, times, st.none() | times)
def test_what_may_be_alive_always_has_a_due_time(
    state: State, issue: datetime, confirm: datetime | None, expires: datetime, retry: datetime | None
) -> None:
    due = due_at(state, issue_deadline=issue, confirm_by=confirm, expires_at=expires, retry_at=retry)
    assert (due is None) is (state in TERMINAL)
    if state in (State.ISSUING, State.ACTIVE):
        assert due is not None and due <= expires


def test_a_late_create_is_waited_for_as_long_again() -> None:
    # Allowed from 1 to 11, that is 10 s; nothing can land after 11 + 10 = 21.
    assert no_late_create_after(T0 + timedelta(seconds=1), T0 + timedelta(seconds=11)) == at(21)


@pytest.mark.parametrize(("now", "wait"), [(4, 6), (9.5, 0.5), (10, 10), (19, 1), (20, 0), (25, -5)])
def test_it_is_looked_for_at_the_calls_deadline_and_when_nothing_can_land_any_more(now: float, wait: float) -> None:
    issued_from, issue_deadline = T0, T0 + timedelta(seconds=10)
    assert until_next_sweep(T0 + timedelta(seconds=now), issued_from, issue_deadline) == timedelta(seconds=wait)
