"""May this executor have this, by that plan? Asked before policy decides, and again in the intent transaction."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from broker.errors import Denied, InvalidInput, NotFound, Reason, WrongState
from broker.identity.party import Party
from broker.plan.machine import PlanState
from broker.plan.plan import Action, Plan
from broker.plan.roles import EXECUTOR, require_other, require_role
from broker.scope.containment import Reach, excesses
from broker.scope.narrowing import Narrowings


def check_execution(
    plan: Plan,
    task_id: str,
    step: str,
    executor: Party,
    roles: Collection[str],
    asked: Reach,
    compared: Narrowings,
    now: datetime,
) -> None:
    """Refuse what is not what ``plan`` says for ``step``, or narrower. Whether the step was used, the ledger tells."""
    if plan.task_id != task_id:
        raise plan_not_found(plan.id)
    require_role(executor, roles, EXECUTOR)
    require_other(plan, executor, EXECUTOR)
    _check_confirmed(plan, now)
    action = plan.action(step)
    if action is None:
        raise _unknown_step(plan, step)
    _check_within(plan, action, asked, compared)


def plan_not_found(plan_id: str) -> NotFound:
    """One answer for a plan that is not there and for one of a task that the caller has no part in."""
    return NotFound(
        Reason.PLAN_NOT_FOUND,
        f"there is no plan {plan_id!a} of a task of yours.",
        hint="`broker plan list` shows the plans of a task.",
        metadata={"planId": plan_id},
    )


_NOT_USABLE = {
    PlanState.REGISTERED: (Reason.PLAN_NOT_CONFIRMED, "no validator has confirmed it", "Have a validator decide."),
    PlanState.REJECTED: (Reason.PLAN_REJECTED, "a validator has rejected it", "Register a better one."),
    PlanState.LAPSED: (Reason.PLAN_LAPSED, "its deadline has passed", "Register it again, and have it confirmed."),
}


def _check_confirmed(plan: Plan, now: datetime) -> None:
    state = plan.at(now)
    if state is PlanState.CONFIRMED:
        return
    reason, why, hint = _NOT_USABLE[state]
    raise WrongState(
        reason,
        f"plan {plan.id} gives nothing: {why}.",
        hint=hint,
        metadata={"planId": plan.id, "state": state, "deadline": plan.deadline.isoformat()},
    )


def _unknown_step(plan: Plan, step: str) -> InvalidInput:
    steps = ", ".join(action.step for action in plan.actions)
    return InvalidInput(
        Reason.PLAN_STEP_UNKNOWN,
        f"plan {plan.id} has no step {step!a}.",
        hint=f"Its steps: {steps}.",
        metadata={"planId": plan.id, "step": step, "steps": steps},
    )


def _check_within(plan: Plan, action: Action, asked: Reach, compared: Narrowings) -> None:
    if beyond := excesses(action.reach, asked, compared):
        raise Denied(
            Reason.PLAN_EXCEEDED,
            f"step {action.step} of plan {plan.id} does not cover this: {'; '.join(map(str, beyond))}.",
            hint="Ask for what was planned, or for less; or have a new plan made.",
            metadata={
                "planId": plan.id,
                "step": action.step,
                "dimensions": ",".join(each.dimension for each in beyond),
            },
        )
