"""All that an intent's transaction writes and compares, decided before it is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from broker.identity.party import Party
from broker.policy.decision import Decision
from broker.policy.quotas import Per
from broker.ports.break_glass import NewUse
from broker.ports.connectors import Handle
from broker.ports.leases import Attempt
from broker.ports.tasks import DEFAULT_LIMITS, TaskLimits
from broker.scope.canonical import JsonValue
from broker.scope.containment import Reach
from broker.scope.model import Scope
from broker.scope.narrowing import Narrowings
from broker.scope.request import AccessRequest


@dataclass(frozen=True, slots=True)
class Citation:
    """What a request rests on besides its own: a step of a plan, or a delegation. Never both."""

    plan_id: str
    delegation_id: str
    party: Party  # who cites it
    roles: frozenset[str]
    reach: Reach  # what the request would reach
    planned: Reach  # the same, without what the executor's identity fills in
    compared: Narrowings


@dataclass(frozen=True, slots=True)
class Redemption:
    """Which approved access request an intent redeems, and the digest under which it was decided on again."""

    access_request_id: str
    digest: str


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a holder has alive, one request's own lease left out."""

    grants: frozenset[str]  # the names of each, as policies call them
    count: int


@dataclass(frozen=True, slots=True)
class Seen:
    """Of a holder's :class:`Holdings`, what a decision was made on. None: no policy looked at it."""

    grants: frozenset[str] | None
    count: int | None


@dataclass(frozen=True, slots=True)
class LiveQuota:
    """How many leases of ``subject`` may be alive. ``members``: a subject of several holders, and whether one is of it.

    ``shown`` is how people call the subject. ``members`` is pure, and is called in the writer's thread.
    ``uncounted``: the holder whose leases take no place from others, the broker itself; empty: nobody.
    """

    name: str
    per: Per
    subject: str
    limit: int
    shown: str
    members: Callable[[str], bool] | None = None
    uncounted: str = ""


@dataclass(frozen=True, slots=True)
class Intent:
    """Everything the intent transaction writes, decided before it is opened.

    ``handle`` was prepared for ``attempt_id``. The transaction refuses (NotReady RECOVERY_MODE; Denied SUSPENDED;
    WrongState TASK_ENDED, TASK_ENDS_TOO_SOON; NotFound TASK_NOT_FOUND where the holder is no participant; Conflict
    REQUEST_ID_REUSED, REQUEST_IN_FLIGHT; WrongState LEASE_ENDED; Exhausted QUOTA_LIVE_LEASES,
    LIMIT_ATTEMPTS_PER_LEASE, LIMIT_LEASES_PER_TASK; NotReady SITUATION_MOVED where what was ``seen`` is not so any
    more; and what ``citation`` does not cover, see :class:`PipelineStore`) and then nothing at all is written.
    """

    tenant: str
    lease_id: str  # used if this request_id is new
    attempt_id: str
    holder: str
    entry: str  # the holder's registry entry
    owner: str  # who answers for the holder: (issuer, subject)
    svid_serial: str  # of the certificate that asked: hex, lower case; empty where none did
    request: AccessRequest
    request_digest: str
    scope: Scope
    contract_class: str
    decision: Decision
    handle: Handle
    now: datetime
    issue_deadline: datetime
    expires_at: datetime
    max_live_leases: int
    audit: Mapping[str, JsonValue]  # what the LEASE_INTENT event shall say beyond what the rows say
    seen: Seen | None = None  # None: the decision was made on nothing that other requests could move
    redeems: Redemption | None = None  # the approved access request that funds it
    citation: Citation | None = None
    limits: TaskLimits = DEFAULT_LIMITS
    quotas: tuple[LiveQuota, ...] = ()  # further limits on what is alive, counted where a lease is new
    break_glass: NewUse | None = None  # the emergency that it is for


@dataclass(frozen=True, slots=True)
class Opened:
    """The intent is durable. ``previous`` are attempts of the same lease that must end first."""

    lease_id: str
    attempt: Attempt
    previous: tuple[Attempt, ...]
