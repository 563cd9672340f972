"""Plans: registered by planners, decided about by validators, read by whoever takes part in their task."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from broker.errors import InvalidInput, NotFound, Reason
from broker.identity.party import party
from broker.issuance.caller import Caller
from broker.issuance.stopped import check_suspended
from broker.plan.execution import plan_not_found
from broker.plan.machine import PlanEvent
from broker.plan.plan import Action, Plan, plan_digest
from broker.plan.roles import PLANNER, VALIDATOR, require_role
from broker.plan.steps import check_steps
from broker.ports.clock import Clock, Rng
from broker.ports.ledger import Ledger
from broker.ports.pipelines import NewPlan
from broker.ports.tasks import TaskLimits
from broker.scope.bind import bind
from broker.scope.blank import blank, refuse_blank
from broker.scope.canonical import JsonValue, canonical_json
from broker.scope.containment import reach_of
from broker.scope.model import ScopeTemplate
from broker.scope.request import AccessRequest

PLAN_PREFIX = "plan-"


@dataclass(frozen=True, slots=True)
class Proposal:
    """One action as a planner proposes it: what the executor of ``step`` is to get at most."""

    step: str
    template: str
    account: str
    environment: str
    resource: str
    ttl: timedelta
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlanOrder:
    """What a planner says to register a plan. ``valid_for`` is None where it said nothing."""

    request_id: str
    task_id: str
    text: str
    proposals: Sequence[Proposal]
    valid_for: timedelta | None = None


class PlanDesk:
    """Everything agents do with plans."""

    def __init__(self, store: Ledger, clock: Clock, rng: Rng, *, limits: TaskLimits, default_life: timedelta) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self._limits = limits
        self._life = default_life

    async def register(self, caller: Caller, order: PlanOrder) -> Plan:
        """A new plan, or the one that this request id already registered."""
        planner = party(caller.agent)
        require_role(planner, caller.agent.roles, PLANNER)
        life = self._life if order.valid_for is None else order.valid_for
        if life < timedelta(seconds=1):
            raise _field(
                "valid_for", f"{life.total_seconds():g} s is no time.", "Ask for at least 1 s, or leave it out."
            )
        refuse_blank("text", order.text)
        await check_suspended(self._store, caller)
        actions = _actions(caller, order.proposals)
        digest = plan_digest(order.task_id, planner, order.text, actions)
        return await self._store.register_plan(
            NewPlan(
                tenant=caller.tenant,
                id=PLAN_PREFIX + self._rng.id(),
                request_id=order.request_id,
                request_digest=_said(order),
                task_id=order.task_id,
                planner=planner,
                text=order.text,
                actions=actions,
                digest=digest,
                created_at=caller.now,
                deadline=caller.now + life,
                max_plans=self._limits.plans_per_task,
            )
        )

    async def decide(self, caller: Caller, plan_id: str, digest: str, event: PlanEvent, reason: str) -> Plan:
        """Confirm or reject what ``digest`` names. A rejection says why."""
        validator = party(caller.agent)
        require_role(validator, caller.agent.roles, VALIDATOR)
        if event is PlanEvent.REJECT and blank(reason):
            raise _field("reason", "a rejection says why.", "The planner makes the next plan from it.")
        await check_suspended(self._store, caller)
        return await self._store.decide_plan(
            caller.tenant, plan_id, event, digest, validator, reason, self._clock.now()
        )

    async def get(self, caller: Caller, plan_id: str) -> Plan:
        """One plan of a task that the caller takes part in."""
        plan = await self._store.get_plan(caller.tenant, plan_id)
        task = await self._store.get_task(caller.tenant, plan.task_id)
        if caller.id not in task.participants:
            raise plan_not_found(plan_id)
        return plan

    async def of_task(self, caller: Caller, task_id: str) -> Sequence[Plan]:
        """The plans of a task that the caller takes part in, oldest first."""
        await participating(self._store, caller, task_id)
        return await self._store.task_plans(caller.tenant, task_id)


async def participating(store: Ledger, caller: Caller, task_id: str) -> None:
    """Raises NotFound (TASK_NOT_FOUND) for who has no part in the task, or where there is none, in the same words."""
    task = None
    with contextlib.suppress(NotFound):
        task = await store.get_task(caller.tenant, task_id)
    if task is None or caller.id not in task.participants:
        raise NotFound(
            Reason.TASK_NOT_FOUND,
            f"there is no task {task_id!a} that you have a part in.",
            hint="StartTask gives a task's id.",
            metadata={"taskId": task_id},
        )


def _actions(caller: Caller, proposals: Sequence[Proposal]) -> tuple[Action, ...]:
    """Each bound to its template in force: a plan cannot name what does not exist."""
    check_steps(proposal.step for proposal in proposals)
    return tuple(_action(caller, proposal) for proposal in proposals)


def _action(caller: Caller, proposal: Proposal) -> Action:
    template = caller.deploy.templates.get(proposal.template)
    if template is None:
        raise NotFound(
            Reason.TEMPLATE_NOT_FOUND,
            f"step {proposal.step!a}: there is no template {proposal.template!a}.",
            hint="ListTemplates (`broker templates`) shows what can be planned.",
            metadata={"template": proposal.template, "step": proposal.step},
        )
    try:
        scope = bind(_plannable(template), _as_request(proposal))
    except InvalidInput as error:
        raise InvalidInput(
            error.reason,
            f"step {proposal.step!a}: {error.message}",
            hint=error.hint,
            metadata={**error.metadata, "step": proposal.step},
        ) from None
    return Action(proposal.step, reach_of(scope, ttl=scope.ttl))


def _plannable(template: ScopeTemplate) -> ScopeTemplate:
    """Without what only its executor says (reasons, the values that its identity fills in) and what nobody plans."""
    return replace(template, mandatory=frozenset(), from_identity={}, grant={})


def _as_request(proposal: Proposal) -> AccessRequest:
    return AccessRequest(
        request_id="",
        template=proposal.template,
        task_id="",
        account=proposal.account,
        environment=proposal.environment,
        resource=proposal.resource,
        ttl=proposal.ttl,
        parameters=proposal.parameters,
        step=proposal.step,
    )


def _said(order: PlanOrder) -> str:
    """SHA-256 (hex) of everything said, for idempotency."""
    valid = None if order.valid_for is None else _microseconds(order.valid_for)
    said: list[JsonValue] = [
        [p.step, p.template, p.account, p.environment, p.resource, _microseconds(p.ttl), dict(p.parameters)]
        for p in order.proposals
    ]
    text = hashlib.sha256(order.text.encode()).hexdigest()
    return hashlib.sha256(canonical_json([order.request_id, order.task_id, text, valid, said])).hexdigest()


def _microseconds(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


def _field(name: str, what: str, hint: str) -> InvalidInput:
    return InvalidInput(Reason.FIELD_INVALID, f"{name}: {what}", hint=hint, metadata={"fields": name})
