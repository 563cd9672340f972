"""How a stored attempt moves, and its lease after it: the one place that turns the machine into rows.

Every move goes through :func:`broker.lease.machine.next_state`, gets its due time from
:func:`broker.lease.deadlines.due_at`, is recorded in the audit trail, and leaves the lease row equal to
what its attempts say.

Quarantine. An attempt whose row fails its MAC may still be alive upstream, so it is revoked by the
handle that the row holds, like any other; but since that handle may be the forger's, an upstream's
"gone" proves nothing. Such a row stays REVOKING, marked stuck, retried for ever at the slowest pace
and with its MAC left wrong, until an operator has looked at it.
"""

from __future__ import annotations

from broker.audit.event import BROKER, AuditEvent, EventType, Vouch
from broker.lease.backoff import CAP
from broker.lease.deadlines import due_at
from broker.lease.machine import STATES, Event, State, lease_state, next_state
from broker.ports.break_glass import BREAK_GLASS_REQUEST
from broker.ports.leases import EndCause
from broker.scope.canonical import JsonValue
from broker.stores.rows import AttemptRow, LeaseRow, read_attempt
from broker.stores.times import span_ms
from broker.stores.transaction import Transaction
from broker.stores.view import View

QUARANTINED = "its row fails its MAC: revoked by the stored handle, and kept for an operator"

# Each move of a lease asks for these a dozen times, and an enum's class answers slowly (Python 3.11).
_ISSUING, _ACTIVE, _REVOKING, _REVOKED = State.ISSUING, State.ACTIVE, State.REVOKING, State.REVOKED
_END = Event.END
_BROKER, _UPSTREAM = Vouch.BROKER, Vouch.UPSTREAM
# What is stored of a state: asking the member for its value takes ten times as long.
_STORED = {state: state.value for state in State}
_EVENTS = {
    State.ISSUING: EventType.LEASE_INTENT,
    State.ACTIVE: EventType.LEASE_ISSUED,
    State.REVOKING: EventType.LEASE_REVOKING,
    State.REVOKED: EventType.LEASE_REVOKED,
    State.EXPIRED: EventType.LEASE_EXPIRED,
    State.VOID: EventType.LEASE_VOID,
}


def due_ms(attempt: AttemptRow, confirm_by: int | None, retry_at: int | None) -> int | None:
    """The due time of an attempt in its present state."""
    return due_at(
        STATES[attempt.state],
        issue_deadline=attempt.issue_deadline,
        confirm_by=confirm_by,
        expires_at=attempt.expires_at,
        retry_at=retry_at,
    )


def move(
    tx: Transaction,
    attempt: AttemptRow,
    lease: LeaseRow | None,
    event: Event,
    cause: EndCause | None,
    now_ms: int,
    *,
    actor: str = BROKER,
    data: dict[str, JsonValue] | None = None,
    due: int | None = None,
) -> bool:
    """Apply ``event`` and store attempt and lease; False if somebody else moved the attempt meanwhile.

    ``due``: when a REVOKING attempt is looked at next; at once if not given. The first cause stands.
    """
    if not attempt.trusted:
        quarantine(tx, attempt, lease, now_ms if due is None else due, now_ms)
        return True
    state = next_state(STATES[attempt.state], event)
    attempt.state = _STORED[state]
    if cause is not None and attempt.cause is None and state is not _ACTIVE:
        attempt.cause = str(cause)
    attempt.owed_since = (attempt.owed_since or now_ms) if state is _REVOKING else None
    attempt.due_at = due_ms(attempt, lease.confirm_by if lease else None, now_ms if due is None else due)
    if not tx.update_attempt(attempt):
        return False
    if lease is not None:
        settle(tx, lease, attempt, now_ms)
        if event is _END:
            tx.ended[lease.tenant, lease.id] = now_ms
    about: dict[str, JsonValue] = {"attempt": attempt.number, "cause": attempt.cause}
    if data:
        about.update(data)
    # That it is dead is not the broker's word: the upstream said so, when it was asked.
    vouch = _UPSTREAM if state is _REVOKED else _BROKER
    tell(tx, _EVENTS[state], attempt, lease, actor, now_ms, about, vouch)
    return True


