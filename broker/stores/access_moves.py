"""How a stored access request moves: the one place that turns its machine into rows and audit events.

Every move goes through :func:`broker.approval.machine.next_state`, is recorded in the audit trail and in its
holder's stream, and erases the claimed texts of a request that is over. The plan of the one that was approved
last is kept, so that the next one can be shown as a difference to it (docs/decisions/texts-of-access-requests.md).
"""

from __future__ import annotations

from broker.approval.machine import OVER, RequestEvent, RequestState, next_state
from broker.audit.event import BROKER, AuditEvent, EventType, Vouch
from broker.errors import Defect, Reason
from broker.scope.canonical import JsonValue
from broker.stores.access_rows import RequestRow, read_request, update_request
from broker.stores.rows import Raw
from broker.stores.transaction import Transaction

_TYPES = {
    RequestEvent.APPROVE: EventType.ACCESS_APPROVED,
    RequestEvent.DENY: EventType.ACCESS_DENIED,
    RequestEvent.WITHDRAW: EventType.ACCESS_WITHDRAWN,
    RequestEvent.LAPSE: EventType.ACCESS_LAPSED,
    RequestEvent.REDEEM: EventType.ACCESS_REDEEMED,
}


def move(
    tx: Transaction,
    row: RequestRow,
    event: RequestEvent,
    actor: str,
    now_ms: int,
    data: dict[str, JsonValue] | None = None,
) -> None:
    """Apply ``event`` and store the request. Raises WrongState for what its state does not allow.

    The caller has set what else the event changes (``approved_at``, ``lease_id``, ...).
    """
    before = RequestState(row.state)
    state = next_state(before, event, row.id)
    row.state = state.value
    row.due_at = row.redeem_by if state is RequestState.APPROVED else None
    if state in OVER:
        row.ended_at, row.ended_by = now_ms, actor
        kept = before is RequestState.APPROVED and event in (RequestEvent.REDEEM, RequestEvent.LAPSE)
        _erase(tx, row, keep_plan=kept and row.trusted)
    if not update_request(tx, row):
        raise Defect(Reason.INTERNAL, f"access request {row.id} moved within its own transaction.")
    tell(tx, _TYPES[event], row, actor, now_ms, data or {})


def _erase(tx: Transaction, row: RequestRow, *, keep_plan: bool) -> None:
    row.tool_call = ""
    if not keep_plan:
        row.plan = ""
        return
    key = {"tenant": row.tenant, "principal": row.principal, "template": row.template, "limit": 16}
    for raw in tx.all("kept_plans", key):
        other = read_request(raw, tx)
        if (other.approved_at or 0) > (row.approved_at or 0):
            row.plan = ""
        else:
            other.plan = ""
            update_request(tx, other)


def tell(
    tx: Transaction, event: EventType, row: RequestRow, actor: str, now_ms: int, data: dict[str, JsonValue]
) -> None:
    """Record an event of one request, in the trail and in its holder's stream."""
    if not row.trusted:
        data = {**data, "untrusted_row": True}
    about: dict[str, JsonValue] = {"access_request": row.id, "digest": row.digest, "principal": row.principal}
    seq = tx.audit(
        AuditEvent(
            event,
            actor,
            Vouch.BROKER,
            tenant=row.tenant,
            task_id=row.task_id,
            holder=row.holder,
            data={**about, **data},
        ),
        now_ms,
    )
    key = {"tenant": row.tenant, "holder": row.holder, "seq": seq, "access_request_id": row.id}
    tx.run("insert_access_event", key)


def lapse_with_task(tx: Transaction, tenant: str, task_id: str, now_ms: int) -> None:
    """End the open requests of a task that is closed: nothing can be granted under it any more."""

    def end(raw: Raw) -> bool:
        return _lapsed(tx, read_request(raw, tx), now_ms, "its task has ended")

    tx.each(end, tx.all("open_access_requests_of_task", {"tenant": tenant, "task_id": task_id}))


def lapse(tx: Transaction, row: RequestRow, now_ms: int) -> bool:
    """End a request whose deadline has passed; True."""
    return _lapsed(tx, row, now_ms, "nobody redeemed it in time" if row.approved_at else "nobody decided in time")


def _lapsed(tx: Transaction, row: RequestRow, now_ms: int, why: str) -> bool:
    move(tx, row, RequestEvent.LAPSE, BROKER, now_ms, {"why": why})
    return True
