"""Operations on the way from a request to a usable credential, each inside one write transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from broker.audit.event import EventType, Vouch
from broker.errors import BrokerError, Conflict, Denied, Exhausted, Reason, Tampered
from broker.lease.machine import MAYBE_ALIVE, Event, State
from broker.ports.connectors import Handle, Noted
from broker.ports.intents import Intent, Opened
from broker.ports.leases import EndCause, Lease
from broker.scope.canonical import JsonValue, canonical_json
from broker.stores import break_glass_ops, citation_ops, quota_ops, task_limits, text_ops
from broker.stores.access_redeem import redeem, redeemable
from broker.stores.access_rows import RequestRow
from broker.stores.break_glass_rows import OverrideRow
from broker.stores.end_ops import find_attempt, lease_ended, lease_not_found
from broker.stores.holding_ops import check_unmoved
from broker.stores.images import counted, keep
from broker.stores.moves import attempts_of, by_break_glass, due_ms, move, settle, tell
from broker.stores.origins import with_origin
from broker.stores.recovery_ops import refuse_while_open
from broker.stores.rows import (
    AttemptRow,
    LeaseRow,
    TaskRow,
    attempt_of,
    imagined_attempt,
    lease_of,
    packed_attempt,
    packed_lease,
    read_task,
    task_values,
    trust_lease,
    trust_task,
    unpacked,
)
from broker.stores.seal import tampered
from broker.stores.suspension_ops import refuse_suspended
from broker.stores.task_ops import admit_participant, is_over, over_cause, start_task, task_ended, task_not_found
from broker.stores.times import to_ms
from broker.stores.transaction import CommitAndRaise, Transaction
from broker.stores.undelivered import UNDELIVERED, came_to_nothing
from broker.stores.view import View
from broker.stores.whole_lease import whole_lease
from broker.suspension.suspension import Subject


@dataclass(frozen=True, slots=True)
class Decided:
    """What an intent may do: open its first lease, or add an attempt to the lease that has its request id."""

    lease: LeaseRow | None
    attempts: tuple[AttemptRow, ...]
    redeems: RequestRow | None = None  # the approved request that a first lease uses up
    emergency: break_glass_ops.Admitted | None = None  # what a first lease of break-glass rests on


def open_intent(tx: Transaction, intent: Intent) -> Opened:
    """See LeaseStore.open_intent. Everything is decided before anything is written, but for a person's own task,
    which goes with the rest where the rest is refused.
    """
    new = intent.break_glass
    if new is not None and new.task is not None:
        start_task(tx, new.task)
    decided = decide(tx, intent)
    if decided.lease is None:
        if decided.redeems is not None:
            redeem(tx, decided.redeems, intent)
        opened = _first(tx, intent)
        if new is not None and decided.emergency is not None:
            break_glass_ops.record(tx, intent, new, decided.emergency)
        return opened
    if decided.emergency is not None:
        break_glass_ops.use_proof(tx, intent, decided.emergency)
    return _retry(tx, decided.lease, decided.attempts, intent)


def decide(view: View, intent: Intent) -> Decided:
    """Refuse what :class:`broker.ports.intents.Intent` says is refused; writes nothing."""
    task, found, count, any_suspended, recovering = _facts(view, intent)
    # Of an emergency, which is rare, also by a row that says it was released and fails its MAC.
    if recovering or intent.break_glass is not None:
        refuse_while_open(view, intent.tenant)
    admit_participant(task, intent.holder, intent.now, intent.expires_at)
    lease = None if found is None else packed_lease(found, view.seal)
    passed: tuple[OverrideRow, ...] = ()
    if any_suspended:  # after the task's participants: others hear nothing of it, not even that it is stopped
        if intent.break_glass is None:
            refuse_suspended(view, intent.tenant, _subject(intent), intent.now)
        else:
            passed = break_glass_ops.passed_suspensions(view, intent, intent.break_glass, _subject(intent), lease)
    check_unmoved(view, intent)
    citation_ops.check(view, intent, lease)
    retry = None if lease is None else _admit_retry(view, trust_lease(lease), intent)
    if retry is not None and passed:
        raise break_glass_ops.granted_before(intent, passed)
    redeemed = redeemable(view, intent, retry.lease if retry else None)
    emergency = None
    if intent.break_glass is not None:
        emergency = break_glass_ops.check(view, intent, intent.break_glass, retry.lease if retry else None)
        emergency = replace(emergency, overrides=(*passed, *emergency.overrides))
    if retry is not None:
        return replace(retry, emergency=emergency)
    if count >= intent.max_live_leases:
        raise Exhausted(
            Reason.QUOTA_LIVE_LEASES,
            f"{intent.holder} already holds {intent.max_live_leases} living leases.",
            hint="Complete a task or revoke a lease; an operator sets the quota in the agent's file.",
            metadata={"quota": str(intent.max_live_leases)},
            retry_after=_first_end(view, intent),
        )
    task_limits.check_leases(view, intent)
    if intent.quotas:
        quota_ops.check(view, intent)
    return Decided(None, (), redeemed, emergency)


def _facts(view: View, intent: Intent) -> tuple[TaskRow, str | None, int, int, int]:
    """The task, the latest lease of this request id (packed), how many its holder has alive, whether anything is
    suspended, whether a recovery is open.

    The count may be too high where it is far from the quota. Raises NotFound (TASK_NOT_FOUND), Tampered.
    """
    tenant, request = intent.tenant, intent.request
    images = view.images
    if images is not None:
        values = images.tasks.get((tenant, request.task_id))
        most = images.living.get((tenant, intent.holder))
        if values is not None and most is not None and most < intent.max_live_leases:
            asked = (intent.holder, request.request_id, tenant)
            lease_row, any_suspended, recovering = images.news.pop(asked, None) or view.row("intent_news", asked)
            if lease_row is None:
                return TaskRow(*values), None, most, any_suspended, recovering
    holder, most = intent.holder, intent.max_live_leases
    raw = view.one("intent_facts", (holder, most, holder, request.request_id, tenant, request.task_id))
    if raw is None:
        raise task_not_found(request.task_id)
    packed_task, found, count, any_suspended, recovering = raw
    task = trust_task(read_task(unpacked(packed_task), view.seal))
    if images is not None:
        keep(images.tasks, (tenant, task.id), task_values(task))
        if count < intent.max_live_leases:
            counted(images.living, (tenant, intent.holder), count)
    return task, found, count, any_suspended, recovering


def _first_end(view: View, intent: Intent) -> float:
    """Seconds until the first of what its holder has alive ends by itself."""
    key = {"tenant": intent.tenant, "subject": intent.holder, "quota": intent.max_live_leases}
    return quota_ops.retry_after(view.row("quota_by_agent", key)[1], intent.now)


def _subject(intent: Intent) -> Subject:
    scope = intent.scope
    return Subject(
        agent=intent.holder,
        entry=intent.entry,
        owner=intent.owner,
        task=intent.request.task_id,
        template=scope.template,
        connector=scope.connector,
        account=scope.account,
    )


def _first(tx: Transaction, intent: Intent) -> Opened:
    now_ms, expires_ms = to_ms(intent.now), to_ms(intent.expires_at)
    attempt = _new_attempt(intent, intent.lease_id, 1, now_ms, expires_ms)
    scope = intent.scope
    lease = LeaseRow(
        tenant=intent.tenant,
        id=intent.lease_id,
        task_id=intent.request.task_id,
        holder=intent.holder,
        request_id=intent.request.request_id,
        request_digest=intent.request_digest,
        template=scope.template,
        template_digest=scope.template_digest,
        connector=scope.connector,
        account=scope.account,
        environment=scope.environment,
        resource=scope.resource,
        access=scope.access.value,
        actions=canonical_json(scope.actions).decode(),
        parameters=canonical_json(scope.parameters).decode(),
        step=intent.request.step,
        contract_class=str(intent.contract_class),
        policies=canonical_json(intent.decision.policies).decode(),
        policy_digest=intent.decision.set_digest,
        created_at=now_ms,
        state=State.ISSUING.value,
        cause=None,
        expires_at=expires_ms,
        confirm_by=None,
        confirmed_at=None,
        ended_at=None,
        attempt_id=attempt.id,
        attempts=1,
        failures=0,
        next_due=attempt.due_at,
        svid_serial=intent.svid_serial,
    )
    tx.insert_lease(lease)
    tx.insert_attempt(attempt)
    _tell_intent(tx, attempt, lease, intent, now_ms)
    if intent.citation is None:
        keep(tx.images.plain, (lease.tenant, lease.id), ())
    else:
        citation_ops.record(tx, intent, lease)
    return Opened(lease.id, attempt_of(attempt), ())


def _admit_retry(view: View, lease: LeaseRow, intent: Intent) -> Decided | None:
    """A retry's own conditions: the same content, nothing in flight, and not a lease that ran its course.

    None: the lease has ended without its agent ever having it, so the retry opens a new one.
    """
    now_ms = to_ms(intent.now)
    if lease.request_digest != intent.request_digest:
        raise Conflict(
            Reason.REQUEST_ID_REUSED,
            f"request id {lease.request_id!r} already names lease {lease.id}, which was asked for with other content.",
            hint="Use a fresh request id for a new request.",
            metadata={"requestId": lease.request_id, "leaseId": lease.id},
        )
    if came_to_nothing(lease):
        return None
    living = lease.state in (State.ISSUING, State.ACTIVE) or (
        lease.state == State.REVOKING and lease.cause in UNDELIVERED
    )
    if not living or now_ms >= lease.expires_at:
        raise lease_ended(lease.id)
    task_limits.check_attempts(lease, intent)
    attempts = tuple(attempts_of(view, lease))
    for attempt in attempts:
        if not attempt.trusted:
            raise tampered(attempt.TABLE, attempt.id)
        if attempt.state == State.ISSUING and now_ms < attempt.issue_deadline:
            raise Conflict(
                Reason.REQUEST_IN_FLIGHT,
                f"request id {lease.request_id!r} is being issued at this moment.",
                hint="Wait for the first call, or try again after its deadline.",
                metadata={"requestId": lease.request_id, "leaseId": lease.id},
            )
    return Decided(lease, attempts)


def _retry(tx: Transaction, lease: LeaseRow, attempts: tuple[AttemptRow, ...], intent: Intent) -> Opened:
    """A further attempt of a living lease. It may not outlive what the first one was granted."""
    now_ms = to_ms(intent.now)
    previous = [attempt for attempt in attempts if State(attempt.state) in MAYBE_ALIVE]
    for attempt in previous:
        if attempt.state != State.REVOKING:
            move(tx, attempt, lease, Event.END, EndCause.REPLACED, now_ms)
    expires_ms = min(to_ms(intent.expires_at), lease.expires_at)
    new = _new_attempt(intent, lease.id, lease.attempts + 1, now_ms, expires_ms)
    tx.insert_attempt(new)
    lease.state, lease.cause, lease.ended_at = State.ISSUING.value, None, None
    lease.confirm_by = None
    lease.attempt_id, lease.attempts, lease.svid_serial = new.id, new.number, intent.svid_serial
    lease.next_due = min(attempt.due_at for attempt in (new, *previous) if attempt.due_at is not None)
    tx.update_lease(lease)
    _tell_intent(tx, new, lease, intent, now_ms)
    return Opened(lease.id, attempt_of(new), tuple(attempt_of(attempt) for attempt in previous))


def _new_attempt(intent: Intent, lease_id: str, number: int, now_ms: int, expires_ms: int) -> AttemptRow:
    row = AttemptRow(
        tenant=intent.tenant,
        id=intent.attempt_id,
        lease_id=lease_id,
        number=number,
        connector=intent.scope.connector,
        created_at=now_ms,
        issue_deadline=to_ms(intent.issue_deadline),
        handle=canonical_json(intent.handle).decode(),
        upstream=None,
        state=State.ISSUING.value,
        cause=None,
        activated_at=None,
        expires_at=expires_ms,
        due_at=None,
        owed_since=None,
        epoch=1,
        failures=0,
        last_error="",
        stuck=0,
    )
    row.due_at = due_ms(row, None, None)
    return row


def _tell_intent(tx: Transaction, attempt: AttemptRow, lease: LeaseRow, intent: Intent, now_ms: int) -> None:
    scope = intent.scope
    request = intent.request
    text_ops.keep(tx, intent.tenant, request.task_id, text_ops.claimed_in(request), attempt.id, now_ms)
    tell(
        tx,
        EventType.LEASE_INTENT,
        attempt,
        lease,
        intent.break_glass.person if intent.break_glass else intent.holder,
        now_ms,
        {
            **intent.audit,
            "attempt": attempt.number,
            "request_id": lease.request_id,
            "request_digest": lease.request_digest,
            "template": scope.template,
            "template_digest": scope.template_digest,
            "connector": scope.connector,
            "account": scope.account,
            "environment": scope.environment,
            "resource": scope.resource,
            "access": lease.access,
            "actions": scope.actions,
            "parameters": scope.parameters,
            "step": lease.step,
            "svid_serial": lease.svid_serial,
            "contract_class": lease.contract_class,
            "policies": intent.decision.policies,
            "policy_digest": lease.policy_digest,
            "expires_ms": attempt.expires_at,
        },
    )


def _attempt_ended(attempt: AttemptRow) -> BrokerError:
    """Why an attempt that was being issued, or delivered, is not any more."""
    if attempt.cause != EndCause.SUSPENDED:
        return lease_ended(attempt.lease_id)
    return Denied(
        Reason.SUSPENDED,
        f"lease {attempt.lease_id} was ended by a suspension before its delivery was confirmed.",
        hint="Asking again tells by whom and why.",
        metadata={"leaseId": attempt.lease_id},
    )


def checkpoint(tx: Transaction, tenant: str, attempt_id: str, epoch: int, handle: Handle, upstream: str | None) -> None:
    """See LeaseStore.checkpoint."""
    values = tx.images.attempts.get((tenant, attempt_id))
    attempt = find_attempt(tx, tenant, attempt_id)[0] if values is None else imagined_attempt(values)
    if not attempt.trusted:
        raise tampered(attempt.TABLE, attempt.id)
    if attempt.state != State.ISSUING or attempt.epoch != epoch:
        raise _attempt_ended(attempt)
    _note(attempt, Noted(handle, upstream))
    if not tx.update_attempt(attempt):
        raise lease_ended(attempt.lease_id)


def _note(attempt: AttemptRow, noted: Noted) -> None:
    attempt.handle = canonical_json(noted.handle).decode()
    attempt.upstream = attempt.upstream if noted.upstream is None else noted.upstream


def activate(
    tx: Transaction,
    tenant: str,
    attempt_id: str,
    epoch: int,
    expires_at: datetime,
    confirm_by: datetime,
    observed: Mapping[str, JsonValue],
    now: datetime,
    noted: Noted | None = None,
) -> Lease | CommitAndRaise:
    """See LeaseStore.activate. Whatever keeps it from becoming ACTIVE leaves the attempt REVOKING, committed."""
    attempt, lease, task = _issuing(tx, tenant, attempt_id)
    now_ms = to_ms(now)
    if attempt.trusted and (attempt.state != State.ISSUING or attempt.epoch != epoch):
        raise _attempt_ended(attempt)
    if lease is None or task is None or not (attempt.trusted and lease.trusted and task.trusted):
        move(tx, attempt, lease, Event.END, EndCause.OUTCOME_UNKNOWN, now_ms)
        return CommitAndRaise(_untrusted(attempt, lease, task))
    ends_ms = min(to_ms(expires_at), attempt.expires_at, lease.expires_at)
    if noted is not None:
        _note(attempt, noted)
    over = is_over(task, now_ms)
    if over or now_ms >= ends_ms:
        if noted is not None:  # of what is being ended, nothing but its state is written
            tx.update_attempt(attempt)
        move(tx, attempt, lease, Event.END, over_cause(task) if over else EndCause.EXPIRED, now_ms)
        return CommitAndRaise(task_ended(task.id) if over else lease_ended(lease.id))
    attempt.expires_at = lease.expires_at = ends_ms
    attempt.activated_at, lease.confirm_by = now_ms, to_ms(confirm_by)
    about: dict[str, JsonValue] = {
        "expires_ms": ends_ms,
        "confirm_by_ms": lease.confirm_by,
        "upstream": attempt.upstream,
        "observed": observed,
    }
    if not move(tx, attempt, lease, Event.ISSUED, None, now_ms, data=about):
        raise lease_ended(lease.id)
    return with_origin(tx, lease_of(lease))


def _issuing(tx: Transaction, tenant: str, attempt_id: str) -> tuple[AttemptRow, LeaseRow | None, TaskRow | None]:
    """An attempt, its lease and its task: as this writer left them a moment ago, or else as the database has them."""
    images = tx.images
    values = images.attempts.get((tenant, attempt_id))
    if values is not None:
        attempt = imagined_attempt(values)
        lease_image = images.leases.get((tenant, attempt.lease_id))
        if lease_image is not None:
            lease = LeaseRow(*lease_image)
            task_image = images.tasks.get((tenant, lease.task_id))
            if task_image is not None:
                return attempt, lease, TaskRow(*task_image)
    raw = tx.one("attempt_facts", (tenant, attempt_id))
    if raw is None:
        raise lease_not_found(attempt_id)
    task_raw = unpacked(raw[2])
    return (
        packed_attempt(raw[0], tx.seal),
        packed_lease(raw[1], tx.seal),
        None if task_raw[0] is None else read_task(task_raw, tx.seal),
    )


def _untrusted(attempt: AttemptRow, lease: LeaseRow | None, task: TaskRow | None) -> Tampered:
    if not attempt.trusted:
        return tampered(attempt.TABLE, attempt.id)
    if lease is None or not lease.trusted:
        return tampered(LeaseRow.TABLE, attempt.lease_id)
    return tampered(TaskRow.TABLE, task.id if task else lease.task_id)


def confirm_delivery(
    tx: Transaction, tenant: str, lease_id: str, holder: str, attempt_id: str, now: datetime, person: str
) -> Lease:
    """See LeaseStore.confirm_delivery. Too late is too late, also where nobody has swept it yet."""
    attempt, lease = find_attempt(tx, tenant, attempt_id)
    if lease is None or lease.holder != holder or lease.id != lease_id:
        raise lease_not_found(lease_id)
    trust_lease(lease)
    if by_break_glass(lease.request_id):
        use = break_glass_ops.find_row(tx, tenant, lease_id)
        if use is None or use.person != person:
            raise lease_not_found(lease_id)  # it went to a person, who alone can say that it arrived
    if not attempt.trusted:
        raise tampered(attempt.TABLE, attempt.id)
    now_ms = to_ms(now)
    if attempt.state != State.ACTIVE or attempt.due_at is None or now_ms >= attempt.due_at:
        raise _attempt_ended(attempt)
    if lease.confirm_by is None:
        return whole_lease(tx, lease)
    lease.confirmed_at, lease.confirm_by = now_ms, None
    attempt.due_at = due_ms(attempt, None, None)
    tx.update_attempt(attempt)
    settle(tx, lease, attempt, now_ms)
    who, vouch = (person, Vouch.BROKER) if person else (holder, Vouch.AGENT)
    tell(tx, EventType.DELIVERY_CONFIRMED, attempt, lease, who, now_ms, {"attempt": attempt.number}, vouch)
    return whole_lease(tx, lease)
