"""One thing that happened, and who vouches for it (R7)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from broker.scope.canonical import JsonValue


class Vouch(StrEnum):
    """Who says so."""

    BROKER = "broker"  # the broker did it or saw it itself
    AGENT = "agent"  # claimed by the agent
    UPSTREAM = "upstream"  # observed upstream


# The actor of what the broker does by itself.
BROKER = "broker"


class EventType(StrEnum):
    """Every kind of audit event. Lease events carry the name of the transition they record."""

    TASK_STARTED = "task.started"
    TASK_COMPLETED = "task.completed"
    TASK_REPORTED = "task.reported"  # what the agent says that it made and changed
    TASK_ENDED = "task.ended"  # by its deadline, or because its holder let go
    LEASE_INTENT = "lease.intent"
    LEASE_ISSUED = "lease.issued"
    LEASE_VOID = "lease.void"
    LEASE_REVOKING = "lease.revoking"
    LEASE_REVOKED = "lease.revoked"
    LEASE_EXPIRED = "lease.expired"
    LEASE_STUCK = "lease.stuck"
    LEASE_FORGET_BEGUN = "lease.forget_begun"  # by the first of two people
    LEASE_FORGOTTEN = "lease.forgotten"  # two people stand for its end, which nobody could prove
    POLICY_TIGHTENED = "lease.policy_tightened"  # it would not be granted any more by the deploy set in force
    POLICY_LOOSENED = "lease.policy_loosened"  # it would be, again
    PLAN_REGISTERED = "plan.registered"
    PLAN_CONFIRMED = "plan.confirmed"
    PLAN_REJECTED = "plan.rejected"
    PLAN_STEP_USED = "plan.step_used"
    DELEGATION_GIVEN = "delegation.given"
    DELEGATION_USED = "delegation.used"
    DELEGATION_REVOKED = "delegation.revoked"
    DELIVERY_CONFIRMED = "delivery.confirmed"
    ACCESS_REQUESTED = "access.requested"
    ACCESS_VOTED = "access.voted"  # one person's yes or no
    ACCESS_APPROVED = "access.approved"  # the last yes that was missing
    ACCESS_DENIED = "access.denied"
    ACCESS_WITHDRAWN = "access.withdrawn"
    ACCESS_LAPSED = "access.lapsed"
    ACCESS_REDEEMED = "access.redeemed"
    REQUEST_REFUSED = "request.refused"
    AGENT_DENIED = "agent.denied"  # somebody came whom operators have denied
    REFUSALS_SUMMARISED = "request.refusals_summarised"
    SUSPENDED = "suspension.suspended"
    RESUME_BEGUN = "suspension.resume_begun"  # by the first of two people
    RESUMED = "suspension.resumed"
    SUSPENSION_EXPIRED = "suspension.expired"
    SUSPENSION_TAMPERED = "suspension.tampered"  # its row fails its MAC: it counts as in force, for everybody
    BREAK_GLASS_USED = "break_glass.used"
    BREAK_GLASS_CODE_USED = "break_glass.code_used"  # by a sealed code, without the identity provider
    BREAK_GLASS_ENDED = "break_glass.ended"  # its credential is dead
    BREAK_GLASS_REVIEW_DUE = "break_glass.review_due"  # somebody else has to look at it by then
    BREAK_GLASS_REVIEWED = "break_glass.reviewed"
    BREAK_GLASS_REVIEW_OVERDUE = "break_glass.review_overdue"  # its groups are blocked
    BREAK_GLASS_BLOCKED = "break_glass.blocked"  # somebody was refused for that
    BREAK_GLASS_OVERRIDE = "break_glass.override"  # one person's word that another may pass over a hindrance
    BREAK_GLASS_CODES_REQUESTED = "break_glass.codes_requested"
    BREAK_GLASS_CODES_MADE = "break_glass.codes_made"
    BREAK_GLASS_CODE_FAILED = "break_glass.code_failed"  # a wrong secret for a code that exists
    BREAK_GLASS_CODES_REVOKED = "break_glass.codes_revoked"
    ESCALATION_DETECTED = "escalation.detected"  # a rule of escalation.yaml fired
    ADMIN_READ = "admin.read"  # a person, or operators' automation, was shown something at the people's door
    ADMIN_READS_SUMMARISED = "admin.reads_summarised"  # the same again within a minute, counted
    TEXTS_READ = "texts.read"  # what agents said in whole on a task, by a person
    TEXTS_ERASED = "texts.erased"  # the prompts, tool calls and plans of a task; their digests stay
    ACCESS_REVIEW_SIGNED_OFF = "access_review.signed_off"  # a person stands for a report of what agents could get
    CANARY_MEASURED = "canary.measured"  # the broker used its own credential after its end, until it was refused
    CANARY_UNMEASURED = "canary.unmeasured"  # a run of which nothing can be said, and why
    CANARY_BOUND_BROKEN = "canary.bound_broken"  # it still worked after the contract's bound
    RETENTION_DELETED = "retention.deleted"  # rows of what has long been over; the trail stays
    UPSTREAM_UNKNOWN_FOUND = "upstream.unknown_found"  # it carries our mark and no ledger holds it: it is being ended
    UPSTREAM_UNKNOWN_ENDED = "upstream.unknown_ended"  # the upstream has confirmed that
    UPSTREAM_UNKNOWN_STUCK = "upstream.unknown_stuck"  # ending it has failed several times in a row
    UPSTREAM_MISSING = "upstream.missing"  # the ledger holds it alive, and the upstream does not list it
    UPSTREAM_SWEEP_BRAKED = (
        "upstream.sweep_braked"  # so much of it is unknown that nothing is ended before a person says so
    )
    UPSTREAM_SWEEP_ALLOWED = "upstream.sweep_allowed"  # a person has named how many may be ended
    UPSTREAM_RECONCILED = "upstream.reconciled"  # somebody had the inventories compared with the ledger
    CONNECTOR_ROOT_REFUSED = "connector.root_refused"  # the upstream refuses the broker itself: it stops issuing
    CONNECTOR_ROOT_RESTORED = "connector.root_restored"  # it takes it again
    DEPLOY_ACTIVATED = "deploy.activated"
    DEPLOY_REFUSED = "deploy.refused"
    AUDIT_CHECKPOINT = "audit.checkpoint"  # signed: what the broker vouches for so far
    RECOVERY_ENTERED = "recovery.entered"  # a witness has seen more than the ledger has
    RECOVERY_BEGUN = "recovery.release_begun"  # by the first of two people
    RECOVERY_RELEASED = "recovery.released"
    CLOCK_DOUBTED = "clock.doubted"  # the machine's clock jumped, or is behind: nothing is granted meanwhile
    CLOCK_BELIEVED = "clock.believed"  # again
    LEDGER_FULL = "ledger.full"  # there was no room for a commit: nothing is granted, and revocation has a reserve
    LEDGER_ROOM = "ledger.room"  # there is room again
    DAEMON_STARTED = "daemon.started"
    DAEMON_STOPPED = "daemon.stopped"


class AuditEvent(NamedTuple):
    """What the caller of a store operation says happened; the store adds sequence, time and chain.

    A tuple, because making a frozen dataclass takes five times as long, and every move of a lease makes one.
    """

    type: EventType
    actor: str  # SPIFFE ID of the agent, a person's issuer#subject, or BROKER
    vouched_by: Vouch
    tenant: str = ""
    task_id: str = ""
    lease_id: str = ""
    attempt_id: str = ""
    holder: str = ""  # whose lease it is; WatchLeases filters by it
    data: Mapping[str, JsonValue] = MappingProxyType({})
