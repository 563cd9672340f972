"""Access requests, as people are asked about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.approval.machine import RequestState
from broker.approval.separation import Interest
from broker.policy.decision import Decision
from broker.ports.proofs import ProofRecord
from broker.scope.canonical import JsonValue
from broker.scope.model import Scope
from broker.scope.request import AccessRequest


@dataclass(frozen=True, slots=True)
class Filing:
    """What is needed to ask people about one request; decided before the transaction is opened.

    The transaction refuses (NotFound TASK_NOT_FOUND; WrongState TASK_ENDED, TASK_ENDS_TOO_SOON; Conflict
    REQUEST_ID_REUSED; Denied DENIED_BEFORE; Exhausted QUOTA_PENDING_REQUESTS) and then nothing is written.
    """

    tenant: str
    id: str  # used if this request_id is new
    holder: str
    principal: str
    request: AccessRequest
    request_digest: str
    digest: str  # what a yes is bound to (broker/approval/digest.py)
    ask_digest: str  # the same for whatever is asked again in other words
    scope: Scope
    contract_class: str
    decision: Decision  # NEEDS_APPROVAL, with the approvals by name
    interests: tuple[Interest, ...]  # who may not approve, as known when it was asked
    now: datetime
    expires_at: datetime  # nobody can approve from then on; its task's end is earlier if it comes first
    redeem_within: timedelta
    max_pending: int  # the holder's quota
    denied_since: datetime  # the same, denied since then, is not asked for again yet
    cool_down: timedelta
    audit: Mapping[str, JsonValue]  # what the ACCESS_REQUESTED event shall say beyond what the row says


@dataclass(frozen=True, slots=True)
class Vote:
    """One person's yes or no to one request, as it was given."""

    issuer: str
    subject: str
    yes: bool
    rule: str  # the approval it counts for; empty for a no
    how: str  # how the person had proven who it is
    note: str  # the person's own words
    groups: tuple[str, ...]  # as listed, and confirmed by the provider where it is asked, when it was given
    at: datetime
    request_id: str = ""  # of its giver: the same again is this vote
    proof: ProofRecord | None = None  # with a yes that is being given; kept beside it, not read back with it


@dataclass(frozen=True, slots=True)
class FiledRequest:
    """One access request that people are, or were, asked about. Never carries a secret.

    ``request`` is what was asked, its prompt, tool call and plan by their digests. ``tool_call`` and ``plan`` are
    their texts while somebody may need them, and empty afterwards.
    """

    tenant: str
    id: str
    holder: str
    principal: str
    request: AccessRequest
    digest: str
    scope: Scope  # without the template's grant: shown, never issued from
    contract_class: str
    policies: tuple[str, ...]
    policy_digest: str
    approvals: tuple[str, ...]  # needed, by name
    interests: tuple[Interest, ...]
    created_at: datetime
    expires_at: datetime
    redeem_within: timedelta
    state: RequestState
    approved_at: datetime | None
    redeem_by: datetime | None  # None: never approved
    ended_at: datetime | None
    ended_by: str  # who ended it: the holder, a person's issuer#subject, or "broker"
    note: str  # what who denied it said
    lease_id: str  # empty until redeemed
    redemption_id: str  # the request id of the redemption
    tool_call: str
    plan: str
    votes: tuple[Vote, ...]


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """Which access requests to list: of one holder or (empty) of everybody, open ones only or all."""

    tenant: str
    holder: str = ""
    open_only: bool = False


@dataclass(frozen=True, slots=True)
class RequestEventRecord:
    """One entry of a holder's stream of access requests, numbered like :class:`LeaseEvent`."""

    sequence: int
    previous: int
    at: datetime
    type: str
    request: FiledRequest
