"""The plan machine: every state of a plan and every way out of it.

A pair that is absent from :data:`TRANSITIONS` is the error. What a plan *says* never changes: there is no event for
it, and a new version is a new plan. That its time is over is not stored, it is read off the clock
(:func:`standing`), so that no late sweep can leave a plan valid.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class PlanState(StrEnum):
    """Where a plan stands."""

    REGISTERED = "REGISTERED"  # said, and nobody has decided about it
    CONFIRMED = "CONFIRMED"  # a validator has confirmed exactly this text and these actions
    REJECTED = "REJECTED"  # terminal: a validator has rejected it
    LAPSED = "LAPSED"  # terminal: its deadline has passed


class PlanEvent(StrEnum):
    """What can happen to a plan."""

    CONFIRM = "CONFIRM"
    REJECT = "REJECT"
    LAPSE = "LAPSE"


TRANSITIONS: Final = MappingProxyType(
    {
        (PlanState.REGISTERED, PlanEvent.CONFIRM): PlanState.CONFIRMED,
        (PlanState.REGISTERED, PlanEvent.REJECT): PlanState.REJECTED,
        (PlanState.REGISTERED, PlanEvent.LAPSE): PlanState.LAPSED,
        (PlanState.CONFIRMED, PlanEvent.LAPSE): PlanState.LAPSED,
    }
)


def next_state(state: PlanState, event: PlanEvent) -> PlanState | None:
    """The state after ``event``; None where the plan does not take it any more."""
    return TRANSITIONS.get((state, event))


def standing(stored: PlanState, deadline: datetime, now: datetime) -> PlanState:
    """The state at ``now``: LAPSED from its deadline on, unless it had come to its end before."""
    if now < deadline:
        return stored
    return next_state(stored, PlanEvent.LAPSE) or stored
