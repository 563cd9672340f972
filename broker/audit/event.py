"""One thing that happened, and who vouches for it (R7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from broker.scope.canonical import JsonValue


class Vouch(StrEnum):
    """Who says so."""

    BROKER = "broker"  # the broker did it or saw it itself
    AGENT = "agent"  # claimed by the agent
    UPSTREAM = "upstream"  # observed upstream


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
    ESCALATION_DETECTED = "escalation.detected"  # a rule of escalation.yaml fired
    TEXTS_READ = "texts.read"  # what agents said in whole on a task, by a person
    TEXTS_ERASED = "texts.erased"  # the prompts, tool calls and plans of a task; their digests stay
    DEPLOY_ACTIVATED = "deploy.activated"
    DEPLOY_REFUSED = "deploy.refused"
    AUDIT_CHECKPOINT = "audit.checkpoint"  # signed: what the broker vouches for so far
    RECOVERY_ENTERED = "recovery.entered"  # a witness has seen more than the ledger has
    RECOVERY_BEGUN = "recovery.release_begun"  # by the first of two people
    RECOVERY_RELEASED = "recovery.released"
    DAEMON_STARTED = "daemon.started"
    DAEMON_STOPPED = "daemon.stopped"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """What the caller of a store operation says happened; the store adds sequence, time and chain."""

    type: EventType
    actor: str  # SPIFFE ID of the agent, a person's issuer#subject, or "broker"
    vouched_by: Vouch
    tenant: str = ""
    task_id: str = ""
    lease_id: str = ""
    attempt_id: str = ""
    holder: str = ""  # whose lease it is; WatchLeases filters by it
    data: Mapping[str, JsonValue] = field(default_factory=dict)
