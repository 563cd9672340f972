"""Operations on tasks, each inside one write transaction."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import orjson

from broker.audit.event import BROKER, AuditEvent, EventType, Vouch
from broker.audit.report import TaskReport
from broker.errors import Conflict, Defect, Exhausted, InvalidInput, NotFound, Reason, WrongState
from broker.ports.leases import EndCause
from broker.ports.tasks import NewTask, Task, TaskState
from broker.scope.canonical import JsonValue, canonical_json
from broker.stores import quota_ops
from broker.stores.access_moves import lapse_with_task
from broker.stores.end_ops import end_selected
from broker.stores.rows import Raw, TaskRow, read_task, task_of, trust_task
from broker.stores.times import from_ms, span_ms, to_ms
from broker.stores.transaction import CommitAndRaise, Transaction
from broker.stores.view import View


def start_task(tx: Transaction, new: NewTask) -> Task:
    """See LeaseStore.start_task."""
    key = {"tenant": new.tenant, "creator": new.creator, "request_id": new.request_id}
    raw = tx.one("task_by_request", key)
    if raw is not None:
        return _repeated(read_task(raw, tx.seal), new)
    _check_unused(tx, new)
    if new.deadline <= new.created_at:
        raise InvalidInput(Reason.TTL_INVALID, "a task's deadline must lie in the future.")
    count, first_ends = tx.row(
        "count_open_tasks", {"tenant": new.tenant, "creator": new.creator, "quota": new.max_open}
    )
    if count >= new.max_open:
        raise Exhausted(
            Reason.QUOTA_OPEN_TASKS,
            f"{new.creator} already has {new.max_open} open tasks.",
            hint="Complete a task first; an operator sets the quota in the agent's file.",
            metadata={"quota": str(new.max_open)},
            retry_after=quota_ops.retry_after(first_ends, new.created_at),
        )
    row = TaskRow(
        tenant=new.tenant,
        id=new.id,
        creator=new.creator,
        request_id=new.request_id,
        request_digest=new.request_digest,
        participants=canonical_json(sorted(new.participants | {new.creator})).decode(),
        purpose=new.purpose,
        ticket=new.ticket,
        sponsor=new.sponsor,
        created_at=to_ms(new.created_at),
        deadline=to_ms(new.deadline),
        hold_grace=0,
        hold_until=None,
        state=TaskState.OPEN.value,
        cause=None,
        ended_at=None,
        ends_at=to_ms(new.deadline),
        task_type=new.task_type,
        on_behalf_of=None if new.on_behalf_of is None else canonical_json(list(new.on_behalf_of)).decode(),
        id_token=new.id_token or None,
    )
    tx.insert_task(row)
    tx.audit(
        AuditEvent(
            EventType.TASK_STARTED,
            new.creator,
            Vouch.BROKER,
            tenant=new.tenant,
            task_id=new.id,
            data={
                "participants": sorted(new.participants | {new.creator}),
                "purpose": new.purpose,
                "ticket": new.ticket,
                "sponsor": new.sponsor,
                "task_type": new.task_type,
                "deadline_ms": row.deadline,
                "request_id": new.request_id,
                **_acts_for(new),
            },
        ),
        row.created_at,
    )
    return task_of(row)


def _acts_for(new: NewTask) -> dict[str, JsonValue]:
    """For the audit trail: the human, and what proved it."""
    return {} if new.on_behalf_of is None else {"on_behalf_of": new.on_behalf_of.id, "id_token_sha256": new.id_token}


def _check_unused(tx: Transaction, new: NewTask) -> None:
    """Raises Conflict (ID_TOKEN_USED) for a token that has proven another task."""
    if not new.id_token:
        return
    used = tx.one("task_by_id_token", {"tenant": new.tenant, "id_token": new.id_token})
    if used is not None:
        raise Conflict(
            Reason.ID_TOKEN_USED,
            f"this ID token has proven task {used[0]} already.",
            hint="Log in again, with the nonce of this task (`broker task nonce`).",
            metadata={"field": "on_behalf_of_token"},
        )


def _repeated(row: TaskRow, new: NewTask) -> Task:
    trust_task(row)
    if row.request_digest != new.request_digest:
        raise Conflict(
            Reason.REQUEST_ID_REUSED,
            f"request id {new.request_id!r} already names task {row.id}, which was asked for with other content.",
            hint="Use a fresh request id for a new task.",
            metadata={"requestId": new.request_id, "taskId": row.id},
        )
    return task_of(row)


def find_task(tx: View, tenant: str, task_id: str) -> TaskRow:
    """The task's row, trusted or not. Raises NotFound (TASK_NOT_FOUND)."""
    raw = tx.one("task_by_id", {"tenant": tenant, "task_id": task_id})
    if raw is None:
        raise task_not_found(task_id)
    return read_task(raw, tx.seal)


def task_not_found(task_id: str) -> NotFound:
    """One answer for a task that is not there and for one that the caller has no part in."""
    return NotFound(
        Reason.TASK_NOT_FOUND,
        f"there is no task {task_id} that you take part in.",
        hint="Start a task, or ask its creator to name you as a participant.",
        metadata={"taskId": task_id},
    )


def task_ended(task_id: str) -> WrongState:
    """The task is closed, or its deadline or hold has passed."""
    return WrongState(
        Reason.TASK_ENDED, f"task {task_id} has ended.", hint="Start a new task.", metadata={"taskId": task_id}
    )


