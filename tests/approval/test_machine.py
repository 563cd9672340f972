"""The request machine: every pair is either in the table or an error that names the state."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.approval.machine import OPEN, OVER, TRANSITIONS, RequestEvent, RequestState, can, next_state
from broker.errors import WrongState

PAIRS = list(product(RequestState, RequestEvent))
REASONS = {
    RequestState.AWAITING_APPROVAL: "ACCESS_REQUEST_PENDING",
    RequestState.APPROVED: "ACCESS_REQUEST_APPROVED",
    RequestState.DENIED: "ACCESS_REQUEST_DENIED",
    RequestState.WITHDRAWN: "ACCESS_REQUEST_WITHDRAWN",
    RequestState.LAPSED: "ACCESS_REQUEST_LAPSED",
    RequestState.REDEEMED: "ACCESS_REQUEST_REDEEMED",
}


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_every_pair(state: RequestState, event: RequestEvent) -> None:
    if (state, event) in TRANSITIONS:
        assert next_state(state, event, "areq-1") is TRANSITIONS[state, event]
        return
    assert not can(state, event)
    with pytest.raises(WrongState) as refused:
        next_state(state, event, "areq-1")
    assert refused.value.reason == REASONS[state]
    assert refused.value.metadata == {"accessRequestId": "areq-1", "state": state}
    again = "Ask again under a fresh request id."  # where nothing else can be done
    assert (refused.value.hint == again) is (state in OVER - {RequestState.DENIED})
    assert refused.value.hint


def test_nothing_leaves_a_state_that_is_over() -> None:
    assert {state for state, _ in TRANSITIONS} == OPEN
    assert set(RequestState) == OPEN | OVER


def test_only_what_was_approved_is_redeemed() -> None:
    assert [state for (state, event) in TRANSITIONS if event is RequestEvent.REDEEM] == [RequestState.APPROVED]


@given(st.lists(st.sampled_from(RequestEvent), max_size=20))
def test_whatever_happens_there_is_one_end_and_no_redemption_without_an_approval(events: list[RequestEvent]) -> None:
    state, done = RequestState.AWAITING_APPROVAL, list[RequestEvent]()
    for event in events:
        if can(state, event):
            state = next_state(state, event, "areq-1")
            done.append(event)
    assert sum(TRANSITIONS_END[event] for event in done) <= 1
    if state is RequestState.REDEEMED:
        assert done == [RequestEvent.APPROVE, RequestEvent.REDEEM]


TRANSITIONS_END = {event: event is not RequestEvent.APPROVE for event in RequestEvent}