def settle(tx: Transaction, lease: LeaseRow, changed: AttemptRow, now_ms: int) -> None:
    """Store the lease as its attempts say it is; ``changed`` is stored already."""
    if lease.attempts == 1:
        latest = changed
        lease.state = changed.state
        lease.next_due = changed.due_at
        lease.failures = changed.failures if changed.due_at is not None else 0
    else:
        attempts = attempts_of(tx, lease)
        latest = attempts[-1]
        lease.state = _STORED[lease_state(STATES[attempt.state] for attempt in attempts)]
        living = [attempt for attempt in attempts if attempt.due_at is not None]
        lease.next_due = min([attempt.due_at for attempt in living if attempt.due_at is not None], default=None)
        lease.failures = max([attempt.failures for attempt in living], default=0)
    lease.cause = None if lease.state == _ISSUING or lease.state == _ACTIVE else latest.cause
    if lease.state != _ACTIVE:
        lease.confirm_by = None
    lease.attempt_id, lease.attempts = latest.id, max(lease.attempts, latest.number)
    lease.ended_at = None if lease.next_due is not None else (lease.ended_at or now_ms)
    tx.update_lease(lease)


def attempts_of(view: View, lease: LeaseRow) -> list[AttemptRow]:
    """All attempts of a lease, oldest first."""
    rows = view.all("attempts_of_lease", {"tenant": lease.tenant, "lease_id": lease.id})
    return [read_attempt(row, view.seal) for row in rows]


def tell(
    tx: Transaction,
    event: EventType,
    attempt: AttemptRow,
    lease: LeaseRow | None,
    actor: str,
    now_ms: int,
    data: dict[str, JsonValue],
    vouched_by: Vouch = Vouch.BROKER,
) -> None:
    """Record an event of one attempt."""
    if not attempt.trusted or (lease is not None and not lease.trusted):
        data = {**data, "untrusted_row": True}
    if lease is not None and by_break_glass(lease.request_id):
        data = {**data, "break_glass": True}
    task, holder = (lease.task_id, lease.holder) if lease is not None else ("", "")
    # By place: every move of a lease comes here.
    about = AuditEvent(event, actor, vouched_by, attempt.tenant, task, attempt.lease_id, attempt.id, holder, data)
    tx.audit(about, now_ms)


def by_break_glass(request_id: str) -> bool:
    """Whether a lease with this request id was got by break-glass: what every event of it says."""
    return request_id.startswith(BREAK_GLASS_REQUEST)


def quarantine(tx: Transaction, attempt: AttemptRow, lease: LeaseRow | None, due: int, now_ms: int) -> None:
    """Keep an untrusted attempt in the revoker's queue: REVOKING, stuck, due at ``due``."""
    alarmed = attempt.stuck
    attempt.owed_since = attempt.owed_since or now_ms
    attempt.due_at, attempt.stuck, attempt.last_error = due, 1, QUARANTINED
    attempt.epoch += 1
    tx.quarantine_attempt(
        attempt.tenant,
        attempt.id,
        {
            "cause": attempt.cause,
            "due_at": attempt.due_at,
            "owed_since": attempt.owed_since,
            "epoch": attempt.epoch,
            "failures": attempt.failures,
            "last_error": attempt.last_error,
        },
    )
    # Which lease an untrusted row belongs to is known only where the trusted lease names it.
    if lease is not None and lease.trusted and lease.attempt_id == attempt.id:
        settle(tx, lease, attempt, now_ms)
        tx.ended[lease.tenant, lease.id] = now_ms
    if not alarmed:
        tell(tx, EventType.LEASE_STUCK, attempt, lease, BROKER, now_ms, {"why": QUARANTINED})


def quarantine_pause(now_ms: int) -> int:
    """When a quarantined attempt is tried again after its stored handle was revoked."""
    return now_ms + span_ms(CAP)
