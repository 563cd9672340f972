"""What is upstream and not in the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from broker.lease.machine import State
from broker.ports.connectors import Carried, Handle


class OrphanWhy(StrEnum):
    """Why what an upstream lists as ours has to end."""

    UNKNOWN = "UNKNOWN"  # the ledger has never heard of it
    ENDED = "ENDED"  # the ledger holds that it has ended


class OrphanEnd(StrEnum):
    """How it ended."""

    REVOKED = "REVOKED"  # the upstream proved it
    EXPIRED = "EXPIRED"  # only time ends it, and its time is over


@dataclass(frozen=True, slots=True)
class Orphan:
    """Something upstream that is ours and no living attempt of the ledger: never a lease, only to be ended."""

    tenant: str
    id: str
    connector: str
    name: str  # the upstream's own
    attempt_id: str  # as the upstream tells it; empty: it does not
    handle: Handle
    why: OrphanWhy
    created_at: datetime  # upstream, or when it was seen first
    expires_at: datetime  # the latest that the connector's contract allows
    found_at: datetime
    due_at: datetime | None = None  # None: it has ended
    ended_at: datetime | None = None
    outcome: OrphanEnd | None = None
    epoch: int = 1  # fencing, as of an attempt
    failures: int = 0
    last_error: str = ""
    stuck: bool = False


@dataclass(frozen=True, slots=True)
class HeldUpstream:
    """An attempt that the ledger holds alive, and what the upstream calls what it made: no more, for there are many."""

    tenant: str
    lease_id: str
    attempt_id: str
    number: int
    upstream: str  # empty: never noted


@dataclass(frozen=True, slots=True)
class OrphanFigures:
    """Of one connector, what is unknown and not ended yet."""

    living: int
    stuck: int


class OrphanStore(Protocol):
    """What is upstream and not in the ledger, with the same promises as :class:`LeaseStore`: intent before effect,
    a due time for whatever may be alive, claims fenced by an epoch.
    """

    async def mark(self, tenant: str, candidate: str, now: datetime) -> str:
        """This tenant's mark (broker/lease/mark.py); ``candidate`` where it had none. Raises Tampered."""
        ...

    async def held(self, tenant: str, carried: Sequence[Carried]) -> Mapping[str, State]:
        """By name, what the ledger holds of these: the state of the attempt of that name or id, whichever connector
        made it; the liveliest where there are several. What is not there is unknown. A row that fails its MAC vouches
        for nothing.
        """
        ...

    async def active_attempts(self, connector: str, now: datetime) -> Sequence[HeldUpstream]:
        """What the ledger holds ACTIVE at ``now``; rows that fail their MAC are left out."""
        ...

    async def add_orphans(self, found: Sequence[Orphan]) -> Sequence[Orphan]:
        """Durably keep, due at once, those that the ledger still does not hold alive, each with its audit event.

        One that is kept already, and not ended, is left as it is. Returns the new ones.
        """
        ...

    async def orphan_connectors(self, now: datetime) -> frozenset[str]:
        """The connectors of which some are due."""
        ...

    async def claim_orphans(self, connector: str, now: datetime, limit: int, claim_for: timedelta) -> Sequence[Orphan]:
        """Take what is due, as :meth:`LeaseStore.claim_due` does. A row that fails its MAC is dropped, which is told:
        nothing is ended by its word, and what is really there is found again.
        """
        ...

    async def record_orphan(
        self, orphan: Orphan, outcome: OrphanEnd | None, now: datetime, next_due: datetime, error: str, stuck: bool
    ) -> bool:
        """How the try went, as :meth:`LeaseStore.record_revocation`; False where the claim was lost."""
        ...

    async def orphans(self, tenant: str, after: str, limit: int, *, living_only: bool) -> Sequence[Orphan]:
        """The newest first; ``after`` is the id of the last of the page before, or empty.

        Raises InvalidInput (PAGE_TOKEN_INVALID).
        """
        ...

    async def orphan_figures(self) -> Mapping[str, OrphanFigures]:
        """By connector, for /metrics."""
        ...
