"""Leases and their attempts, how they end, and how they are looked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from broker.breakglass.reviews import Use as BreakGlassUse
from broker.lease.machine import Event, State
from broker.policy.standing import Standing
from broker.ports.connectors import Handle
from broker.ports.proofs import ProofRecord
from broker.scope.canonical import JsonValue


class Forgetting(NamedTuple):
    """One person's word that a lease which cannot be ended cannot be alive any more."""

    tenant: str
    lease_id: str
    by: str  # issuer#subject
    reason: str
    now: datetime
    proof: ProofRecord | None = None  # of the login for it; None only where nobody asked: tests of the ledger


class Forgotten(NamedTuple):
    """What came of it; ``done`` False: a second person has to say so, too."""

    done: bool
    first_by: str


class EndCause(StrEnum):
    """Why a lease, an attempt or a task was ended. The first cause stands."""

    COMPLETED = "COMPLETED"  # its task was completed
    EXPIRED = "EXPIRED"  # its TTL passed
    RELEASED = "RELEASED"  # its holder revoked it
    UNCONFIRMED = "UNCONFIRMED"  # delivery was not confirmed in time
    ABANDONED = "ABANDONED"  # the caller cancelled, or was too late to be answered
    REPLACED = "REPLACED"  # a retry under the same request id took its place
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"  # the upstream call failed, timed out, or the broker died in it
    GRANT_MISMATCH = "GRANT_MISMATCH"  # the upstream granted more, or for longer, than was asked
    TASK_DEADLINE = "TASK_DEADLINE"  # its task's deadline passed
    HOLD_DROPPED = "HOLD_DROPPED"  # its task was held and the holder let go for the grace time
    HOLDER_UNREGISTERED = "HOLDER_UNREGISTERED"  # its holder left the registry
    SUSPENDED = "SUSPENDED"  # operators stopped its holder, its task, what it is for, or everything
    HOLDER_DENIED = "HOLDER_DENIED"  # operators denied its holder, or the certificate that asked for it
    NEVER_ISSUED = "NEVER_ISSUED"  # proof that nothing was made
    PARENT_ENDED = "PARENT_ENDED"  # the credential of the lease that it is a part of was ended
    DELEGATION_REVOKED = "DELEGATION_REVOKED"  # who had handed it on took it back
    PERSON_DISABLED = "PERSON_DISABLED"  # who its task acts for is disabled, or not in people.yaml any more
    POLICY_TIGHTENED = "POLICY_TIGHTENED"  # the rules in force would not grant it any more, and its template revokes
    REVOKED_BY_OPERATOR = "REVOKED_BY_OPERATOR"  # at the people's door
    COMPLETED_BY_OPERATOR = "COMPLETED_BY_OPERATOR"  # its task was, at the people's door
    ENDED_TOGETHER = "ENDED_TOGETHER"  # the upstream could only end another credential together with this one
    RECOVERY = "RECOVERY"  # the ledger was found behind a witness: nothing that it says is open can be relied on


class Attempt(NamedTuple):
    """One upstream credential of a lease, and what the revoker needs to end it."""

    tenant: str
    id: str
    lease_id: str
    number: int
    connector: str
    handle: Handle
    state: State
    cause: EndCause | None
    created_at: datetime
    issue_deadline: datetime
    activated_at: datetime | None  # None: never became ACTIVE
    expires_at: datetime
    due_at: datetime | None
    epoch: int  # fencing: a write with a stale epoch changes nothing
    failures: int
    last_error: str


class Tried(NamedTuple):
    """How one try to revoke went, under the claim that ``attempt`` is of.

    ``event``: REVOKE_CONFIRMED, TIME_ENDED, NEVER_ISSUED, or None for "not yet" (then ``next_due`` and ``error`` are
    kept; an empty error is waiting, not failing; ``stuck`` raises the alarm event once). ``noted``: the handle from now
    on; None: as it was.
    """

    attempt: Attempt
    event: Event | None
    now: datetime
    next_due: datetime
    error: str = ""
    stuck: bool = False
    noted: Handle | None = None


