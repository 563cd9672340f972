"""Operations on plans, each inside one write transaction. What a plan says is written once and never changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from broker.audit.event import AuditEvent, EventType, Vouch
from broker.errors import Conflict, InvalidInput, Reason, WrongState
from broker.identity.party import Party
from broker.plan.execution import plan_not_found
from broker.plan.machine import PlanEvent, PlanState, next_state
from broker.plan.plan import Plan
from broker.plan.roles import VALIDATOR, require_other
from broker.ports.pipelines import NewPlan
from broker.scope.canonical import JsonValue, canonical_json
from broker.stores import text_ops
from broker.stores.pipeline_rows import PlanRow, insert, plan_of, trusted, update_decision, update_text
from broker.stores.rows import TaskRow, trust_task
from broker.stores.seal import RowSeal
from broker.stores.task_limits import limit_reached
from broker.stores.task_ops import find_task, is_over, takes_part, task_ended, task_not_found
from broker.stores.times import to_ms
from broker.stores.transaction import Transaction
from broker.stores.view import View


def register(tx: Transaction, new: NewPlan) -> Plan:
    """See PipelineStore.register_plan."""
    key = {"tenant": new.tenant, "planner": new.planner.id, "request_id": new.request_id}
    raw = tx.one("plan_by_request", key)
    if raw is not None:
        return _repeated(trusted(PlanRow, raw, tx.seal), new, tx.seal)
    task = open_task(tx, new.tenant, new.task_id, new.planner, new.created_at)
    count = {"tenant": new.tenant, "task_id": new.task_id, "most": new.max_plans}
    if tx.row("count_plans", count)[0] >= new.max_plans:
        hint = "Decide about those there are, or start a new task."
        raise limit_reached(
            Reason.LIMIT_PLANS_PER_TASK, f"task {task.id} has {new.max_plans} plans", hint, new.max_plans
        )
    row = _row(new, min(to_ms(new.deadline), task.deadline), tx.seal)
    insert(tx, "insert_plan", row)
    about: dict[str, JsonValue] = {
        "steps": [action.step for action in new.actions],
        "actions": [dict(action.canonical()) for action in new.actions],
        "deadline_ms": row.deadline,
        "request_id": new.request_id,
    }
    tell_plan(tx, EventType.PLAN_REGISTERED, row, new.planner, row.created_at, about)
    text_ops.keep(tx, row.tenant, row.task_id, {"plan": new.text}, row.id, row.created_at)
    return plan_of(row, tx.seal)


def open_task(view: View, tenant: str, task_id: str, party: Party, now: datetime) -> TaskRow:
    """The task, if ``party`` takes part in it and it is open. Raises as for everything under a task."""
    task = trust_task(find_task(view, tenant, task_id))
    if not takes_part(task, party.id):
        raise task_not_found(task_id)
    if is_over(task, to_ms(now)):
        raise task_ended(task_id)
    return task


def _row(new: NewPlan, deadline: int, seal: RowSeal) -> PlanRow:
    return PlanRow(
        tenant=new.tenant,
        id=new.id,
        task_id=new.task_id,
        planner=new.planner.id,
        planner_principal=new.planner.principal,
        request_id=new.request_id,
        request_digest=new.request_digest,
        text=seal.conceal(new.text, PlanRow.TABLE, new.id),
        actions=canonical_json([action.canonical() for action in new.actions]).decode(),
        digest=new.digest,
        created_at=to_ms(new.created_at),
        deadline=deadline,
        state=PlanState.REGISTERED.value,
        validator=None,
        validator_principal=None,
        reason="",
        decided_at=None,
    )


def _repeated(row: PlanRow, new: NewPlan, seal: RowSeal) -> Plan:
    if row.request_digest != new.request_digest:
        raise Conflict(
            Reason.REQUEST_ID_REUSED,
            f"request id {new.request_id!r} already names plan {row.id}, which says something else.",
            hint="A plan never changes: register the new version under a fresh request id.",
            metadata={"requestId": new.request_id, "planId": row.id},
        )
    return plan_of(row, seal)


def find(view: View, tenant: str, plan_id: str) -> Plan:
    """See PipelineStore.get_plan."""
    return plan_of(_find(view, tenant, plan_id), view.seal)


def erase_texts(tx: Transaction, tenant: str, task_id: str) -> None:
    """Erase what the plans of a task say; what they allow stays, and so do their digests."""
    for raw in tx.all("plans_of_task", {"tenant": tenant, "task_id": task_id}):
        row = trusted(PlanRow, raw, tx.seal)
        row.text = ""
        update_text(tx, row)


def _find(view: View, tenant: str, plan_id: str) -> PlanRow:
    raw = view.one("plan_by_id", {"tenant": tenant, "plan_id": plan_id})
    if raw is None:
        raise plan_not_found(plan_id)
    return trusted(PlanRow, raw, view.seal)


def of_task(view: View, tenant: str, task_id: str) -> list[Plan]:
    """See PipelineStore.task_plans."""
    rows = view.all("plans_of_task", {"tenant": tenant, "task_id": task_id})
    return [plan_of(trusted(PlanRow, raw, view.seal), view.seal) for raw in rows]


def decide(
    tx: Transaction,
    tenant: str,
    plan_id: str,
    event: PlanEvent,
    digest: str,
    validator: Party,
    reason: str,
    now: datetime,
) -> Plan:
    """See PipelineStore.decide_plan."""
    row = _find(tx, tenant, plan_id)
    task = trust_task(find_task(tx, tenant, row.task_id))
    if not takes_part(task, validator.id):
        raise plan_not_found(plan_id)
    if digest != row.digest:
        raise _other_digest(row)
    plan = plan_of(row, tx.seal)
    require_other(replace(plan, validator=None), validator, VALIDATOR)
    state = next_state(PlanState.REGISTERED, event)
    if plan.validator == validator and plan.state is state:
        return plan
    if is_over(task, to_ms(now)):
        raise task_ended(task.id)
    following = next_state(plan.at(now), event)
    if following is None:
        raise _undecidable(plan, now)
    row.state, row.reason, row.decided_at = following.value, reason, to_ms(now)
    row.validator, row.validator_principal = validator.id, validator.principal
    if not update_decision(tx, row):
        raise _undecidable(plan, now)
    confirmed = following is PlanState.CONFIRMED
    event_type = EventType.PLAN_CONFIRMED if confirmed else EventType.PLAN_REJECTED
    tell_plan(tx, event_type, row, validator, to_ms(now), {"reason": reason})
    return plan_of(row, tx.seal)


def _other_digest(row: PlanRow) -> InvalidInput:
    return InvalidInput(
        Reason.PLAN_DIGEST_MISMATCH,
        f"the digest is not that of plan {row.id}.",
        hint="Read the plan again (`broker plan show`), and decide about what it says.",
        metadata={"planId": row.id, "digest": row.digest},
    )


def _undecidable(plan: Plan, now: datetime) -> WrongState:
    state = plan.at(now)
    if state is PlanState.LAPSED:
        return WrongState(
            Reason.PLAN_LAPSED,
            f"the deadline of plan {plan.id} has passed.",
            hint="Have it registered again.",
            metadata={"planId": plan.id, "deadline": plan.deadline.isoformat()},
        )
    return WrongState(
        Reason.PLAN_DECIDED,
        f"plan {plan.id} is {state} already, by {plan.validator.id if plan.validator else 'nobody'}.",
        hint="A decision stands. Have a new plan registered.",
        metadata={"planId": plan.id, "state": state},
    )


def tell_plan(
    tx: Transaction,
    event: EventType,
    row: PlanRow,
    actor: Party,
    now_ms: int,
    data: dict[str, JsonValue],
) -> None:
    """Record an event of a plan. Its text is named by the digest, not quoted."""
    about: dict[str, JsonValue] = {"plan_id": row.id, "digest": row.digest, "principal": actor.principal, **data}
    tx.audit(AuditEvent(event, actor.id, Vouch.BROKER, tenant=row.tenant, task_id=row.task_id, data=about), now_ms)
