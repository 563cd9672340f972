"""Plans and delegations between the wire's messages and the inside's values; nothing is decided here."""

from __future__ import annotations

from datetime import datetime

from broker.api.convert import duration, optional, timestamp, to_duration
from broker.api.v1 import delegation_pb2, plan_pb2
from broker.delegation.delegation import Delegation
from broker.errors import InvalidInput, Reason
from broker.issuance.delegations import DelegationOrder
from broker.issuance.plans import PlanOrder, Proposal
from broker.plan.machine import PlanEvent
from broker.plan.plan import Action, Plan

VERDICTS = {
    plan_pb2.ValidatePlanRequest.VERDICT_CONFIRM: PlanEvent.CONFIRM,
    plan_pb2.ValidatePlanRequest.VERDICT_REJECT: PlanEvent.REJECT,
}


def plan_order(message: plan_pb2.RegisterPlanRequest) -> PlanOrder:
    """What a planner said."""
    return PlanOrder(
        request_id=message.request_id,
        task_id=message.task_id,
        text=message.text,
        proposals=tuple(_proposal(each) for each in message.actions),
        valid_for=duration(message.valid_for, "valid_for") if message.HasField("valid_for") else None,
    )


def _proposal(message: plan_pb2.PlannedAction) -> Proposal:
    if not message.HasField("ttl"):
        raise InvalidInput(
            Reason.TTL_INVALID,
            f"step {message.step!a}: ttl is missing; there is no default.",
            hint="Say for how long the step needs the credential, at most the template's max_ttl.",
            metadata={"field": "ttl", "step": message.step},
        )
    return Proposal(
        step=message.step,
        template=message.template,
        account=message.account,
        environment=message.environment,
        resource=message.resource,
        ttl=duration(message.ttl, "ttl", Reason.TTL_INVALID),
        parameters=dict(message.parameters),
    )


def plan(value: Plan, now: datetime) -> plan_pb2.Plan:
    """A plan as a message, in the state that it has at ``now``."""
    return plan_pb2.Plan(
        id=value.id,
        task_id=value.task_id,
        planner=value.planner.id,
        planner_principal=value.planner.principal,
        text=value.text,
        actions=[_action(each) for each in value.actions],
        digest=value.digest,
        state=f"STATE_{value.at(now)}",
        create_time=timestamp(value.created_at),
        deadline=timestamp(value.deadline),
        validator=value.validator.id if value.validator else "",
        validator_principal=value.validator.principal if value.validator else "",
        reason=value.reason,
        decide_time=optional(value.decided_at),
    )


def _action(value: Action) -> plan_pb2.PlannedAction:
    reach = value.reach
    return plan_pb2.PlannedAction(
        step=value.step,
        template=reach.template,
        account=reach.account,
        environment=reach.environment,
        resource=reach.resource,
        parameters=reach.parameters,
        ttl=None if reach.ttl is None else to_duration(reach.ttl),
        template_digest=reach.template_digest,
        access=reach.access,
        permitted=sorted(reach.actions),
    )


def delegation_order(message: delegation_pb2.DelegateLeaseRequest) -> DelegationOrder:
    """What a holder said."""
    return DelegationOrder(
        request_id=message.request_id,
        lease_id=message.lease_id,
        delegate=message.delegate,
        resource=message.resource,
        parameters=dict(message.parameters),
        ttl=duration(message.ttl, "ttl", Reason.TTL_INVALID) if message.HasField("ttl") else None,
        further=message.further,
    )


def delegation(value: Delegation) -> delegation_pb2.Delegation:
    """A delegation as a message."""
    return delegation_pb2.Delegation(
        id=value.id,
        task_id=value.task_id,
        lease_id=value.lease_id,
        chain=[each.id for each in value.chain],
        delegate=value.delegate.id,
        resource=value.resource,
        parameters=value.parameters,
        further=value.further,
        create_time=timestamp(value.created_at),
        expire_time=timestamp(value.expires_at),
        revoke_time=optional(value.revoked_at),
    )
