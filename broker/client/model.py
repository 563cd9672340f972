"""What the broker tells about tasks, leases, templates and the caller, as values.

Each class mirrors one message of ``protos/broker/api/v1`` field by field (a test compares them), freed
from protobuf: times are aware ``datetime``, spans ``timedelta``, absent ones None, enums their names
without prefix. A state this client does not know yet is therefore still a text. Nothing here is secret
but :attr:`Grant.credential`, whose sensitive fields are :class:`broker.secret.Secret`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from broker.approval.machine import OPEN
from broker.client.delivery import conninfo, environment
from broker.lease.credential import (
    AwsAccessKey,
    AwsSession,
    ContractClass,
    Credential,
    DatabaseLogin,
    GcpToken,
    KubernetesToken,
    SshCertificate,
    StaticSecret,
    WrappedSecret,
    X509Certificate,
)
from broker.lease.machine import TERMINAL

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the broker thinks we are (``WhoAmIResponse``)."""

    spiffe_id: str
    owner: str
    tier: str
    roles: tuple[str, ...]
    environments: tuple[str, ...]
    svid_expire_time: datetime | None
    tenant: str
    deploy_digest: str
    delivery: str  # "direct", or "proxy"
    proxy: str  # the SPIFFE ID of the proxy; empty without one
    principal: str  # the registry entry
    segments: tuple[str, ...]  # name=value, as the entry's pattern names them
    promoted: bool  # whether operators have promoted the entry into production
    tools: tuple[str, ...] = ()  # whose calls it may ask for; none: it has no such list


@dataclass(frozen=True, slots=True)
class NetworkBinding:
    """Places that a credential works from: one of them is enough."""

    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RevocationContract:
    """How, and how fast, what a connector issues can be ended."""

    contract_class: str
    binding: str
    ttl_floor: timedelta | None
    ttl_ceiling: timedelta | None
    bound_on_expiry: timedelta | None
    bound_on_revoke: timedelta | None  # None: a revocation does not end it before it expires
    if_broker_dead: str
    if_upstream_dead: str
    # How long after its deadline it may still work then; None: nothing bounds it.
    bound_on_broker_dead: timedelta | None = None
    bound_on_upstream_dead: timedelta | None = None
    # What a canary measured last, and when: at most so long it worked. None: not measured.
    measured_on_revoke: timedelta | None = None
    measured_on_revoke_time: datetime | None = None
    measured_on_expiry: timedelta | None = None  # less than zero: it died before its deadline
    measured_on_expiry_time: datetime | None = None
    measured_broken: bool = False  # the newest canary worked after its bound: the contract is not kept
    networks: tuple[NetworkBinding, ...] = ()  # a request must come from each of these at once


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """One typed parameter of a template."""

    name: str
    type: str
    expectation: str
    from_identity: str  # the segment of our SPIFFE ID that gives its value; empty where a request does


@dataclass(frozen=True, slots=True)
class ScopeTemplate:
    """One way to ask."""

    name: str
    description: str
    connector: str
    accounts: tuple[str, ...]
    environments: tuple[str, ...]
    resource: ParameterSpec | None
    access: str
    actions: tuple[str, ...]
    max_ttl: timedelta | None
    required_fields: tuple[str, ...]
    parameters: tuple[ParameterSpec, ...]
    contract: RevocationContract | None
    digest: str
    sensitivity: str
    blast_radius: str
    reversibility: str
    change_type: str
    promoted: bool
    wrapping: bool
    gives: str


@dataclass(frozen=True, slots=True)
class Human:
    """A person, as their identity provider names them."""

    issuer: str
    subject: str
    display_name: str


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """A task as the broker knows it (``Task``)."""

    id: str
    creator: str
    participants: tuple[str, ...]
    purpose: str
    ticket: str
    sponsor: str
    create_time: datetime | None
    deadline: datetime | None
    state: str
    end_cause: str
    end_time: datetime | None
    hold_grace: timedelta | None
    task_type: str  # what kind of work it is, as its creator said
    on_behalf_of: Human | None = None  # the human it acts for, as that person's own token proved

    @property
    def is_open(self) -> bool:
        """Whether credentials can be requested under it."""
        return self.state == "OPEN"


@dataclass(frozen=True, slots=True)
class PolicyTightened:
    """What the rules in force make of a lease that was granted by others."""

    outcome: str  # "DENY", "NEEDS_APPROVAL" or "UNKNOWN"
    policies: tuple[str, ...]  # that decide now
    why: str
    policy_digest: str
    review_time: datetime | None


