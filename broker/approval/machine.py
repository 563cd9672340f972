"""The request machine: every state of an access request that waits for people, and every way out of it.

Everything that affects the state of a request lives in this file, and a pair that is absent from
:data:`TRANSITIONS` *is* the error. The diagram in ``docs/approvals.md`` is drawn from the same dict.

Theory of operation. A request is filed when policy answers "needs approval", with a deadline of minutes.
It is ``APPROVED`` when every approval it needs has its quorum, and then has a second deadline, to be redeemed.
Redeeming it is the one way to a lease, and happens in the transaction that writes the lease's intent. One no
denies it, also after it was approved: a yes can be taken back for as long as nothing rests on it. Every other
way out (its asker withdraws it, time passes, its task ends) only ever takes away.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from broker.errors import Reason, WrongState


class RequestState(StrEnum):
    """Where an access request stands."""

    AWAITING_APPROVAL = "AWAITING_APPROVAL"  # people are asked
    APPROVED = "APPROVED"  # every quorum is there; it can be redeemed, once
    DENIED = "DENIED"  # terminal: somebody said no
    WITHDRAWN = "WITHDRAWN"  # terminal: its asker took it back
    LAPSED = "LAPSED"  # terminal: nobody decided, or nobody redeemed, in time; or its task ended
    REDEEMED = "REDEEMED"  # terminal: it funds one lease


class RequestEvent(StrEnum):
    """What can happen to an access request."""

    APPROVE = "APPROVE"  # the last vote that was missing
    DENY = "DENY"  # one no
    WITHDRAW = "WITHDRAW"  # by its asker
    LAPSE = "LAPSE"  # by time, or with its task
    REDEEM = "REDEEM"  # with the intent of its lease, in one transaction


OPEN: Final = frozenset({RequestState.AWAITING_APPROVAL, RequestState.APPROVED})
OVER: Final = frozenset(RequestState) - OPEN

TRANSITIONS: Final = MappingProxyType(
    {
        (RequestState.AWAITING_APPROVAL, RequestEvent.APPROVE): RequestState.APPROVED,
        (RequestState.AWAITING_APPROVAL, RequestEvent.DENY): RequestState.DENIED,
        (RequestState.AWAITING_APPROVAL, RequestEvent.WITHDRAW): RequestState.WITHDRAWN,
        (RequestState.AWAITING_APPROVAL, RequestEvent.LAPSE): RequestState.LAPSED,
        (RequestState.APPROVED, RequestEvent.REDEEM): RequestState.REDEEMED,
        (RequestState.APPROVED, RequestEvent.DENY): RequestState.DENIED,
        (RequestState.APPROVED, RequestEvent.WITHDRAW): RequestState.WITHDRAWN,
        (RequestState.APPROVED, RequestEvent.LAPSE): RequestState.LAPSED,
    }
)

# Why an event is refused, by the state that refuses it.
_REFUSALS: Final = MappingProxyType(
    {
        RequestState.AWAITING_APPROVAL: (Reason.ACCESS_REQUEST_PENDING, "still waits for people"),
        RequestState.APPROVED: (Reason.ACCESS_REQUEST_APPROVED, "is approved already"),
        RequestState.DENIED: (Reason.ACCESS_REQUEST_DENIED, "was denied"),
        RequestState.WITHDRAWN: (Reason.ACCESS_REQUEST_WITHDRAWN, "was withdrawn"),
        RequestState.LAPSED: (Reason.ACCESS_REQUEST_LAPSED, "has lapsed"),
        RequestState.REDEEMED: (Reason.ACCESS_REQUEST_REDEEMED, "was redeemed: one approval funds one lease"),
    }
)
_HINTS: Final = MappingProxyType(
    {
        RequestState.AWAITING_APPROVAL: "Wait for it (WatchAccessRequests), or withdraw it.",
        RequestState.APPROVED: "Nothing is left to decide. Its asker redeems it; a no still denies it.",
        RequestState.DENIED: "Ask for something else, or talk to who denied it.",
    }
)


def next_state(state: RequestState, event: RequestEvent, request_id: str) -> RequestState:
    """The state after ``event``. Raises :class:`WrongState`, with the reason of the state, for an absent pair."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise refusal(state, request_id) from None


def refusal(state: RequestState, request_id: str) -> WrongState:
    """Why a request in ``state`` takes no such event."""
    reason, told = _REFUSALS[state]
    return WrongState(
        reason,
        f"access request {request_id} {told}.",
        hint=_HINTS.get(state, "Ask again under a fresh request id."),
        metadata={"accessRequestId": request_id, "state": state},
    )


def can(state: RequestState, event: RequestEvent) -> bool:
    """Whether ``event`` is legal in ``state``."""
    return (state, event) in TRANSITIONS
