"""Every way the inside touches the world, on one page.

A port says what must be true, what is idempotent, and which errors come out; adapters live in the
plural rooms (``connectors``, ``stores``, ...) and are wired by ``broker/daemon.py`` alone. Time is an
aware UTC ``datetime`` that callers pass in; stores keep milliseconds, so every stored time is
truncated to the millisecond by whoever makes it (:func:`broker.clock.SystemClock.now` does).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, Protocol

from broker.approval.machine import RequestState
from broker.approval.rules import ApprovalRule
from broker.approval.separation import Interest
from broker.audit.claimed import Claimed
from broker.audit.event import AuditEvent
from broker.audit.report import TaskReport
from broker.breakglass.codes import Batch, KeptCode
from broker.breakglass.reviews import OverrideKind
from broker.breakglass.reviews import Use as BreakGlassUse
from broker.breakglass.rules import BreakGlassRule
from broker.canary.canary import Canary
from broker.canary.measurement import Measurement
from broker.delegation.delegation import Delegation
from broker.escalation.rules import Rule
from broker.identity.agent import Person, Registry
from broker.identity.automation import Automation
from broker.identity.behalf import Human
from broker.identity.denied import DenyList
from broker.identity.fresh_proof import FreshProof
from broker.identity.oidc_keys import KeySet
from broker.identity.party import Party
from broker.identity.spiffe_id import SpiffeId
from broker.lease.credential import Contract, Credential
from broker.lease.machine import Event, State
from broker.plan.machine import PlanEvent
from broker.plan.plan import Action, Plan
from broker.policy.cedar import PolicySet
from broker.policy.decision import Decision
from broker.policy.quotas import Per, Quota
from broker.policy.shadow import ShadowPolicies
from broker.policy.standing import Standing
from broker.scope.canonical import JsonValue
from broker.scope.containment import Reach
from broker.scope.model import Scope, ScopeTemplate
from broker.scope.narrowing import Narrowings
from broker.scope.request import AccessRequest
from broker.suspension.suspension import Kind, Lift, Subject, Suspension

# --------------------------------------------------------------------------- clock and chance


class Clock(Protocol):
    """Wall-clock time. Whoever decides asks once per decision and passes the answer on."""

    def now(self) -> datetime:
        """The present, aware, UTC, truncated to the millisecond."""
        ...


class Rng(Protocol):
    """Chance, for ids and jitter."""

    def id(self) -> str:
        """Letters and digits, at most 40: 128 bits of them random, from a cryptographic source."""
        ...

    def fraction(self) -> float:
        """A number in [0, 1), for jitter only."""
        ...


# --------------------------------------------------------------------------- connectors

# What is needed to end a credential later, and nothing that opens a door. JSON, kept in the ledger.
Handle = Mapping[str, JsonValue]

# Durably replaces the attempt's handle (None for the second: keep) and records the upstream's own
# name of what was made, so that a sweep can tell ours-and-known from ours-and-unknown. Returns after
# the commit. Raises if the attempt was ended meanwhile: the connector must then stop and clean up.
Checkpoint = Callable[[Handle, str | None], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Returned:
    """Of what was granted, what the upstream itself says: never what was asked. None: it does not tell."""

    account: str | None = None  # as templates name accounts
    role: str | None = None  # as the template's grant names it (``role`` or ``role_name``)
    name: str | None = None  # that carries the attempt's id: of a session, a login


@dataclass(frozen=True, slots=True)
class Issued:
    """What the upstream returned: the credential, and what it really granted."""

    credential: Credential
    # When the upstream itself ends it. Later than asked by more than the contract's on_expiry: refused.
    expires_at: datetime
    # The upstream's own names and limits, for the audit trail. Never secret.
    observed: Mapping[str, JsonValue] = field(default_factory=dict)
    returned: Returned = Returned()
    inside: Credential | None = None  # where ``credential`` is wrapped: what it is that is inside


@dataclass(frozen=True, slots=True)
class Revoked:
    """The upstream confirmed, with proof, that nothing of this attempt is usable any more."""

    observed: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Expired:
    """Only time ends these credentials, and their time is over."""


@dataclass(frozen=True, slots=True)
class NotYet:
    """Not proven dead. Try again, not before ``retry_after`` if the upstream (or reason) says so.

    ``failed`` is False where nothing went wrong and only waiting helps (EXPIRY_ONLY): no alarm.
    """

    why: str
    retry_after: timedelta | None = None
    failed: bool = True


@dataclass(frozen=True, slots=True)
class Refused:
    """The upstream refuses the broker itself (401, 403): an alarm, and still retried."""

    why: str


RevokeOutcome = Revoked | Expired | NotYet | Refused


class Use(StrEnum):
    """What an upstream said to a credential that was used."""

    WORKS = "WORKS"
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True)
class Carried:
    """One thing that lives upstream and carries our mark, as :meth:`Connector.inventory` found it. No secret."""

    name: str  # the upstream's own, as it is checkpointed to the ledger (``known_upstream`` compares it)
    attempt_id: str | None  # as the upstream tells it; None: it cannot, and ours by the place where it is
    created_at: datetime | None  # by the upstream's clock; None: it cannot tell
    handle: Handle  # ``revoke`` ends it by this


@dataclass(frozen=True, slots=True)
class RevokeContext:
    """What the ledger knows about an attempt that must die."""

    now: datetime
    created_at: datetime  # when its intent was committed
    issue_deadline: datetime  # when its upstream call was given up
    expires_at: datetime
    outcome_known: bool  # False: the attempt never became ACTIVE, so the upstream may know more than we
    # Of these upstream names, the ones the ledger holds (for any attempt of this connector).
    known_upstream: Callable[[Sequence[str]], Awaitable[frozenset[str]]]
    # Durably end (ENDED_TOGETHER) whatever else of this connector lives under an upstream name that starts so, and
    # tell how many: before an upstream is told to end more than it was asked for. None: that must not be done.
    end_together: Callable[[str], Awaitable[int]] | None = None


class Severity(StrEnum):
    """How much a doubt matters."""

    ERROR = "ERROR"  # something does not work, or is wider than declared: to be mended now
    WARNING = "WARNING"  # something could not be told, or is weaker than it should be


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something about a connector's upstream that is not as it must be. Nothing in it is secret."""

    severity: Severity
    what: str  # one sentence
    remedy: str  # what an operator does about it, one sentence or more


