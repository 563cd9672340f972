"""Tasks, and how much one may come to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from broker.identity.behalf import Human
from broker.ports.leases import EndCause


class TaskState(StrEnum):
    """A task is open or it is not; how it ended is its cause."""

    OPEN = "OPEN"
    COMPLETED = "COMPLETED"
    ENDED = "ENDED"  # by deadline or dropped hold


@dataclass(frozen=True, slots=True)
class Task:
    """One unit of work."""

    tenant: str
    id: str
    creator: str  # SPIFFE ID
    participants: frozenset[str]  # SPIFFE IDs that may request under it, the creator included
    purpose: str
    ticket: str
    sponsor: str
    created_at: datetime
    deadline: datetime
    hold_grace: timedelta  # zero: HoldTask was never used
    hold_until: datetime | None  # while held: refreshed; when it passes, the task ends
    state: TaskState
    cause: EndCause | None
    ended_at: datetime | None
    task_type: str = ""  # what kind of work it is, as its creator said
    on_behalf_of: Human | None = None  # the human it acts for, as that person's own token proved


@dataclass(frozen=True, slots=True)
class NewTask:
    """What is needed to start a task; ids and times were chosen by the caller."""

    tenant: str
    id: str
    request_id: str  # same (creator, request_id): the same task; other content: Conflict
    request_digest: str
    creator: str
    participants: frozenset[str]
    purpose: str
    ticket: str
    sponsor: str
    created_at: datetime
    deadline: datetime
    max_open: int  # the creator's quota
    task_type: str = ""  # what kind of work it is, as its creator said
    on_behalf_of: Human | None = None  # the human it acts for
    id_token: str = ""  # digest of the token that proved it: of one task only, else Conflict (ID_TOKEN_USED)


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """How much one task, or one lease of it, may come to in all; ended ones count. Retries and chains have an end."""

    attempts_per_lease: int = 10
    leases_per_task: int = 1_000
    plans_per_task: int = 20
    delegations_per_task: int = 100
    delegations_per_lease: int = 10
    delegation_depth: int = 1  # hand-overs in a row


# The bounds where nobody configured others.
DEFAULT_LIMITS = TaskLimits()