def is_over(row: TaskRow, now_ms: int) -> bool:
    """Closed, or due to be: nothing may be granted under it any more."""
    return row.state != TaskState.OPEN or row.ends_at is None or now_ms >= row.ends_at


def takes_part(row: TaskRow, agent: str) -> bool:
    """Whether ``agent`` is the task's creator or a participant."""
    return agent in orjson.loads(row.participants)


def admit_participant(task: TaskRow, holder: str, now: datetime, expires_at: datetime) -> None:
    """A task's own conditions: its participant asks, it is open, and open for as long as the credential would live."""
    now_ms, expires_ms = to_ms(now), to_ms(expires_at)
    if not takes_part(task, holder):
        raise task_not_found(task.id)
    if is_over(task, now_ms):
        raise task_ended(task.id)
    if expires_ms <= now_ms:
        raise InvalidInput(Reason.TTL_INVALID, "a credential must expire after it is asked for.")
    if expires_ms > task.deadline:
        raise WrongState(
            Reason.TASK_ENDS_TOO_SOON,
            f"the credential would live until {expires_at.isoformat()}, task {task.id} ends at "
            f"{from_ms(task.deadline).isoformat()}.",
            hint="Ask for a shorter TTL, or start a task with a later deadline.",
            metadata={"taskId": task.id, "deadline": from_ms(task.deadline).isoformat()},
        )


def over_cause(row: TaskRow) -> EndCause:
    """Why a task that is over is over: how it was closed, or else which of its times came first."""
    if row.cause is not None:
        return EndCause(row.cause)
    dropped = row.hold_until is not None and row.hold_until < row.deadline
    return EndCause.HOLD_DROPPED if dropped else EndCause.TASK_DEADLINE


def end_task(
    tx: Transaction,
    tenant: str,
    task_id: str,
    state: TaskState,
    cause: EndCause,
    actor: str,
    now: datetime,
    report: TaskReport | None = None,
    audit: Mapping[str, JsonValue] | None = None,
) -> Task | CommitAndRaise:
    """See LeaseStore.end_task. A task whose row fails its MAC is closed too: that only ever takes away."""
    if state is TaskState.OPEN:
        raise Defect(Reason.INTERNAL, "a task cannot be ended into OPEN.")
    row = find_task(tx, tenant, task_id)
    if row.state == TaskState.OPEN:
        close(tx, row, state, cause, actor, to_ms(now), audit)
    if report and not _record(tx, row, report, actor, to_ms(now)):
        return CommitAndRaise(_reported(task_id))
    return task_of(row)


def _record(tx: Transaction, row: TaskRow, report: TaskReport, actor: str, now_ms: int) -> bool:
    """Write what the agent reports; False if it has reported something else before."""
    digest = report.digest()
    known = tx.one("task_report", (row.tenant, row.id))
    if known is not None:
        return bool(known[0] == digest)
    tx.run("insert_task_report", (row.tenant, row.id, digest, now_ms))
    data = report.canonical()
    tx.audit(
        AuditEvent(EventType.TASK_REPORTED, actor, Vouch.AGENT, tenant=row.tenant, task_id=row.id, data=data), now_ms
    )
    return True


def _reported(task_id: str) -> Conflict:
    return Conflict(
        Reason.TASK_REPORTED,
        f"task {task_id} is complete, and has been reported on already, with other content.",
        hint="A task is reported on once, when it is complete; a repeat of the same report changes nothing.",
        metadata={"taskId": task_id},
    )


def close(
    tx: Transaction,
    row: TaskRow,
    state: TaskState,
    cause: EndCause,
    actor: str,
    now_ms: int,
    audit: Mapping[str, JsonValue] | None = None,
) -> None:
    """Close an open task and end what lives under it."""
    row.state, row.cause, row.ended_at, row.ends_at = state.value, cause.value, now_ms, None
    tx.update_task(row)
    lapse_with_task(tx, row.tenant, row.id, now_ms)
    completed = state is TaskState.COMPLETED
    ended = end_selected(
        tx, "unended_by_task", {"tenant": row.tenant, "task_id": row.id, "holder": ""}, cause, actor, now_ms
    )
    tx.audit(
        AuditEvent(
            EventType.TASK_COMPLETED if completed else EventType.TASK_ENDED,
            actor,
            Vouch.BROKER,
            tenant=row.tenant,
            task_id=row.id,
            data={**(audit or {}), "cause": cause.value, "attempts_ended": ended},
        ),
        now_ms,
    )


def end_due_tasks(tx: Transaction, now: datetime, limit: int) -> int:
    """See LeaseStore.end_due_tasks."""
    now_ms = to_ms(now)

    def end(raw: Raw) -> bool:
        row = read_task(raw, tx.seal)
        close(tx, row, TaskState.ENDED, over_cause(row), BROKER, now_ms)
        return True

    return sum(tx.each(end, tx.all("tasks_due", {"now": now_ms, "limit": limit})))


def hold_task(tx: Transaction, tenant: str, task_id: str, grace: timedelta, until: datetime, now: datetime) -> Task:
    """See LeaseStore.hold_task."""
    row = trust_task(find_task(tx, tenant, task_id))
    if is_over(row, to_ms(now)):
        raise task_ended(task_id)
    until_ms = to_ms(until)
    if row.hold_until is None or row.hold_until < until_ms:
        row.hold_grace, row.hold_until = span_ms(grace), until_ms
        row.ends_at = min(row.deadline, until_ms)
        tx.update_task(row)
    return task_of(row)