@dataclass(frozen=True, slots=True)
class BreakGlass:
    """The badge of a lease that was got in an emergency, without approval."""

    person: str  # issuer#subject
    person_name: str
    reason: str
    incident: str
    authenticated_by: str  # "login", or "code"
    review_due_time: datetime | None
    review_state: str  # AHEAD, DUE, OVERDUE, REVIEWED, NOT_NEEDED


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as the broker knows it. It never carries a secret."""

    id: str
    task_id: str
    holder: str
    request_id: str
    template: str
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
    state: str
    end_cause: str
    create_time: datetime | None
    expire_time: datetime | None
    confirm_by: datetime | None
    end_time: datetime | None
    attempt_id: str
    attempt_count: int
    revoke_failures: int
    next_due_time: datetime | None
    plan_id: str = ""  # the plan that it, or the lease it is a part of, was granted by
    parent_lease_id: str = ""  # the lease that it is a part of, and ends with
    delegation_id: str = ""  # by which it is
    access_request_id: str = ""  # the one that people approved it by; empty where nobody had to
    policy_tightened: PolicyTightened | None = None  # why it would not be granted any more; None: it would
    break_glass: BreakGlass | None = None  # the emergency it was got in; None: none
    contract: RevocationContract | None = None  # what is promised about ending it; told of one lease, not in lists
    binding: str = ""  # what it is bound to, by that; told in lists, too

    @property
    def may_be_alive(self) -> bool:
        """Whether its credential may still open something: everything not proven dead."""
        return self.state not in TERMINAL

    @property
    def only_time_ends_it(self) -> bool:
        """Whether asking the upstream to end it early would be in vain."""
        return self.contract_class == ContractClass.EXPIRY_ONLY


@dataclass(frozen=True, slots=True)
class RegisteredAgent:
    """An entry of the registry in force, or one workload of it, and what is alive of it. Told to operators only."""

    entry: str
    spiffe_id: str  # empty for an entry with a pattern
    pattern: str
    description: str
    owner: str  # issuer#subject
    owner_name: str
    owner_enabled: bool
    tier: str
    roles: tuple[str, ...]
    environments: tuple[str, ...]
    promoted: bool
    tools: tuple[str, ...]
    segments: tuple[str, ...]  # name=value, of one workload
    denied: bool
    live_leases: int
    open_tasks: int
    max_live_leases: int  # of one workload
    max_open_tasks: int


@dataclass(frozen=True, slots=True)
class Connector:
    """One connector of the deploy set in force. Told to people only."""

    name: str
    kind: str
    contract: RevocationContract | None  # None: it does not run
    templates: tuple[str, ...]  # that issue through it, by name
    running: bool
    digest: str
    circuit_open: str = ""  # why nothing is issued by it for now


@dataclass(frozen=True, slots=True)
class CanaryMeasurement:
    """What one run of a canary came to. Told to people only."""

    id: str
    connector: str
    kind: str  # ON_REVOKE, ON_EXPIRY
    outcome: str  # WITHIN, ALIVE, LATE, UNMEASURED
    measured: timedelta | None  # from its end until it was refused, at most
    at_least: timedelta | None  # it worked for so long, for certain
    bound: timedelta | None
    begin_time: datetime | None
    since_time: datetime | None
    confirm_time: datetime | None
    tell_time: datetime | None
    lease_id: str
    looks: int
    asked_by: str
    why: str


@dataclass(frozen=True, slots=True)
class Canary:
    """The canary of one connector, and what it measured last."""

    connector: str
    contract: RevocationContract | None
    template: str
    ttl: timedelta | None
    every: timedelta | None
    running: tuple[str, ...]
    measured: tuple[CanaryMeasurement, ...]
    newest: tuple[CanaryMeasurement, ...]


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something about a connector that is not as it must be."""

    severity: str  # ERROR or WARNING
    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Examination:
    """What an examination of one connector found. Without doubts, all is well."""

    connector: Connector | None
    doubts: tuple[Doubt, ...]
    examine_time: datetime | None


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What came of comparing one connector's inventory with the ledger. Told to people only."""

    connector: str
    listed: int | None  # None: the upstream cannot tell
    found: int
    young: int
    foreign: int
    missing: int
    problem: str
    braked: int


@dataclass(frozen=True, slots=True)
class UnknownCredential:
    """Something upstream that is the broker's, and that its ledger does not hold alive. Told to people only."""

    id: str
    connector: str
    name: str
    attempt_id: str
    why: str  # UNKNOWN, ENDED
    create_time: datetime
    find_time: datetime
    due_time: datetime | None
    end_time: datetime | None
    outcome: str  # REVOKED, EXPIRED; empty: not yet
    failures: int
    last_error: str
    stuck: bool


