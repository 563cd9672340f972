"""When an attempt must be looked at next: the due time that every living attempt has.

Pure arithmetic on datetimes; ``None`` means never again, and is right for terminal states only.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeVar

from broker.lease.machine import TERMINAL, State

_ISSUING, _ACTIVE = State.ISSUING, State.ACTIVE

# Due times are only compared, so a store may ask in its own unit (whole milliseconds).
Moment = TypeVar("Moment", datetime, int)

# An answer to the agent without its ConfirmDelivery is taken back after this long (product.md, 7).
CONFIRM_WITHIN = timedelta(seconds=30)


def due_at(
    state: State,
    *,
    issue_deadline: Moment,
    confirm_by: Moment | None,
    expires_at: Moment,
    retry_at: Moment | None,
) -> Moment | None:
    """The next time the revoker must look at an attempt; None exactly for terminal states.

    ``issue_deadline``: when the upstream call is given up. ``confirm_by``: None once confirmed.
    ``retry_at``: when a revocation is tried (again); a missing one means at once, that is, long due.
    """
    if state in TERMINAL:
        return None
    if state is _ISSUING:
        return min(issue_deadline, expires_at)
    if state is _ACTIVE:
        return expires_at if confirm_by is None else min(confirm_by, expires_at)
    return retry_at if retry_at is not None else issue_deadline


def no_late_create_after(issued_from: datetime, issue_deadline: datetime) -> datetime:
    """Until when an upstream call whose outcome is unknown could still create something.

    The call is given up at its deadline; a request that was already on its way may land later, so
    a sweep is repeated until twice the call's allowance has passed (faults.md, finding 4).
    """
    return issue_deadline + (issue_deadline - issued_from)


def until_next_sweep(now: datetime, issued_from: datetime, issue_deadline: datetime) -> timedelta:
    """How long until an attempt of unknown outcome is worth looking for again; not positive: never.

    Once at the call's deadline, and once when no late create can land any more.
    """
    latest = no_late_create_after(issued_from, issue_deadline)
    return (issue_deadline if now < issue_deadline else latest) - now
