"""The attempt machine: every state a credential can be in and every way out of it.

Two rules. Everything that affects the state of an attempt lives in this file; and this file does
not know how states are stored or who asks. A pair that is absent from :data:`TRANSITIONS` *is* the
error. The diagram in ``docs/architecture.md`` is drawn from the same dict (``make docs`` checks it).

Theory of operation. A *lease* is the bounded life of what one granted request may use; it has one
or more *attempts*, each with its own upstream handle. The machine runs per attempt, because that is
what an upstream knows; the lease's state is derived (:func:`lease_state`). An attempt starts in
``ISSUING``, written durably before the upstream is called. If the upstream proves that it created
nothing, the attempt is ``VOID``. If anything at all is uncertain it is ``REVOKING``: unknown outcome
counts as issued. ``REVOKED`` is entered only when the upstream said so, ``EXPIRED`` only when time
has ended a credential that nothing else can end. There is no resting place called "stuck": that is
an alarm on ``REVOKING``, which is retried for ever.

Central property: *an attempt that may still be alive always has a due time*
(:mod:`broker.lease.deadlines`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from broker.errors import Defect, Reason


class State(StrEnum):
    """Where an attempt (and, derived, its lease) stands."""

    ISSUING = "ISSUING"  # the intent is durable; the upstream may or may not have been called
    ACTIVE = "ACTIVE"  # the upstream issued it; it is usable
    REVOKING = "REVOKING"  # it must die and may still be alive
    REVOKED = "REVOKED"  # terminal: the upstream confirmed its end
    EXPIRED = "EXPIRED"  # terminal: time ended it, and nothing else could
    VOID = "VOID"  # terminal: proved never issued


class Event(StrEnum):
    """What can happen to an attempt."""

    ISSUED = "ISSUED"  # the upstream answered, and what it answered is what was asked
    NEVER_ISSUED = "NEVER_ISSUED"  # proof that nothing was, or ever will be, created
    END = "END"  # somebody, or time, wants it gone; or its outcome is unknown
    REVOKE_CONFIRMED = "REVOKE_CONFIRMED"  # the upstream confirmed that it is gone
    TIME_ENDED = "TIME_ENDED"  # the end that the upstream itself enforces has passed


TERMINAL: Final = frozenset({State.REVOKED, State.EXPIRED, State.VOID})
# Everything that is not terminal may be alive upstream, and is counted, listed and due.
MAYBE_ALIVE: Final = frozenset(State) - TERMINAL

TRANSITIONS: Final = MappingProxyType(
    {
        (State.ISSUING, Event.ISSUED): State.ACTIVE,
        (State.ISSUING, Event.NEVER_ISSUED): State.VOID,
        (State.ISSUING, Event.END): State.REVOKING,
        (State.ACTIVE, Event.END): State.REVOKING,
        (State.REVOKING, Event.END): State.REVOKING,  # asked again: the first cause stands
        (State.REVOKING, Event.NEVER_ISSUED): State.VOID,
        (State.REVOKING, Event.REVOKE_CONFIRMED): State.REVOKED,
        (State.REVOKING, Event.TIME_ENDED): State.EXPIRED,
    }
)


def next_state(state: State, event: Event) -> State:
    """The state after ``event``. Raises :class:`Defect` (ILLEGAL_TRANSITION) for an absent pair."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise Defect(
            Reason.ILLEGAL_TRANSITION,
            f"an attempt in {state} cannot take {event}.",
            metadata={"state": state, "event": event},
        ) from None


# By value: looking a state up costs a tenth of calling the class, and each move of a lease does it several times.
STATES: Final = MappingProxyType({state.value: state for state in State})


def can(state: State, event: Event) -> bool:
    """Whether ``event`` is legal in ``state``."""
    return (state, event) in TRANSITIONS


# A lease is as alive as its liveliest attempt; among ended ones the gravest word wins, so that a
# lease is not called VOID while one of its attempts really lived.
_PRECEDENCE: Final = (State.ACTIVE, State.ISSUING, State.REVOKING, State.EXPIRED, State.REVOKED, State.VOID)


def lease_state(attempts: Iterable[State]) -> State:
    """The state of a lease, from the states of its attempts (at least one)."""
    present: Collection[State] = frozenset(attempts)
    for state in _PRECEDENCE:
        if state in present:
            return state
    raise Defect(Reason.INTERNAL, "a lease has no attempt.")
