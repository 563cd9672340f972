"""The RPCs of pipelines: each a translation to one call of the inside and back."""

from __future__ import annotations

from typing import Any

from broker.api import convert_pipelines as convert
from broker.api.v1 import delegation_pb2, plan_pb2
from broker.issuance.caller import Caller
from broker.issuance.delegations import DelegationDesk
from broker.issuance.plans import PlanDesk


class PipelineRpcs:
    """Plans and delegations. :class:`broker.api.agents.AgentService` is one of these."""

    def __init__(self, plans: PlanDesk, delegations: DelegationDesk) -> None:
        self._plans = plans
        self._delegations = delegations

    async def RegisterPlan(self, request: plan_pb2.RegisterPlanRequest, caller: Caller, context: Any) -> plan_pb2.Plan:
        """A new plan, or the one this request id registered."""
        return convert.plan(await self._plans.register(caller, convert.plan_order(request)), caller.now)

    async def ValidatePlan(self, request: plan_pb2.ValidatePlanRequest, caller: Caller, context: Any) -> plan_pb2.Plan:
        """Confirm or reject one exact plan."""
        event = convert.VERDICTS[request.verdict]
        plan = await self._plans.decide(caller, request.plan_id, request.digest, event, request.reason)
        return convert.plan(plan, caller.now)

    async def GetPlan(self, request: plan_pb2.GetPlanRequest, caller: Caller, context: Any) -> plan_pb2.Plan:
        """One plan."""
        return convert.plan(await self._plans.get(caller, request.plan_id), caller.now)

    async def ListPlans(
        self, request: plan_pb2.ListPlansRequest, caller: Caller, context: Any
    ) -> plan_pb2.ListPlansResponse:
        """The plans of a task."""
        plans = await self._plans.of_task(caller, request.task_id)
        return plan_pb2.ListPlansResponse(plans=[convert.plan(each, caller.now) for each in plans])

    async def DelegateLease(
        self, request: delegation_pb2.DelegateLeaseRequest, caller: Caller, context: Any
    ) -> delegation_pb2.Delegation:
        """Hand on a part of a lease."""
        return convert.delegation(await self._delegations.delegate(caller, convert.delegation_order(request)))

    async def RevokeDelegation(
        self, request: delegation_pb2.RevokeDelegationRequest, caller: Caller, context: Any
    ) -> delegation_pb2.Delegation:
        """Take it back."""
        return convert.delegation(await self._delegations.revoke(caller, request.delegation_id))

    async def ListDelegations(
        self, request: delegation_pb2.ListDelegationsRequest, caller: Caller, context: Any
    ) -> delegation_pb2.ListDelegationsResponse:
        """What the caller gave and was given on a task."""
        found = await self._delegations.of_task(caller, request.task_id)
        return delegation_pb2.ListDelegationsResponse(delegations=[convert.delegation(each) for each in found])
