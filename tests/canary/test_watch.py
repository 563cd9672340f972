"""What the looks at a credential prove, and what they do not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.canary.canary import Kind
from broker.canary.measurement import Outcome, outcome_of
from broker.canary.watch import PATIENCE, Moment, Said, State, Watch

T0 = datetime(2031, 5, 1, 12, tzinfo=UTC)
W, R, U = Said.WORKS, Said.REFUSED, Said.UNKNOWN


def at(seconds: float) -> Moment:
    return Moment(T0, timedelta(seconds=100)).later(timedelta(seconds=seconds))


def watch(*looks: tuple[Said, float, float], kind: Kind = Kind.ON_REVOKE, bound: float = 5) -> Watch:
    """Looks, each with its beginning and its end in seconds after ``since``."""
    seen = Watch(kind, at(0), timedelta(seconds=bound), at(-10), at(-10))
    for said, begun, ended in looks:
        seen = seen.seen(said, at(begun), at(ended))
    return seen


@pytest.mark.parametrize(
    ("looks", "state", "outcome", "refused", "worked"),
    [
        ([(W, 0.0, 0.1), (R, 0.2, 0.3)], State.DEAD, Outcome.WITHIN, 0.3, 0.0),
        ([(R, 0.0, 0.1)], State.DEAD, Outcome.WITHIN, 0.1, None),
        ([(W, 4.9, 5.2), (R, 4.95, 5.0)], State.DEAD, Outcome.WITHIN, 5.0, 4.9),  # on the bound is within it
        ([(W, 5.1, 5.2)], State.BROKEN, Outcome.ALIVE, None, 5.1),
        ([(W, 5.1, 5.2), (U, 6, 7)], State.BROKEN, Outcome.ALIVE, None, 5.1),
        ([(W, 5.1, 5.2), (R, 9, 9.1)], State.DEAD, Outcome.LATE, 9.1, 5.1),
        # A look that took long proves nothing of when the upstream decided.
        ([(W, 1, 1.1), (R, 1.2, 20)], State.DEAD, Outcome.UNMEASURED, 20.0, 1.0),
        ([(W, 4, 20)], State.WATCHING, Outcome.UNMEASURED, None, 4.0),
        # What could not be told is neither alive nor dead.
        ([(W, 1, 1.1), (U, 6, 6.1)], State.WATCHING, Outcome.UNMEASURED, None, 1.0),
        ([(U, 1, 1.1), (U, 66, 66.1)], State.LOST, Outcome.UNMEASURED, None, None),
        ([(W, 30, 31), (U, 92, 93)], State.LOST, Outcome.ALIVE, None, 30.0),
    ],
)
def test_what_looks_come_to(
    looks: list[tuple[Said, float, float]], state: State, outcome: Outcome, refused: float | None, worked: float | None
) -> None:
    seen = watch(*looks)
    assert seen.state is state
    assert outcome_of(seen)[0] is outcome
    assert seen.refused == (None if refused is None else timedelta(seconds=refused))
    assert seen.worked == (None if worked is None else timedelta(seconds=worked))
    assert bool(outcome_of(seen)[1]) is (outcome is Outcome.UNMEASURED)


def test_a_credential_that_dies_early_is_measured_below_zero() -> None:
    seen = watch((W, -9, -8.9), (R, -3, -2.5), kind=Kind.ON_EXPIRY, bound=1)
    assert (seen.state, seen.refused) == (State.DEAD, timedelta(seconds=-2.5))
    assert outcome_of(seen) == (Outcome.WITHIN, "")


@pytest.mark.parametrize("by", [-3_600, -1, 1, 3_600])
def test_a_clock_that_was_set_spoils_a_deadline_and_no_revocation(by: float) -> None:
    def set_by(seen: Watch) -> Watch:
        return replace(seen, last=Moment(seen.last.at + timedelta(seconds=by), seen.last.tick))

    expiry = set_by(watch((W, -1, -0.9), (R, 0.1, 0.2), kind=Kind.ON_EXPIRY))
    assert (expiry.jumped, expiry.state) == (timedelta(seconds=by), State.LOST)
    assert not set_by(watch((W, 6, 6.1), kind=Kind.ON_EXPIRY)).broken
    outcome, why = outcome_of(expiry)
    assert (outcome, f"{by:+g} s" in why) == (Outcome.UNMEASURED, True)
    assert outcome_of(set_by(watch((W, 0, 0.1), (R, 0.2, 0.3))))[0] is Outcome.WITHIN


@given(
    bound=st.floats(0, 60),
    steps=st.lists(st.tuples(st.sampled_from([W, U]), st.floats(0, 30), st.floats(0, 30)), max_size=20),
    end=st.one_of(st.none(), st.tuples(st.floats(0, 30), st.floats(0, 30))),
)
def test_within_is_only_said_of_what_was_refused_within_and_broken_only_of_what_worked_after(
    bound: float, steps: list[tuple[Said, float, float]], end: tuple[float, float] | None
) -> None:
    seen, now, worked_after, state = watch(bound=bound), 0.0, False, State.WATCHING
    for said, pause, took in [*steps, *([(R, *end)] if end else [])]:
        begun, now = now + pause, now + pause + took
        seen = seen.seen(said, at(begun), at(now))
        worked_after |= said is W and at(begun).tick - at(0).tick > seen.bound
        state = seen.state
    outcome, _ = outcome_of(seen)
    assert (outcome in (Outcome.ALIVE, Outcome.LATE)) is worked_after
    assert (outcome is Outcome.WITHIN) <= (end is not None and seen.refused is not None and seen.refused <= seen.bound)
    assert (state is State.DEAD) is (end is not None)


@given(elapsed=st.floats(-3_600, 3_600))
def test_pauses_are_short_around_the_end_and_never_zero(elapsed: float) -> None:
    seen = watch((U, elapsed, elapsed))
    pause = seen.pause()
    assert timedelta(milliseconds=10) <= pause
    if elapsed >= 0:
        assert pause <= timedelta(seconds=15)
    else:
        # It never passes over the deadline by more than its finest step.
        assert pause <= timedelta(seconds=max(-elapsed / 4, 0.01), milliseconds=1)


def test_looking_ends_where_nothing_can_be_told() -> None:
    seen, now = watch((W, 0, 0)), 0.0
    while seen.state is State.WATCHING:
        now += seen.pause().total_seconds()
        seen = seen.seen(U, at(now), at(now))
    assert seen.state is State.LOST
    assert seen.looks < 100
    assert timedelta(seconds=now) > seen.bound + PATIENCE
