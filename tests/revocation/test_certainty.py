"""What rests on time alone is not said while the clock is doubted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.lease.machine import State
from broker.ports.connectors import Expired, NotYet, Refused, Revoked, RevokeOutcome
from broker.ports.leases import Attempt, EndCause
from broker.revocation.certainty import AGAIN, certain_outcome
from broker.timekeeping import SETTLE_MS, Certain, Timekeeper
from tests.clock import START

HOUR = timedelta(hours=1)
UNKNOWN = Attempt(
    tenant="test",
    id="attempt-1",
    lease_id="lease-1",
    number=1,
    connector="fake",
    handle={},
    state=State.REVOKING,
    cause=EndCause.OUTCOME_UNKNOWN,
    created_at=START,
    issue_deadline=START + timedelta(seconds=10),
    activated_at=None,
    expires_at=START + HOUR,
    due_at=START,
    epoch=2,
    failures=0,
    last_error="",
)
KNOWN = UNKNOWN._replace(activated_at=START)
NOBODY_KNOWS = Certain(None, settled=False)


@pytest.mark.parametrize("outcome", [Expired(), Revoked(), NotYet("busy."), Refused("no.")])
def test_a_clock_that_cannot_be_doubted_changes_nothing(outcome: RevokeOutcome) -> None:
    assert certain_outcome(UNKNOWN, outcome, None) == outcome


@pytest.mark.parametrize(
    ("of", "outcome", "certain", "said"),
    [
        (KNOWN, Expired(), NOBODY_KNOWS, False),
        (KNOWN, Expired(), Certain(None, settled=True), False),
        (KNOWN, Expired(), Certain(START + HOUR - timedelta(milliseconds=1), settled=True), False),
        (KNOWN, Expired(), Certain(START + HOUR, settled=False), True),
        (KNOWN, Revoked(), NOBODY_KNOWS, True),  # the upstream proved it: no clock has a say
        (UNKNOWN, Revoked(), NOBODY_KNOWS, False),  # a late create may still land
        (UNKNOWN, Revoked(), Certain(None, settled=True), True),
        (UNKNOWN, NotYet("busy."), NOBODY_KNOWS, None),
        (UNKNOWN, Refused("no."), NOBODY_KNOWS, True),
    ],
)
def test_what_is_said_in_doubt(of: Attempt, outcome: RevokeOutcome, certain: Certain, said: bool | None) -> None:
    """F38: a clock that was set forwards ends what it can, and says nothing that only time can tell."""
    came = certain_outcome(of, outcome, certain)
    if said is False:
        assert isinstance(came, NotYet)
        assert (came.retry_after, came.failed) == (AGAIN, False)
    else:
        assert came == outcome


def test_what_is_certain_while_the_clock_is_set_forwards_and_put_right_again() -> None:
    """F38, F39."""
    keeper, hour = Timekeeper(), 3_600_000
    keeper.look(1_000_000, 0)
    assert keeper.certain(1_000_000, 0).settled
    keeper.look(1_001_000 + hour, 1_000)
    assert keeper.certain(1_001_000 + hour, 1_000) == NOBODY_KNOWS
    keeper.look(1_002_000, 2_000)
    behind = keeper.certain(1_002_000, 2_000)
    assert behind.at is not None
    assert (int(behind.at.timestamp() * 1000), behind.settled) == (1_002_000, False)
    keeper.look(1_003_000 + SETTLE_MS, 3_000 + SETTLE_MS)
    assert keeper.certain(1_003_000 + SETTLE_MS, 3_000 + SETTLE_MS).settled
    assert keeper.doubt is not None


def test_a_clock_that_is_behind_and_is_set_forwards_proves_nothing_before_it_has_settled() -> None:
    """F38, F39: it is years behind what the ledger has seen, and somebody sets it an hour ahead of the truth."""
    keeper, hour, year = Timekeeper(), 3_600_000, 365 * 86_400_000
    keeper.resume(1_000_000 + year)
    keeper.look(1_000_000, 0)
    keeper.look(1_001_000 + hour, 1_000)
    assert keeper.certain(1_001_000 + hour, 1_000) == Certain(moment(1_001_000), settled=False)
    keeper.look(999_000 + hour, 2_000)  # and by some seconds back again, which is no proof either
    assert keeper.certain(999_000 + hour, 2_000) == Certain(moment(1_002_000), settled=False)
    settled = 3_000 + SETTLE_MS
    keeper.look(1_000_000 + hour + settled, settled)
    keeper.look(1_000_000 + hour + 2 * settled, 2 * settled)
    assert keeper.certain(1_000_000 + hour + 2 * settled, 2 * settled).settled


@pytest.mark.parametrize("back", [2, 900, 25_000])
def test_a_clock_that_is_set_forwards_and_by_little_back_again_proves_nothing_of_when_it_was_ahead(back: int) -> None:
    """F38: NTP corrects itself by that much, and so far do two readings of a server's clock differ."""
    keeper, hour = Timekeeper(), 3_600_000
    keeper.look(1_000_000, 0)
    keeper.look(1_001_000 + hour, 1_000)
    keeper.look(1_001_001 + hour - back, 1_001)
    assert keeper.certain(1_001_001 + hour - back, 1_001) == Certain(moment(1_001_001), settled=False)


@given(
    st.lists(
        st.tuples(st.integers(0, 10_000), st.integers(-40_000, 40_000) | st.integers(-(10**11), 10**11)), max_size=25
    )
)
def test_what_is_certain_in_doubt_was_true_of_a_clock_that_was_right(events: list[tuple[int, int]]) -> None:
    """F38: however it is set then, by however little or much and how often, until it has settled."""
    keeper, truth, wall, began = Timekeeper(), 10**12, 10**12, 10**12
    keeper.look(wall, 0)
    for passed, set_by in events:
        truth, wall = truth + passed, max(0, wall + passed + set_by)
        keeper.look(wall, truth - began)
        certain = keeper.certain(wall, truth - began)
        if keeper.doubt is not None and certain.at is not None:
            assert certain.at <= moment(truth)


def moment(ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
