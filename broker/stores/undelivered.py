"""Ends by which the agent never had, or never kept, what was issued: it may be asked for again.

See docs/decisions/retry-of-the-undelivered.md.
"""

from __future__ import annotations

from typing import Final

from broker.lease.machine import TERMINAL, State
from broker.ports.leases import EndCause
from broker.stores.rows import LeaseRow

UNDELIVERED: Final = frozenset(
    {
        EndCause.NEVER_ISSUED,
        EndCause.OUTCOME_UNKNOWN,
        EndCause.GRANT_MISMATCH,
        EndCause.ABANDONED,
        EndCause.UNCONFIRMED,
        EndCause.REPLACED,
    }
)


def came_to_nothing(lease: LeaseRow) -> bool:
    """Whether the lease has ended, proven, and nobody ever had a credential of it.

    How its last attempt ended says nothing of an earlier one, which the agent had and asked to have replaced.
    """
    return State(lease.state) in TERMINAL and lease.cause in UNDELIVERED and lease.confirmed_at is None
