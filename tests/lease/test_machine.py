"""The attempt machine: its whole table, and what is promised about it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import Defect, Reason
from broker.lease.machine import MAYBE_ALIVE, TERMINAL, TRANSITIONS, Event, State, can, lease_state, next_state

S, E = State, Event

# Every pair, written out once more by hand: an absent one is an error.
LEGAL = {
    (S.ISSUING, E.ISSUED): S.ACTIVE,
    (S.ISSUING, E.NEVER_ISSUED): S.VOID,
    (S.ISSUING, E.END): S.REVOKING,
    (S.ACTIVE, E.END): S.REVOKING,
    (S.REVOKING, E.END): S.REVOKING,
    (S.REVOKING, E.NEVER_ISSUED): S.VOID,
    (S.REVOKING, E.REVOKE_CONFIRMED): S.REVOKED,
    (S.REVOKING, E.TIME_ENDED): S.EXPIRED,
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_pair(state: State, event: Event) -> None:
    expected = LEGAL.get((state, event))
    assert can(state, event) is (expected is not None)
    if expected is not None:
        assert next_state(state, event) is expected
        return
    with pytest.raises(Defect, match=f"an attempt in {state} cannot take {event}") as caught:
        next_state(state, event)
    assert caught.value.reason is Reason.ILLEGAL_TRANSITION
    assert caught.value.metadata == {"state": state, "event": event}


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[S.REVOKED, E.ISSUED] = S.ACTIVE  # type: ignore[index]


def test_every_state_is_terminal_or_may_be_alive() -> None:
    assert set(State) == TERMINAL | MAYBE_ALIVE
    assert not TERMINAL & MAYBE_ALIVE


@given(st.lists(st.sampled_from(Event), max_size=12))
def test_terminal_states_are_final_and_nothing_becomes_active_twice(events: list[Event]) -> None:
    state, activations = S.ISSUING, 0
    for event in events:
        if not can(state, event):
            continue
        assert state not in TERMINAL
        state = next_state(state, event)
        activations += state is S.ACTIVE
    assert activations <= 1


@pytest.mark.parametrize("start", sorted(MAYBE_ALIVE))
def test_every_living_state_can_reach_an_end(start: State) -> None:
    reached, frontier = {start}, [start]
    while frontier:
        state = frontier.pop()
        found = {target for (source, _), target in TRANSITIONS.items() if source is state} - reached
        reached |= found
        frontier += found
    assert reached & TERMINAL


@pytest.mark.parametrize(
    ("attempts", "lease"),
    [
        ([S.ISSUING], S.ISSUING),
        ([S.REVOKING, S.ACTIVE], S.ACTIVE),
        ([S.REVOKING, S.ISSUING], S.ISSUING),
        ([S.REVOKED, S.REVOKING], S.REVOKING),
        ([S.VOID, S.REVOKED], S.REVOKED),  # it lived: VOID would hide that
        ([S.VOID, S.EXPIRED, S.REVOKED], S.EXPIRED),
        ([S.VOID, S.VOID], S.VOID),
    ],
)
def test_a_lease_is_as_alive_as_its_liveliest_attempt(attempts: list[State], lease: State) -> None:
    assert lease_state(attempts) is lease


@given(st.lists(st.sampled_from(State), min_size=1))
def test_a_lease_is_over_exactly_when_all_its_attempts_are(attempts: list[State]) -> None:
    state = lease_state(attempts)
    assert state in attempts
    assert (state in TERMINAL) is all(attempt in TERMINAL for attempt in attempts)


def test_a_lease_without_attempts_is_a_bug() -> None:
    with pytest.raises(Defect) as caught:
        lease_state([])
    assert caught.value.reason is Reason.INTERNAL