class Connector(Protocol):
    """One configured upstream (adapter of one kind).

    Every method guarantees the error family: nothing but :class:`broker.errors.BrokerError` comes
    out of ``prepare`` and ``issue`` (``UpstreamFailed`` for whatever the upstream or its library did;
    its ``outcome_known`` is True only on proof that nothing was made). ``revoke`` returns, it does not
    raise: a failure is a :class:`NotYet`. Adapters are safe to call concurrently and bound their own
    threads; cancellation of ``issue`` leaves the outcome unknown.
    """

    @property
    def name(self) -> str:
        """The name templates use."""
        ...

    @property
    def contract(self) -> Contract:
        """What is promised about ending what this connector issues."""
        ...

    def prepare(self, scope: Scope, attempt_id: str, holder: str, expires_at: datetime, *, task_id: str = "") -> Handle:
        """The handle, chosen by us before any call. Pure, and quick: no I/O.

        ``holder`` and ``task_id`` are for whom and for what, for upstreams that keep a note of it.
        Refuses here (InvalidInput, figures in the message) what the upstream would refuse for size
        or form, so that nothing is issued in order to find out.
        """
        ...

    async def issue(self, handle: Handle, scope: Scope, expires_at: datetime, checkpoint: Checkpoint) -> Issued:
        """Make the credential, usable until ``expires_at`` and not longer.

        ``checkpoint`` is awaited between upstream calls, whenever ending the credential will need
        something that the next call would make unrecoverable (a token accessor, a lease id).
        """
        ...

    async def revoke(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        """End whatever this attempt made. Idempotent: what is proven gone is Revoked again."""
        ...

    async def use(self, credential: Credential, scope: Scope) -> Use:
        """Use a credential of ours as its holder would, harmlessly, and never with the broker's own.

        REFUSED is said only where the upstream itself refused the credential. Raises UpstreamFailed, with the reason in
        its message, where that cannot be told: no answer, another failure, or nothing that could be tried. What is
        raised holds nothing of the credential. It ends by itself within the connector's own timeout.
        """
        ...

    async def inventory(self) -> Sequence[Carried] | None:
        """Everything that lives upstream and carries a broker's mark; None: this upstream cannot tell.

        Whose mark it is, the caller tells by the attempt's id (broker/lease/mark.py): another broker's are listed,
        too. Raises UpstreamFailed rather than tell half.
        """
        ...

    async def tend(self) -> None:
        """What must be done by time alone, called about once a minute: keep the broker's own credential alive.

        Raises UpstreamFailed where that failed; it is called again.
        """
        ...

    async def examine(self) -> Sequence[Doubt]:
        """Whether the upstream answers, gives the broker the rights it needs, and gives it no more than declared.

        Empty: all is well. Makes and changes nothing upstream. Does not raise for what the upstream does: that is
        a Doubt, too. Takes as long as its calls take; whoever asks bounds it.
        """
        ...

    async def close(self) -> None:
        """Let go of threads and connections. Nothing is revoked by it."""
        ...


# --------------------------------------------------------------------------- what operators deployed


@dataclass(frozen=True, slots=True)
class ConnectorSpec:
    """One connector as the operator wrote it; its kind's adapter has checked ``settings``.

    References to secrets (``file:``, ``env:``) are still references here.
    """

    name: str
    kind: str  # "vault-database", "aws-sts"
    settings: Mapping[str, JsonValue]
    digest: str


@dataclass(frozen=True, slots=True)
class Signed:
    """Who stands for a deploy set whose signatures were needed, and hold."""

    author: str  # a person's name, as the signers say
    serial: int  # above that of every signed set before it
    signers: tuple[str, ...]  # people, sorted; two at least
    keys: tuple[str, ...]  # the names of the keys they signed with, sorted


class AcceptedDeploy(NamedTuple):
    """The newest signed set that ever came into force."""

    serial: int
    digest: str


@dataclass(frozen=True, slots=True)
class DeploySet:
    """One consistent set of everything operators own; replaced as a whole, never edited."""

    digest: str  # over every file of the set
    registry: Registry
    people: Mapping[str, Person]  # by the key other files use
    templates: Mapping[str, ScopeTemplate]
    policies: PolicySet
    connectors: Mapping[str, ConnectorSpec]
    denied: DenyList = field(default_factory=DenyList)
    automation: Mapping[SpiffeId, Automation] = field(default_factory=dict)  # operators' own workloads
    approvals: Mapping[str, ApprovalRule] = field(default_factory=dict)  # by name, as gates name them
    signed: Signed | None = None  # where signatures are needed
    shadow: ShadowPolicies | None = None  # what is tried out beside the policies, and decides nothing
    quotas: tuple[Quota, ...] = ()
    escalation: tuple[Rule, ...] = ()
    break_glass: Mapping[str, BreakGlassRule] = field(default_factory=dict)  # by template; absent: nobody's
    canaries: Mapping[str, Canary] = field(default_factory=dict)  # by connector; absent: nothing is measured of it


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of taking in what is on disk. ``accepted`` False: the last good set stays, for these problems."""

    accepted: bool
    digest: str  # of the set in force
    problems: tuple[str, ...] = ()


class DeploySource(Protocol):
    """Where the set in force comes from."""

    @property
    def current(self) -> DeploySet:
        """The set in force. A bad one never gets here: the last good stays."""
        ...


# --------------------------------------------------------------------------- forgetting


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


# --------------------------------------------------------------------------- access reviews


@dataclass(frozen=True, slots=True)
class NewAccessReview:
    """A report that a person signs off, with what the broker knows about it."""

    tenant: str
    person: str  # issuer#subject
    request_id: str  # same (person, request_id): the same sign-off; other content: Conflict
    request_digest: str
    report_digest: str
    deploy_digest: str
    report_time: datetime
    findings: str
    agents: int  # entries of the registry
    own_agents: int  # of which the person is the owner
    now: datetime
    due: datetime | None  # when the next one is due; None: no schedule


class AccessReviewSigned(NamedTuple):
    """A sign-off, as it was kept."""

    at: datetime
    due: datetime | None
    own_agents: int


# --------------------------------------------------------------------------- the ledger


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
class Attempt:
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


@dataclass(frozen=True, slots=True)
class Tried:
    """How one try to revoke went, under the claim that ``attempt`` is of.

    ``event``: REVOKE_CONFIRMED, TIME_ENDED, NEVER_ISSUED, or None for "not yet" (then ``next_due`` and ``error`` are
    kept; an empty error is waiting, not failing; ``stuck`` raises the alarm event once).
    """

    attempt: Attempt
    event: Event | None
    now: datetime
    next_due: datetime
    error: str = ""
    stuck: bool = False


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
    confirmed_at: datetime | None
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

    grants: frozenset[str]  # "TEMPLATE" and "ACCESS:ENVIRONMENT" of each
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

    ``handle`` was prepared for ``attempt_id``. The transaction refuses (Denied SUSPENDED; WrongState TASK_ENDED,
    TASK_ENDS_TOO_SOON; NotFound TASK_NOT_FOUND where the holder is no participant; Conflict
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


# Of a holder, its registry entry and who answers for it (issuer, subject); empty where it has none. Quick: no I/O.
Members = Callable[[str], tuple[str, str]]


@dataclass(frozen=True, slots=True)
class NewSuspension:
    """What is to be stopped, by whom. Same (author, request_id): the same suspension; other content: Conflict."""

    tenant: str
    id: str
    request_id: str
    request_digest: str
    kind: Kind
    value: str
    reason: str
    author: str  # (issuer, subject)
    author_name: str  # for those who are refused: whom to ask
    now: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class ProofRecord:
    """A fresh login, kept as the record of the act it was for: in the same transaction, and once."""

    proof: FreshProof
    action: str  # of broker/approval/intent_digest.py
    about: str  # the id of what it was for

    @property
    def digest(self) -> str:
        """Names the login: SHA-256 (hex) of what the provider signed."""
        return self.proof.id_token.digest


@dataclass(frozen=True, slots=True)
class Lifting:
    """One person's word that a suspension shall end. Same (by, request_id): said once."""

    tenant: str
    id: str
    request_id: str
    by: str  # (issuer, subject)
    name: str
    reason: str
    now: datetime
    proof: ProofRecord | None = None


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


@dataclass(frozen=True, slots=True)
class ExportBacklog:
    """How far the audit export is behind."""

    head: int  # the last record's sequence
    exported: int  # the last one that the export has
    oldest: timedelta  # age of the first that it has not


@dataclass(frozen=True, slots=True)
class LedgerFigures:
    """What /metrics tells."""

    live_by_class: Mapping[str, int]
    open_tasks: int
    overdue: int
    oldest_overdue: timedelta
    stuck: int
    audit_head: int
    audit_exported: int
    oldest_unexported: timedelta
    suspensions: Mapping[str, int] = field(default_factory=dict)  # in force, by kind
    suspensions_tampered: int = 0  # among them, those whose rows fail their MAC
    tightened: Mapping[str, int] = field(
        default_factory=dict
    )  # living leases that would not be granted now, by outcome
    break_glass_live: int = 0  # leases of break-glass that may be alive
    reviews: Mapping[str, int] = field(default_factory=dict)  # of break-glass, not done: by AHEAD, DUE, OVERDUE


class LeaseStore(Protocol):
    """The ledger: the truth about tasks, leases and attempts, and the audit trail beside them.

    Each method is one durable transaction (or one consistent read); it returns after the commit and
    raises :class:`broker.errors.NotReady` (STORE_UNAVAILABLE) when nothing was committed. The audit
    events of a change are in the same transaction, made here, so that no change goes unrecorded.
    Every state change goes through :func:`broker.lease.machine.next_state`, every due time through
    :func:`broker.lease.deadlines.due_at`. Rows carry a MAC, checked on every read; a row that fails
    is never used for a grant (Tampered ROW_MAC_MISMATCH). Tenant is in every key and predicate.
    """

    # -- tasks
    async def start_task(self, new: NewTask) -> Task:
        """Open a task. Repeating it with the same (creator, request_id, digest) returns the first."""
        ...

    async def get_task(self, tenant: str, task_id: str) -> Task:
        """Raises NotFound (TASK_NOT_FOUND)."""
        ...

    async def end_task(
        self,
        tenant: str,
        task_id: str,
        state: TaskState,
        cause: EndCause,
        actor: str,
        now: datetime,
        report: TaskReport | None = None,
        audit: Mapping[str, JsonValue] | None = None,
    ) -> Task:
        """Close an open task and move all its living attempts to REVOKING, due now; no-op if closed.

        ``audit``: what its event shall say beyond cause and figures.

        A task is reported on once, with its end or later: the same report again changes nothing, another one is
        refused and the task closed all the same (Conflict TASK_REPORTED).
        """
        ...

    # -- agents' whole texts
    async def claimed_texts(self, tenant: str, task_id: str) -> Sequence[Claimed]:
        """What agents said in whole on a task, oldest first; nothing where it was erased. Raises Tampered."""
        ...

    async def erase_texts(self, tenant: str, task_id: str, actor: str, reason: str, now: datetime) -> bool:
        """Erase one task's texts, by erasing their key; False if there are none."""
        ...

    async def erase_texts_before(self, before: datetime, limit: int, now: datetime) -> int:
        """Erase the texts of tasks whose first ones are older than ``before``; of how many tasks."""
        ...

    # -- forgetting
    async def forget_lease(self, said: Forgetting) -> Forgotten:
        """The first person's word is kept, the second's makes the lease EXPIRED. Refused: NotFound (LEASE_NOT_FOUND);
        WrongState (LEASE_ENDED; LEASE_NOT_FORGETTABLE where an attempt is not stuck or quarantined, or until a day
        after the upstream itself must have ended it); Denied (SECOND_PERSON_REQUIRED) for the first person again.
        """
        ...

    # -- retention
    async def delete_ended(self, before: datetime, now: datetime) -> int:
        """Delete the tasks that have been over since ``before``, each with its leases, attempts, plans, delegations and
        access requests; how many tasks. Never one of which anything may be alive, is younger, or fails its MAC. Their
        request ids may be used anew. In small transactions, so that others commit in between. What was upstream, no
        lease's, and ended before then goes, too.
        """
        ...

    # -- access reviews
    async def sign_off_access_review(self, new: NewAccessReview) -> AccessReviewSigned:
        """Keep that a person stands for a report; the same again is the first one's answer. Raises Conflict."""
        ...

    async def last_access_review(self, tenant: str) -> datetime | None:
        """When a report was signed off last; None: never."""
        ...

    async def hold_task(self, tenant: str, task_id: str, grace: timedelta, until: datetime, now: datetime) -> Task:
        """Remember that the task is held until ``until``. Raises WrongState (TASK_ENDED)."""
        ...

    async def end_due_tasks(self, now: datetime, limit: int) -> int:
        """Close the open tasks whose deadline or hold has passed, like :meth:`end_task`; how many."""
        ...

    # -- issuing
    async def open_intent(self, intent: Intent) -> Opened:
        """The intent transaction: see :class:`Intent`.

        Same (holder, request_id) and digest as a living lease: that lease gets a further attempt, its
        older living attempts go to REVOKING (cause REPLACED) in the same transaction; if one of them
        is still ISSUING and before its issue_deadline: Conflict (REQUEST_IN_FLIGHT). So does a lease that is
        REVOKING because its delivery failed; if such a lease has ended, a retry opens a new one. A lease that
        ran its course (completed, released, expired, ...) is not asked for again: WrongState (LEASE_ENDED).
        """
        ...

    async def index_quotas(self, kinds: frozenset[Per]) -> None:
        """Make ready for quotas of living leases of these kinds, and of no others. Idempotent.

        Only how fast :meth:`open_intent` counts depends on it: a ledger that has no such quota keeps no index for it.
        """
        ...

    async def check_intent(self, intent: Intent) -> None:
        """Refuse what :meth:`open_intent` would refuse now, and write nothing (AIP-163)."""
        ...

    async def holdings(self, tenant: str, holder: str, request_id: str) -> Holdings:
        """What ``holder`` has alive, without the lease of ``request_id``. Raises Tampered for a row that fails."""
        ...

    async def checkpoint(
        self, tenant: str, attempt_id: str, epoch: int, handle: Handle, upstream: str | None, now: datetime
    ) -> None:
        """Replace the handle of an ISSUING attempt. Raises WrongState (LEASE_ENDED) if it was ended."""
        ...

    async def activate(
        self,
        tenant: str,
        attempt_id: str,
        epoch: int,
        expires_at: datetime,
        confirm_by: datetime,
        observed: Mapping[str, JsonValue],
        now: datetime,
    ) -> Lease:
        """ISSUING to ACTIVE. If the attempt was ended, or its task is closed or past its deadline:

        nothing is activated, the attempt is (left or moved) REVOKING, and WrongState is raised.
        ``expires_at`` may only shorten the lease.
        """
        ...

    async def confirm_delivery(
        self, tenant: str, lease_id: str, holder: str, attempt_id: str, now: datetime, person: str = ""
    ) -> Lease:
        """The holder has it. Idempotent while ACTIVE. NotFound for others, WrongState (LEASE_ENDED).

        What was got by break-glass went to ``person``, and nobody else has it: NotFound for its holder alone.
        """
        ...

    # -- asking people
    async def open_access_request(self, filing: Filing) -> FiledRequest:
        """File a request: see :class:`Filing`. The same (holder, request_id, content) again returns the first."""
        ...

    async def check_access_request(self, filing: Filing) -> None:
        """Refuse what :meth:`open_access_request` would refuse now, and write nothing (AIP-163)."""
        ...

    async def vote(
        self,
        tenant: str,
        access_request_id: str,
        digest: str,
        vote: Vote,
        satisfied: Callable[[FiledRequest], bool],
    ) -> FiledRequest:
        """Record one person's vote at ``vote.at``, and what it makes of the request.

        The same (person, request_id) again, with the same vote on the same digest, changes nothing and returns the
        request as it is, whatever has become of it; with another one: Conflict (REQUEST_ID_REUSED).

        A no denies an open request. A yes is taken while the request waits; where ``satisfied`` is then true of the
        request with this vote in it, the request is APPROVED in the same transaction. ``satisfied`` is pure and may
        raise, which refuses the vote. Of votes, withdrawals and redemptions at once, each is decided on what those
        before it left. Refused: NotFound (ACCESS_REQUEST_NOT_FOUND), Conflict (APPROVAL_DIGEST_MISMATCH where
        ``digest`` is not the request's, VOTE_ALREADY_CAST for a second yes), WrongState (the reason of its state;
        ACCESS_REQUEST_LAPSED from its deadline on, swept or not), Tampered for a request or vote that fails its MAC,
        Denied (FRESH_LOGIN_USED) for a proof that is there already.
        """
        ...

    async def withdraw_access_request(
        self, tenant: str, access_request_id: str, holder: str, now: datetime
    ) -> FiledRequest:
        """Its holder takes an open request back; no-op if it is WITHDRAWN. NotFound for others, WrongState else."""
        ...

    async def lapse_access_requests(self, now: datetime, limit: int) -> int:
        """End the open requests whose deadline has passed (LAPSED); how many."""
        ...

    async def get_access_request(self, tenant: str, access_request_id: str, holder: str = "") -> FiledRequest:
        """Raises NotFound (ACCESS_REQUEST_NOT_FOUND) also where ``holder`` is given and is not its holder."""
        ...

    async def list_access_requests(self, filter_: RequestFilter, after: str, limit: int) -> Sequence[FiledRequest]:
        """Newest first; ``after`` is the id of the last one of the page before, or empty. Those that fail their MAC
        are left out where everybody's are listed, so that one damaged row does not hide the others.
        """
        ...

    async def access_request_events(
        self, tenant: str, holder: str, after: int, limit: int
    ) -> Sequence[RequestEventRecord]:
        """The holder's events of access requests with a sequence above ``after``, in order."""
        ...

    async def last_approved_plan(self, tenant: str, principal: str, template: str) -> tuple[str, str]:
        """(access request id, plan) of the request by ``principal`` under ``template`` that had a plan and was approved
        last (and not denied or withdrawn since); two empty texts where there is none.
        """
        ...

    async def pending_access_requests(self, tenant: str, holder: str) -> int:
        """How many requests of ``holder`` wait for people."""
        ...

    # -- ending
    async def end_attempt(
        self, tenant: str, attempt_id: str, event: Event, cause: EndCause, now: datetime, detail: str = ""
    ) -> State:
        """Apply NEVER_ISSUED or END to one attempt (any epoch); a no-op where the machine has no such pair."""
        ...

    async def end_leases(
        self,
        selector: Selector,
        cause: EndCause,
        actor: str,
        now: datetime,
        audit: Mapping[str, JsonValue] | None = None,
    ) -> int:
        """Move every living attempt of the selected leases to REVOKING, due now; how many attempts.

        ``audit``: what their events shall say beyond the cause.
        """
        ...

    async def end_unregistered(self, tenant: str, registered: Callable[[str], bool], now: datetime) -> int:
        """End the living leases for whose holder ``registered`` is false; how many attempts."""
        ...

    async def end_denied(self, tenant: str, denied: Callable[[str, str], bool], now: datetime) -> int:
        """End the living leases for whose (holder, svid_serial) ``denied`` is true; how many attempts."""
        ...

    async def end_on_behalf_of(self, tenant: str, enabled: Callable[[Human], bool], now: datetime) -> int:
        """End the living leases of open tasks that act for whom ``enabled`` is false of; how many attempts."""
        ...

    async def fresh_logins(self, tenant: str, about: str) -> Sequence[tuple[str, str, str]]:
        """The fresh logins that are the record of acts about ``about``: (issuer, subject, signed token), oldest first.

        Raises Tampered for one that fails its MAC.
        """
        ...

    # -- suspending
    async def suspend(self, new: NewSuspension, members: Members) -> tuple[Suspension, Ended]:
        """Stop what ``new`` says, now. What is being issued under it ends in the same transaction, so that:

        no intent that it covers commits afterwards (:meth:`open_intent` refuses), and no attempt that it covers
        becomes ACTIVE afterwards. What is ACTIVE is REVOKING when this returns.
        """
        ...

    async def resume(self, lifting: Lifting) -> Suspension:
        """Lift a suspension; nothing that it ended comes back.

        Where everything is suspended, or the row fails its MAC, two different people must say so: the first is
        recorded and the suspension stays in force; the same person again is Denied (SECOND_PERSON_REQUIRED).
        Raises NotFound (SUSPENSION_NOT_FOUND), WrongState (SUSPENSION_ENDED), Denied (FRESH_LOGIN_USED) for a proof
        that is there already.
        """
        ...

    async def suspensions(self, tenant: str, ended: bool, after: str, limit: int) -> Sequence[Suspension]:
        """Newest first, those that are over only with ``ended``; ``after`` is the last id of the page before, or empty.

        Raises InvalidInput (PAGE_TOKEN_INVALID) for an ``after`` that is none.
        """
        ...

    async def check_suspended(self, tenant: str, subject: Subject, now: datetime) -> None:
        """Raises Denied (SUSPENDED) if a suspension in force covers ``subject``. Costs next to nothing otherwise."""
        ...

    async def tend_suspensions(self, tenant: str, members: Members, now: datetime) -> Ended:
        """What time and chance bring: end suspensions by their time, and whatever lives although it is suspended.

        (A crash between the portions of :meth:`suspend`; an agent that a reload gave another owner.) A row that
        fails its MAC counts as in force from here on, and is an alarm. Writes only if there is something to do.
        """
        ...

    async def claim_due(self, connector: str, now: datetime, limit: int, claim_for: timedelta) -> Sequence[Attempt]:
        """Take due attempts of one connector: of those due longest, the ones that end soonest by themselves first.

        But what has been due for a minute goes before those.

        Each is moved to REVOKING first if it was ISSUING (OUTCOME_UNKNOWN) or ACTIVE (EXPIRED or
        UNCONFIRMED), gets epoch + 1 and is due again at ``now + claim_for``: a claimer that dies is
        replaced. The returned attempts carry the new epoch.
        """
        ...

    async def next_due(self, connector: str) -> datetime | None:
        """When the first of one connector's living attempts is due; None where none lives."""
        ...

    async def record_revocations(self, tried: Sequence[Tried]) -> Sequence[bool]:
        """Results of tries, in one transaction, each under its claim's epoch; False for each whose claim was lost."""
        ...

    async def record_revocation(
        self, attempt: Attempt, event: Event | None, now: datetime, next_due: datetime, error: str, stuck: bool
    ) -> bool:
        """The same of one try."""
        ...

    async def recover(self, now: datetime) -> int:
        """At boot, before serving: what is due goes to REVOKING, due now; how many.

        So do ISSUING attempts that are not due yet, whose broker is gone: all of them, unless other replicas live. If
        some do, those of a replica that died come due by themselves, at their issue_deadline. And so are, uncounted and
        with nobody beside, revocations that a process which is no more had begun: no claim outlives who made it.
        """
        ...

    # -- reading
    async def get_lease(self, tenant: str, lease_id: str, holder: str) -> Lease:
        """Raises NotFound (LEASE_NOT_FOUND) also where ``holder`` is somebody else.

        Who handed on what the lease is a part of sees it like its holder.
        """
        ...

    async def is_someone_elses(self, tenant: str, who: str, task_id: str, lease_id: str) -> bool:
        """Whether the task exists and ``who`` has no part in it, or the lease exists and is another's.

        An empty id is nobody's. For counting what agents must not be told: its time depends on the answer.
        """
        ...

    async def list_leases(self, filter_: LeaseFilter, after: str, limit: int) -> Sequence[Lease]:
        """Newest first; ``after`` is the id of the last lease of the page before, or empty."""
        ...

    async def living_attempts(self, tenant: str, lease_id: str) -> Sequence[Attempt]:
        """The attempts of a lease that may still be alive upstream."""
        ...

    async def task_leases(self, tenant: str, task_id: str) -> Sequence[Lease]:
        """All leases of a task, whoever holds them."""
        ...

    async def lease_events(self, tenant: str, holder: str, after: int, limit: int) -> Sequence[LeaseEvent]:
        """The holder's events with a sequence above ``after``, in order."""
        ...

    async def changed(self, since: int) -> int:
        """Wait until the audit head is above ``since``; the head. (May return early and unchanged.)"""
        ...

    async def end_together(self, connector: str, prefix: str, because: str, now: datetime) -> int:
        """End (ENDED_TOGETHER) every living attempt of ``connector`` whose upstream name starts with ``prefix``.

        ``because``: the attempt that could not be ended alone; their events tell it. How many attempts.
        """
        ...

    async def known_upstream(self, connector: str, names: Sequence[str]) -> frozenset[str]:
        """Of these upstream names, those recorded by a checkpoint."""
        ...

    async def connectors_in_use(self) -> frozenset[str]:
        """The connectors that living attempts need."""
        ...

    async def figures(self, now: datetime) -> LedgerFigures:
        """For /metrics: counts what lives."""
        ...

    async def export_backlog(self, now: datetime) -> ExportBacklog:
        """How far the audit export is behind. Costs the same however much lives: it is asked every second."""
        ...

    # -- the deploy set
    async def accept_deploy(self, tenant: str, serial: int, digest: str, now: datetime) -> AcceptedDeploy:
        """Remember that a signed set comes into force, unless a newer one, or another of its serial, did.

        Returns what is remembered then: (serial, digest) itself if it was accepted. Raises Tampered
        (ROW_MAC_MISMATCH) if what was remembered is not ours.
        """
        ...

    # -- audit
    async def append(self, events: Sequence[AuditEvent], now: datetime) -> None:
        """Record events that change nothing else (refusals, reloads)."""
        ...

    async def audit_since(self, after: int, limit: int) -> Sequence[bytes]:
        """The canonical bytes of audit records with a sequence above ``after``, in order."""
        ...

    async def audit_exported(self, upto: int) -> None:
        """The sink has durably taken everything up to this sequence."""
        ...

    # -- webhooks
    async def webhook_position(self, tenant: str, destination: str) -> int | None:
        """The sequence up to which ``destination`` has been told; None for one that is new."""
        ...

    async def webhook_delivered(self, tenant: str, destination: str, upto: int) -> None:
        """``destination`` has been told everything up to ``upto``. Never goes back."""
        ...

    async def close(self) -> None:
        """Commit what is queued and close."""
        ...


@dataclass(frozen=True, slots=True)
class NewPlan:
    """What is needed to register a plan; id, times and digest were chosen by the caller."""

    tenant: str
    id: str
    request_id: str  # same (planner, request_id): the same plan; other content: Conflict
    request_digest: str
    task_id: str
    planner: Party
    text: str
    actions: tuple[Action, ...]
    digest: str
    created_at: datetime
    deadline: datetime  # at most the task's, whatever stands here
    max_plans: int  # of this task


@dataclass(frozen=True, slots=True)
class NewDelegation:
    """What is needed to hand on a part of a lease; id and time were chosen by the caller."""

    tenant: str
    id: str
    request_id: str  # same (delegator, request_id): the same delegation; other content: Conflict
    request_digest: str
    lease_id: str
    delegator: Party
    delegate: Party
    template_digest: str  # of the template in force, which ``compared`` is of
    resource: str
    parameters: Mapping[str, str]
    further: int
    compared: Narrowings
    created_at: datetime
    expires_at: datetime | None  # None: when the lease does
    limits: TaskLimits


class PipelineStore(Protocol):
    """Plans and delegations: in one database with, and by the same rules as, :class:`LeaseStore`.

    What an intent cites is checked in its transaction, and consumed by it. A plan: of the intent's task (NotFound
    PLAN_NOT_FOUND), confirmed and within its deadline (WrongState PLAN_NOT_CONFIRMED, PLAN_REJECTED, PLAN_LAPSED),
    with such a step (InvalidInput PLAN_STEP_UNKNOWN) that covers the request (Denied PLAN_EXCEEDED) and that nobody
    has used (WrongState PLAN_STEP_USED), by an executor (Denied AGENT_ROLE_REQUIRED) who neither planned nor validated
    it (Denied PLAN_SAME_PRINCIPAL). A delegation: given to the holder on this task (NotFound DELEGATION_NOT_FOUND),
    its lease alive and itself not over (WrongState DELEGATION_ENDED), covering the request (Denied
    DELEGATION_EXCEEDED), not used (WrongState DELEGATION_USED); what the lease got by a plan stays bound to that plan's
    separation of duties. Used is what a lease was opened for, unless that ended without its agent ever having had the
    credential.

    When the credential of a lease is ended, for whatever cause, the leases that are parts of it are ended in the same
    transaction (PARENT_ENDED), and theirs.
    """

    # -- plans
    async def register_plan(self, new: NewPlan) -> Plan:
        """Keep a plan. NotFound (TASK_NOT_FOUND) where the planner has no part, WrongState (TASK_ENDED), Exhausted."""
        ...

    async def decide_plan(
        self, tenant: str, plan_id: str, event: PlanEvent, digest: str, validator: Party, reason: str, now: datetime
    ) -> Plan:
        """CONFIRM or REJECT exactly what ``digest`` names. Exactly one decision stands; repeating it is harmless.

        Raises NotFound (PLAN_NOT_FOUND) for whoever has no part in its task, InvalidInput (PLAN_DIGEST_MISMATCH),
        Denied (PLAN_SAME_PRINCIPAL), WrongState (PLAN_DECIDED, PLAN_LAPSED, TASK_ENDED).
        """
        ...

    async def get_plan(self, tenant: str, plan_id: str) -> Plan:
        """Raises NotFound (PLAN_NOT_FOUND)."""
        ...

    async def task_plans(self, tenant: str, task_id: str) -> Sequence[Plan]:
        """The plans of a task, oldest first."""
        ...

    # -- delegations
    async def delegate(self, new: NewDelegation) -> Delegation:
        """Hand on a part of a live lease.

        Raises NotFound (LEASE_NOT_FOUND) for another's lease, WrongState (LEASE_ENDED, TASK_ENDED), Denied
        (DELEGATE_NOT_PARTICIPANT, DELEGATION_TOO_DEEP, DELEGATION_EXCEEDED, PLAN_SAME_PRINCIPAL), InvalidInput
        (DELEGATION_CIRCULAR), Exhausted (LIMIT_DELEGATIONS).
        """
        ...

    async def revoke_delegation(self, tenant: str, delegation_id: str, delegator: str, now: datetime) -> Delegation:
        """Take it back, and end what was issued by it; for whoever is in its chain. Repeating it is harmless."""
        ...

    async def redeemable(
        self, tenant: str, delegation_id: str, delegate: Party, now: datetime
    ) -> tuple[Delegation, Lease]:
        """A delegation that ``delegate`` could redeem now, and the live lease it is a part of."""
        ...

    async def task_delegations(self, tenant: str, task_id: str, agent: str) -> Sequence[Delegation]:
        """The delegations of a task that ``agent`` gave, or was given, oldest first."""
        ...


class ReviewStore(Protocol):
    """What becomes of living leases when rules change; in one database with, and by the rules of, LeaseStore."""

    async def living_grants(self, tenant: str, after: str, limit: int) -> Sequence[Granted]:
        """The leases that are being issued or ACTIVE, by holder; ``after`` is the last lease's id of the page before.

        Memory holds one page, and of the trail one portion. Raises InvalidInput (PAGE_TOKEN_INVALID).
        """
        ...

    async def record_review(
        self,
        tenant: str,
        lease_id: str,
        attempt_id: str,
        tightened: Tightened | None,
        end: bool,
        actor: str,
        now: datetime,
    ) -> bool:
        """Remember how a living lease stands; whether that is news. None: it stands.

        News is an audit event (lease.policy_tightened, lease.policy_loosened), once per lease, attempt and deploy set.
        With ``end`` its living attempts are REVOKING when this returns (POLICY_TIGHTENED), news or not. A lease that
        has ended, or another attempt of which is the latest by now, is left alone.
        """
        ...


# Before the request ids of break-glass in its holder's requests: no agent can write a request id with a slash.
BREAK_GLASS_REQUEST = "break-glass/"


@dataclass(frozen=True, slots=True)
class NewUse:
    """The emergency that an intent is for: who, why, under which terms of the template, and who is told.

    ``task``: the person's own, started in the intent's transaction; None where an agent's task is named.
    ``enabled`` is pure, and called in the writer's thread.
    """

    person: str  # issuer#subject
    person_name: str
    for_agent: str  # SPIFFE ID; empty: for the person
    groups: frozenset[str]  # of the person that the template pre-authorises
    reason: str
    incident: str
    how: str  # BY_LOGIN, BY_CODE
    proof: ProofRecord | None  # of the login; None with a code
    code_id: str
    review_due: datetime
    max_uses: int
    per: timedelta
    approvals: tuple[str, ...]  # passed over, by name
    told: tuple[tuple[str, str], ...]  # who would have approved: issuer#subject, name
    gates: tuple[str, ...]  # why grants are stopped for everybody else, where they are
    task: NewTask | None
    enabled: Callable[[str], bool]  # whether this person is still there


@dataclass(frozen=True, slots=True)
class NewFindings:
    """One review. Same (reviewer, request_id): written once."""

    tenant: str
    lease_id: str
    request_id: str
    reviewer: str  # issuer#subject
    reviewer_name: str
    findings: str
    proof: ProofRecord
    now: datetime


@dataclass(frozen=True, slots=True)
class NewOverride:
    """One person's word that ``person`` may pass over a suspension or a block, once, until ``expires_at``.

    Same (by, request_id): the same word; other content: Conflict.
    """

    tenant: str
    id: str
    request_id: str
    request_digest: str
    kind: OverrideKind
    subject: str  # the suspension, or the blocked group
    person: str  # whose next break-glass: issuer#subject
    by: str
    by_name: str
    reason: str
    proof: ProofRecord
    now: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class OverrideGiven:
    """What came of it: who has said so by now, and how many it takes."""

    id: str
    by: tuple[str, ...]
    needed: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Tended:
    """What time brought to uses of break-glass."""

    ended: tuple[str, ...] = ()  # leases whose end is told
    overdue: tuple[str, ...] = ()  # leases whose review has become overdue
    connectors: frozenset[str] = frozenset()  # of credentials that are being ended because their person is gone


@dataclass(frozen=True, slots=True)
class NewBatch:
    """Codes that one person asks for. Same (requested_by, request_id): the same batch; other content: Conflict."""

    tenant: str
    request_id: str
    batch: Batch
    proof: ProofRecord


class BreakGlassStore(Protocol):
    """Uses of break-glass, their reviews, overrides and sealed codes: in one database with :class:`LeaseStore`.

    An intent with a ``break_glass`` is opened by :meth:`LeaseStore.open_intent`, in whose transaction everything here
    is decided, too. It refuses Denied (SUSPENDED) unless others' words pass over that, Denied (BREAK_GLASS_BLOCKED)
    while a review of one of its groups is overdue, Exhausted (BREAK_GLASS_RATE), WrongState (BREAK_GLASS_CODE_SPENT),
    Denied (BREAK_GLASS_CODE_OF_ANOTHER); and what it rests on, words and code, is used up with it.
    """

    async def get_use(self, tenant: str, lease_id: str) -> tuple[BreakGlassUse, Lease]:
        """Raises NotFound (BREAK_GLASS_NOT_FOUND)."""
        ...

    async def uses(self, tenant: str, unsettled: bool, after: str, limit: int) -> Sequence[tuple[BreakGlassUse, Lease]]:
        """Newest first; ``unsettled``: only those alive, or not reviewed. Raises InvalidInput (PAGE_TOKEN_INVALID)."""
        ...

    async def blocked(self, tenant: str, groups: frozenset[str], now: datetime) -> Mapping[str, str]:
        """Of ``groups``, those that an overdue review blocks, each with the lease that is to be reviewed."""
        ...

    async def review_use(self, new: NewFindings) -> BreakGlassUse:
        """Record a review. One stands: WrongState (BREAK_GLASS_REVIEWED) for another, Denied (REVIEW_OF_ONES_OWN),
        WrongState (BREAK_GLASS_LIVE) while the credential is in use.
        """
        ...

    async def override(self, new: NewOverride) -> OverrideGiven:
        """Record a word. WrongState (BREAK_GLASS_NOTHING_TO_OVERRIDE) where nothing stands in the way, Denied
        (SECOND_PERSON_REQUIRED) for a word for oneself.
        """
        ...

    async def tend_uses(self, tenant: str, enabled: Callable[[str], bool], now: datetime) -> Tended:
        """What time brings: tell what has ended, what review is overdue; end what a person got who is gone.

        Writes only if there is something to do. Each is told once.
        """
        ...

    # -- sealed codes
    async def request_codes(self, new: NewBatch) -> Batch:
        """Remember that codes are wanted; nothing is made."""
        ...

    async def make_codes(
        self,
        tenant: str,
        batch_id: str,
        by: str,
        by_name: str,
        proof: ProofRecord,
        codes: Sequence[KeptCode],
        now: datetime,
    ) -> Batch:
        """Keep the codes of a batch, by a second person. Raises NotFound (BREAK_GLASS_CODE_NOT_FOUND), Denied
        (SECOND_PERSON_REQUIRED), WrongState (BREAK_GLASS_CODE_SPENT) for one that is made, or has waited too long.
        """
        ...

    async def get_batch(self, tenant: str, batch_id: str) -> Batch:
        """Raises NotFound (BREAK_GLASS_CODE_NOT_FOUND)."""
        ...

    async def get_code(self, tenant: str, code_id: str) -> KeptCode:
        """Raises NotFound (BREAK_GLASS_CODE_NOT_FOUND)."""
        ...

    async def codes(self, tenant: str) -> tuple[Sequence[Batch], Sequence[KeptCode]]:
        """The batches that wait for a second person, and all codes; oldest first."""
        ...

    async def code_failed(self, tenant: str, code_id: str, now: datetime) -> None:
        """A wrong secret was given for it; after too many it is revoked."""
        ...

    async def revoke_codes(self, tenant: str, named: str, by: str, now: datetime) -> int:
        """Revoke a code, or a batch with all its codes; how many codes. Repeating it is harmless."""
        ...


@dataclass(frozen=True, slots=True)
class TrailEnd:
    """Where the audit trail stands: what a checkpoint is made of."""

    count: int  # records; the sequence number of the last
    head: bytes  # hash of the last record
    log: bytes  # hash of the first record
    checkpoint_seq: int  # of the record that carries the last checkpoint; 0: there is none
    checkpoint_count: int  # how many records that one is about
    checkpoint_ms: int  # the time in it, or in what a witness had seen before a recovery
    checkpoint_digest: bytes  # of its text


@dataclass(frozen=True, slots=True)
class NewCheckpoint:
    """A signed checkpoint, to be written into the trail."""

    note: str
    count: int
    at_ms: int
    digest: bytes
    previous: bytes  # the digest of the one it follows


@dataclass(frozen=True, slots=True)
class OutgoingCheckpoint:
    """A checkpoint on its way to a witness; ``seq`` is the record that carries it."""

    seq: int
    count: int
    at_ms: int
    note: str


@dataclass(frozen=True, slots=True)
class WitnessLag:
    """What a witness has not been sent: how many records, and how old the first of them is."""

    records: int
    age: timedelta


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a witness has seen and the ledger does not have."""

    witness: str
    why: str
    note: str
    count: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Recovery:
    """The ledger was found behind a witness. ``trusted`` False: its row fails its MAC; it counts as open."""

    tenant: str
    id: str
    entered_at: datetime
    evidence: Evidence
    ledger_count: int  # how many records the ledger had then
    first: Lift | None  # the first of the two people who release it
    released: Lift | None
    trusted: bool = True

    @property
    def open(self) -> bool:
        """Whether grants are stopped by it."""
        return self.released is None or not self.trusted


class HighWater(NamedTuple):
    """The highest time that a ledger has seen; None for one that has seen nothing."""

    at: datetime | None
    intact: bool = True  # False: the row that says so was changed by something else, and was not believed


class TrailStore(Protocol):
    """Checkpoints, their outbox, and recovery: in one database with, and by the same rules as, :class:`LeaseStore`."""

    async def trail_end(self, tenant: str) -> TrailEnd | None:
        """None while the trail is empty."""
        ...

    async def add_checkpoint(self, tenant: str, new: NewCheckpoint, now: datetime) -> bool:
        """Write it as a record of the trail, and into the outbox.

        False, and nothing changes, if it does not follow the newest, or if so much has been written since it was
        signed that it would be out of reach.
        """
        ...

    async def checkpoints_since(self, after: int, limit: int) -> Sequence[OutgoingCheckpoint]:
        """Those carried by records above ``after``, in order."""
        ...

    async def witness_position(self, tenant: str, witness: str) -> int:
        """The record that carries the last checkpoint that ``witness`` has been sent; 0 for one that is new."""
        ...

    async def witnessed(self, tenant: str, witness: str, upto: int) -> None:
        """``witness`` durably has the checkpoints up to that of record ``upto``. Never goes back."""
        ...

    async def witness_lag(self, upto: int, now: datetime) -> WitnessLag:
        """What the checkpoint that record ``upto`` carries does not cover; nothing, if that is its own record alone."""
        ...

    async def recovery(self, tenant: str) -> Recovery | None:
        """The one that is open, or else the last one; None if there never was one."""
        ...

    async def enter_recovery(self, tenant: str, recovery_id: str, evidence: Evidence, now: datetime) -> Recovery:
        """Stop granting until two people release it. The one that is open stays as it is.

        Unless this evidence is of later than its own: then both people speak anew.
        """
        ...

    async def burn_open(self, tenant: str, now: datetime) -> int:
        """End every open task, and with it each request, plan, delegation and lease of it; how many tasks."""
        ...

    async def release_recovery(self, lifting: Lifting) -> Recovery:
        """One person's word that grants may begin again; the second one's releases it.

        Raises WrongState (NOT_IN_RECOVERY) and Denied (SECOND_PERSON_REQUIRED).
        """
        ...

    async def high_water(self) -> HighWater:
        """No time that :meth:`keep_time` was told is above it, and none in the trail by more than a second."""
        ...

    async def keep_time(self, now: datetime) -> None:
        """Durably: it has been ``now``. Never goes back."""
        ...


@dataclass(frozen=True, slots=True)
class LeaseSearch:
    """Which of everybody's leases; what is empty narrows nothing."""

    tenant: str
    holder: str = ""
    task_id: str = ""
    template: str = ""
    living_only: bool = False


@dataclass(frozen=True, slots=True)
class TaskSearch:
    """Which of everybody's tasks; what is empty narrows nothing."""

    tenant: str
    agent: str = ""  # its creator, or a participant
    open_only: bool = False


@dataclass(frozen=True, slots=True)
class Alive:
    """What one identity has: leases that may be alive, and open tasks that it started."""

    leases: int = 0
    tasks: int = 0

    def plus(self, other: Alive) -> Alive:
        """Both together."""
        return Alive(self.leases + other.leases, self.tasks + other.tasks)


class ViewStore(Protocol):
    """What people see of everybody's; in one database with, and by the rules of, :class:`LeaseStore`.

    Of lists, rows that fail their MAC are left out, so that one damaged row does not hide the others, and pages are
    full all the same. Newest first; ``after`` is the id of the last one of the page before, or empty. Raises
    InvalidInput (PAGE_TOKEN_INVALID) for one that is none.
    """

    async def lease(self, tenant: str, lease_id: str) -> Lease:
        """One lease, whoever holds it. Raises NotFound (LEASE_NOT_FOUND), Tampered."""
        ...

    async def search_leases(self, search: LeaseSearch, after: str, limit: int) -> Sequence[Lease]:
        """A page of leases."""
        ...

    async def search_tasks(self, search: TaskSearch, after: str, limit: int) -> Sequence[Task]:
        """A page of tasks."""
        ...

    async def alive(self, tenant: str) -> Mapping[str, Alive]:
        """By holder, or creator; whoever has nothing is left out. Rows are counted as they are, MAC or not."""
        ...


class AllocationState(StrEnum):
    """What an account of a pool is for, now."""

    READY = "READY"  # enabled upstream, and nobody has anything of it
    LENT = "LENT"  # to one attempt
    RESTING = "RESTING"  # nobody's: what was made with it must be long dead before it is enabled again


@dataclass(frozen=True, slots=True)
class Allocation:
    """One account of an upstream's pool."""

    account: str  # the upstream's own name of it
    tenant: str
    connector: str
    state: AllocationState
    attempt_id: str | None  # that has it, or had it last, if the broker knows
    since: datetime  # when it got into this state
    ends_at: datetime | None  # while lent: the native end of what is made with it, at the latest
    free_at: datetime | None  # while it rests: until when
    over: bool = False  # its attempt is not alive any more, as far as was looked
    trusted: bool = True  # its row passes its MAC; otherwise it is neither lent nor enabled


class Taken(NamedTuple):
    """The account that an attempt was lent."""

    account: str


class TakenUp(NamedTuple):
    """None is ready. ``free_at``: when the first may be enabled again, at the latest; None: nothing is known of any."""

    free_at: datetime | None


class AllocationStore(Protocol):
    """Who has which account of a pool; in one database with, and by the rules of, :class:`LeaseStore`.

    An account is lent to one attempt at a time, whoever asks: the account is the key. What is lent is durable before
    the upstream hears of it, and an attempt that is over is lent nothing any more. An account that there is no row of
    is nobody's and is not lent: nobody knows who had it.
    """

    async def take_account(
        self, tenant: str, connector: str, attempt_id: str, among: Sequence[str], ends_at: datetime, now: datetime
    ) -> Taken | TakenUp:
        """Lend the account of ``among`` that has been ready for longest.

        Raises WrongState (LEASE_ENDED) unless the attempt is ISSUING.
        """
        ...

    async def give_account_back(self, tenant: str, attempt_id: str, account: str, now: datetime) -> None:
        """It is ready again: proven that nothing was made with it. What is not lent to that attempt is left alone."""
        ...

    async def rest_account(
        self, tenant: str, connector: str, attempt_id: str | None, account: str, free_at: datetime, now: datetime
    ) -> None:
        """From now until ``free_at`` it is nobody's. Idempotent, and never for shorter than was said before.

        Raises WrongState (LEASE_ENDED) where it is lent to another attempt, Tampered.
        """
        ...

    async def account_ready(self, tenant: str, account: str, now: datetime) -> None:
        """It was enabled after it had rested. Raises WrongState (LEASE_ENDED) where it had not, Tampered."""
        ...

    async def forget_account(self, tenant: str, account: str, now: datetime) -> None:
        """Drop what is known of one that has rested, and is in no pool any more. Anything else is left alone."""
        ...

    async def account_allocation(self, account: str) -> Allocation | None:
        """What is known of it; None: nothing."""
        ...

    async def attempt_allocation(self, tenant: str, attempt_id: str) -> Allocation | None:
        """The account that it is, or was last, lent; None: none, or that is ready again."""
        ...

    async def allocations(self, tenant: str, connector: str, accounts: Sequence[str]) -> Sequence[Allocation]:
        """All that is known of ``accounts``, whichever connector had them, and of whatever else ``connector`` has."""
        ...


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


# Of each connector.
KEPT_MEASUREMENTS = 100


class CanaryStore(Protocol):
    """What canaries measured; in one database with, and by the rules of, LeaseStore."""

    async def record_measurement(self, measurement: Measurement) -> None:
        """Keep what a run came to, with its event: canary.measured, .unmeasured or .bound_broken.

        The same run again takes its own place: a credential that was ALIVE was refused in the end. Of each connector
        the newest ``KEPT_MEASUREMENTS`` are kept.
        """
        ...

    async def measurements(self, tenant: str, connector: str, limit: int) -> Sequence[Measurement]:
        """Of one connector, the newest first. A row that fails its MAC is none: nobody measured that."""
        ...


# Whoever has not been heard for so long is taken for dead: what it began is swept, and its jobs go to others.
REPLICA_DEAD_AFTER = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What one replica, a daemon of several on one ledger, tells of itself."""

    writer: str  # this run of it, as the trail names it
    tenant: str
    digest: str = ""  # of the deploy set that it has; empty: none yet
    jobs: frozenset[str] = frozenset()  # that it would do, if nobody else does them


class DeployInForce(NamedTuple):
    """The deploy set that came into force last, on whichever replica."""

    digest: str
    place: int  # in the order in which sets came into force
    since: datetime


class Pulse(NamedTuple):
    """What a replica hears when it tells that it lives."""

    others: int  # replicas that live beside it
    jobs: frozenset[str]  # its own, until it has not been heard for a while
    in_force: DeployInForce | None  # None: no set yet
    recovery: str  # the recovery that nobody has released yet, or empty
    timeline: str  # another one after the database failed over; empty where it does not tell


class ReplicaStore(Protocol):
    """What daemons on one ledger know of each other. Nothing is granted, and nothing left alive, on the word of it."""

    @property
    def shared(self) -> bool:
        """Whether there may be other daemons at all. False: none of the rest needs to be called."""
        ...

    async def beat(self, said: Heartbeat, now: datetime) -> Pulse:
        """Tell that a replica lives, and keep or take those of its jobs that no other living one has.

        Raises Tampered (ROW_MAC_MISMATCH) if the deploy set in force is not ours.
        """
        ...

    async def put_in_force(self, said: Heartbeat, now: datetime, *, deliberate: bool) -> DeployInForce:
        """Make a replica's deploy set the one in force; the one that is then.

        One that was in force before and was replaced since is taken for an old copy and stays out, unless somebody
        wants it back (``deliberate``), or no other replica lives. Raises Tampered (ROW_MAC_MISMATCH).
        """
        ...

    async def leave(self, writer: str, now: datetime) -> None:
        """A replica ends: others need not wait until they do not hear of it any more."""
        ...


class Ledger(
    LeaseStore,
    PipelineStore,
    ReviewStore,
    BreakGlassStore,
    TrailStore,
    ViewStore,
    OrphanStore,
    CanaryStore,
    AllocationStore,
    ReplicaStore,
    Protocol,
):
    """All in one: what the whole of issuing works on."""


class Witness(Protocol):
    """Somewhere else, where checkpoints are kept and cannot be taken back."""

    async def add(self, checkpoint: OutgoingCheckpoint) -> None:
        """Durably keep it; one that it has already is fine. Raises OSError, with a reason fit for a log."""
        ...

    async def newest(self, after_ms: int) -> str | None:
        """The newest note it has, if that is of later than ``after_ms``; None also where it cannot be asked.

        Raises OSError where the answer is not known.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class AuditSink(Protocol):
    """Takes what the ledger's transaction already holds, away from this machine's database."""

    async def write(self, records: Sequence[bytes]) -> None:
        """Durably append records, in order. Raises OSError; the pump retries for ever."""
        ...


class KeyRing(Protocol):
    """Keys, by reference: ``file:PATH`` or ``env:NAME``, never beside the database."""

    def current(self) -> tuple[str, bytes]:
        """(key id, key) to make new MACs with."""
        ...

    def find(self, key_id: str) -> bytes:
        """The key of this id, also an overlapping older one. Raises Tampered for an unknown id."""
        ...


class IssuerKeys(Protocol):
    """The keys with which the configured OpenID providers sign. Answers at once, from memory."""

    def current(self, issuer: str, key_id: str = "") -> KeySet:
        """The keys of ``issuer`` in force.

        Raises :class:`NotReady` (ISSUER_KEYS_UNAVAILABLE) where there are none, where they could not be renewed for
        too long, and, once in a while, where ``key_id`` is not among them and may be new: asking again tells.
        """
        ...