@dataclass(frozen=True, slots=True)
class PlannedAction:
    """What one step of a plan is to get at most. The last three are the broker's."""

    step: str
    template: str
    account: str
    environment: str
    resource: str
    ttl: timedelta | None
    parameters: Mapping[str, str] = field(default_factory=dict)
    template_digest: str = ""
    access: str = ""
    permitted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan as the broker knows it. ``digest`` names its text and its actions; neither ever changes."""

    id: str
    task_id: str
    planner: str
    planner_principal: str
    text: str
    actions: tuple[PlannedAction, ...]
    digest: str
    state: str
    create_time: datetime | None
    deadline: datetime | None
    validator: str
    validator_principal: str
    reason: str
    decide_time: datetime | None


@dataclass(frozen=True, slots=True)
class Delegation:
    """A part of a lease that was handed on. ``chain``: who held it before, the first holder at the front."""

    id: str
    task_id: str
    lease_id: str
    chain: tuple[str, ...]
    delegate: str
    resource: str
    parameters: Mapping[str, str]
    further: int
    create_time: datetime | None
    expire_time: datetime | None
    revoke_time: datetime | None


@dataclass(frozen=True, slots=True)
class LeaseEvent:
    """One change of a lease. ``type`` is empty, and ``lease`` None, in a heartbeat."""

    sequence: int
    previous_sequence: int
    event_time: datetime | None
    type: str
    lease: Lease | None


@dataclass(frozen=True, slots=True)
class Completion:
    """What became of a task and its leases when it was completed (``CompleteTaskResponse``)."""

    task: TaskFacts
    leases: tuple[Lease, ...]

    @property
    def may_be_alive(self) -> tuple[Lease, ...]:
        """The leases whose end is not proven yet; the broker goes on by itself."""
        return tuple(lease for lease in self.leases if lease.may_be_alive)


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, and why. (A refusal is an exception, with the same in its metadata.)"""

    policies: tuple[str, ...]
    explanations: tuple[str, ...]
    policy_digest: str
    effect: str  # "ALLOW" or "NEEDS_APPROVAL"
    approvals: tuple[str, ...]  # that are missing, by name
    contract: RevocationContract | None = None  # how, and how fast, what was decided on can be ended


@dataclass(frozen=True, slots=True)
class ApprovalStatus:
    """One approval that a request needs; ``missing`` says whose yes it lacks, and is empty where it is given."""

    name: str
    description: str
    missing: str


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """A request that waits, or waited, for people. (What is asked for is ``broker.scope.request.AccessRequest``.)"""

    id: str
    task_id: str
    holder: str
    request_id: str
    template: str
    connector: str
    account: str
    environment: str
    resource: str
    access: str
    actions: tuple[str, ...]
    parameters: Mapping[str, str]
    ttl: timedelta | None
    step: str
    contract_class: str
    state: str
    approvals: tuple[ApprovalStatus, ...]
    policies: tuple[str, ...]
    policy_digest: str
    digest: str
    create_time: datetime | None
    expire_time: datetime | None
    approve_time: datetime | None
    redeem_by: datetime | None
    end_time: datetime | None
    note: str
    lease_id: str
    sealed: bool

    @property
    def is_open(self) -> bool:
        """Whether people may still decide on it, or it may still be redeemed."""
        return self.state in OPEN

    @property
    def missing(self) -> tuple[str, ...]:
        """Whose yes it lacks, one text for each approval."""
        return tuple(each.missing for each in self.approvals if each.missing)


@dataclass(frozen=True, slots=True)
class AccessRequestEvent:
    """One change of an access request. ``type`` is empty, and ``access_request`` None, in a heartbeat."""

    sequence: int
    previous_sequence: int
    event_time: datetime | None
    type: str
    access_request: AccessRequest | None


@dataclass(frozen=True, slots=True)
class Grant:
    """A credential with the lease that bounds it and the decision that allowed it."""

    lease: Lease
    credential: Credential
    decision: Decision

    @property
    def database(self) -> DatabaseLogin:
        """The credential as a database login. Raises TypeError if it is of another kind."""
        return _of_kind(self.credential, DatabaseLogin)

    @property
    def aws(self) -> AwsSession:
        """The credential as an AWS session. Raises TypeError if it is of another kind."""
        return _of_kind(self.credential, AwsSession)

    @property
    def aws_access_key(self) -> AwsAccessKey:
        """The credential as an access key of AWS. Raises TypeError if it is of another kind."""
        return _of_kind(self.credential, AwsAccessKey)

    @property
    def x509(self) -> X509Certificate:
        """The credential as an X.509 certificate. Raises TypeError if it is of another kind."""
        return _of_kind(self.credential, X509Certificate)

    @property
    def ssh(self) -> SshCertificate:
        """The credential as an OpenSSH certificate. Raises TypeError if it is of another kind."""
        return _of_kind(self.credential, SshCertificate)

    @property
    def static(self) -> StaticSecret:
        """The credential as a secret that only rotation ends. Raises TypeError if it is of another kind."""
        return _of_kind(self.credential, StaticSecret)

    @property
    def gcp(self) -> GcpToken:
        """The credential as a Google Cloud token. Raises TypeError if it is of another kind."""
        return _of_kind(self.credential, GcpToken)

    @property
    def kubernetes(self) -> KubernetesToken:
        """The credential as a token of Kubernetes. Raises TypeError if it is of another kind."""
        return _of_kind(self.credential, KubernetesToken)

    @property
    def wrapped(self) -> WrappedSecret:
        """The credential as one that is kept for one reader. Raises TypeError if it is of another kind."""
        return _of_kind(self.credential, WrappedSecret)

    def conninfo(self) -> str:
        """The libpq connection string of a database login. It *contains the password*."""
        return conninfo(self.database)

    def environment(self) -> dict[str, str]:
        """The variables that PostgreSQL's, AWS's or Google Cloud's own tools read. They *contain the secret*."""
        return environment(self.credential)


def _of_kind(credential: object, kind: type[T]) -> T:
    if not isinstance(credential, kind):
        raise TypeError(f"this grant is a {type(credential).__name__}, not a {kind.__name__}")
    return credential