class NamedIds(NamedTuple):
    """What a request names by its id; empty where it names nothing of the kind."""

    task_id: str = ""
    lease_id: str = ""
    access_request_id: str = ""
    plan_id: str = ""
    delegation_id: str = ""


NO_IDS = NamedIds()


@dataclass(frozen=True, slots=True)
class Tightened:
    """What the rules in force make of a grant that others allowed. Never an ALLOW."""

    outcome: Standing  # DENY, NEEDS_APPROVAL, or UNKNOWN where the decision cannot be made again
    reason: str  # of a DENY that is not policy's, a Reason; else empty
    policies: tuple[str, ...]  # that decide now
    why: str  # in words, for operators
    deploy_digest: str  # of the set that is in force
    policy_digest: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Lease:
    """The bounded life of what one granted request may use. Never carries a secret."""

    tenant: str
    id: str
    task_id: str
    holder: str
    request_id: str
    request_digest: str
    template: str
    template_digest: str
    connector: str
    account: str
    environment: str
    resource: str
    access: str
    actions: tuple[str, ...]
    parameters: Mapping[str, str]
    step: str
    contract_class: str
    policies: tuple[str, ...]
    policy_digest: str
    state: State
    cause: EndCause | None
    created_at: datetime
    expires_at: datetime
    confirm_by: datetime | None  # None: confirmed, or not ACTIVE
    confirmed_at: datetime | None  # when the delivery of an attempt was confirmed last, this one's or an earlier one's
    ended_at: datetime | None  # when it reached a terminal state
    attempt_id: str  # the latest attempt
    attempts: int
    failures: int  # of revoking, in a row
    next_due: datetime | None
    svid_serial: str  # of the certificate that asked for the latest attempt: hex, lower case, or empty
    plan_id: str = ""  # the plan that it, or the lease it is a part of, was granted by
    parent_lease_id: str = ""  # the lease that it is a part of
    delegation_id: str = ""  # by which
    access_request_id: str = ""  # the one that people approved it by; empty where nobody had to
    policy_tightened: Tightened | None = None  # why it would not be granted any more
    break_glass: BreakGlassUse | None = None  # the emergency it was granted in, where it was


@dataclass(frozen=True, slots=True)
class Granted:
    """One living lease, and what its latest attempt was granted on, as the audit trail has it."""

    lease: Lease  # with its policy_tightened
    at: datetime  # when that was decided
    facts: Mapping[str, JsonValue] | None  # the data of its lease.intent record; None: not there, or not ours
    present: Mapping[str, JsonValue]  # of the situation, what can be told as it is now (broker/policy/recorded.py)


@dataclass(frozen=True, slots=True)
class Ended:
    """What a suspension ended: how many attempts, of which connectors."""

    attempts: int = 0
    connectors: frozenset[str] = frozenset()
    more: bool = False  # as many as one transaction takes; there may be others
    after: tuple[str, str] = ("", "")  # then: the holder and request id of the last one
    tampered: frozenset[str] = frozenset()  # suspensions whose rows fail their MAC

    def plus(self, other: Ended) -> Ended:
        """Both together; whether there is more is what the later one says."""
        return Ended(
            self.attempts + other.attempts,
            self.connectors | other.connectors,
            other.more,
            other.after,
            self.tampered | other.tampered,
        )


@dataclass(frozen=True, slots=True)
class Selector:
    """Which living leases to end. All given fields must match; at least one must be given."""

    tenant: str
    lease_id: str = ""
    task_id: str = ""
    holder: str = ""
    attempt_id: str = ""


@dataclass(frozen=True, slots=True)
class LeaseFilter:
    """Which leases to list: always those of one holder, optionally of one task, living only."""

    tenant: str
    holder: str
    task_id: str = ""
    living_only: bool = False


@dataclass(frozen=True, slots=True)
class LeaseEvent:
    """One entry of a holder's stream. ``previous`` lets the reader see that it missed nothing."""

    sequence: int
    previous: int
    at: datetime
    type: str
    lease: Lease
