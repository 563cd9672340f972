"""The SDK's calls for plans and delegations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from broker.api.v1 import delegation_pb2, plan_pb2
from broker.client import read
from broker.client.calls import READ_SECONDS, Calls
from broker.client.model import Delegation, Plan, PlannedAction
from broker.client.spans import to_duration
from broker.errors import Reason


class PipelineCalls:
    """What planners, validators, executors and delegators do; :class:`broker.client.AsyncClient` is one of these."""

    calls: Calls
    new_id: Callable[[], str]

    # ------------------------------------------------------------------ plans

    async def register_plan(
        self,
        task_id: str,
        text: str,
        actions: Sequence[PlannedAction],
        *,
        valid_for: timedelta | str | None = None,
        request_id: str = "",
    ) -> Plan:
        """Say what is to be done under a task that we take part in: in words, and as what each step is to get at most.

        The words are kept, and whoever takes part in the task reads them: no secrets. Needs the role planner.
        """
        request = plan_pb2.RegisterPlanRequest(
            request_id=request_id or self.new_id(),
            task_id=task_id,
            text=text,
            actions=[_action(each) for each in actions],
            valid_for=None if valid_for is None else to_duration(valid_for, "valid_for"),
        )
        return read.read(Plan, await self.calls.unary("RegisterPlan", request, READ_SECONDS))

    async def validate_plan(self, plan: Plan, *, confirm: bool, reason: str = "") -> Plan:
        """Confirm or reject ``plan`` as we have read it: its digest is what we decide about. Needs the role validator.

        A rejection gives a ``reason``.
        """
        verdicts = plan_pb2.ValidatePlanRequest
        request = plan_pb2.ValidatePlanRequest(
            plan_id=plan.id,
            digest=plan.digest,
            verdict=verdicts.VERDICT_CONFIRM if confirm else verdicts.VERDICT_REJECT,
            reason=reason,
            request_id=self.new_id(),
        )
        return read.read(Plan, await self.calls.unary("ValidatePlan", request, READ_SECONDS))

    async def plan(self, plan_id: str) -> Plan:
        """A plan of a task that we take part in."""
        request = plan_pb2.GetPlanRequest(plan_id=plan_id)
        return read.read(Plan, await self.calls.unary("GetPlan", request, READ_SECONDS))

    async def plans(self, task_id: str) -> tuple[Plan, ...]:
        """The plans of a task that we take part in, oldest first."""
        answer = await self.calls.unary("ListPlans", plan_pb2.ListPlansRequest(task_id=task_id), READ_SECONDS)
        return tuple(read.read(Plan, each) for each in answer.plans)

    # ------------------------------------------------------------------ delegations

    async def delegate(
        self,
        lease_id: str,
        to: str,
        *,
        resource: str = "",
        parameters: Mapping[str, str] | None = None,
        ttl: timedelta | str | None = None,
        further: int = 0,
        request_id: str = "",
    ) -> Delegation:
        """Hand a part of a live lease of ours to the agent ``to`` (a SPIFFE ID), which redeems it once by its id.

        What is left out is as the lease has it; nothing can be wider or longer. It ends with the lease, and when we
        take it back (:meth:`revoke_delegation`).
        """
        request = delegation_pb2.DelegateLeaseRequest(
            request_id=request_id or self.new_id(),
            lease_id=lease_id,
            delegate=to,
            resource=resource,
            parameters=parameters or {},
            ttl=None if ttl is None else to_duration(ttl, "ttl", Reason.TTL_INVALID),
            further=further,
        )
        return read.read(Delegation, await self.calls.unary("DelegateLease", request, READ_SECONDS))

    async def revoke_delegation(self, delegation_id: str) -> Delegation:
        """Take back what we, or somebody we handed it to, handed on; what was issued by it ends now."""
        request = delegation_pb2.RevokeDelegationRequest(delegation_id=delegation_id, request_id=self.new_id())
        return read.read(Delegation, await self.calls.unary("RevokeDelegation", request, READ_SECONDS))

    async def delegations(self, task_id: str) -> tuple[Delegation, ...]:
        """What we gave and were given on a task, oldest first."""
        request = delegation_pb2.ListDelegationsRequest(task_id=task_id)
        answer = await self.calls.unary("ListDelegations", request, READ_SECONDS)
        return tuple(read.read(Delegation, each) for each in answer.delegations)


def _action(action: PlannedAction) -> plan_pb2.PlannedAction:
    return plan_pb2.PlannedAction(
        step=action.step,
        template=action.template,
        account=action.account,
        environment=action.environment,
        resource=action.resource,
        parameters=action.parameters,
        ttl=None if action.ttl is None else to_duration(action.ttl, "ttl", Reason.TTL_INVALID),
    )
