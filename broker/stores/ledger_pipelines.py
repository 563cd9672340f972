"""The pipelines' half of the ledger. The contract is :class:`broker.ports.pipelines.PipelineStore`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from broker.delegation.delegation import Delegation
from broker.identity.party import Party
from broker.plan.machine import PlanEvent
from broker.plan.plan import Plan
from broker.ports.leases import Lease
from broker.ports.pipelines import NewDelegation, NewPlan
from broker.stores import delegation_ops, plan_ops
from broker.stores.group_commit import GroupCommit
from broker.stores.origins import with_origin
from broker.stores.reading import Reading
from broker.stores.rows import lease_of
from broker.stores.view import View


class LedgerPipelines:
    """What :class:`broker.stores.ledger.LedgerStore` does for pipelines."""

    _writer: GroupCommit
    _readers: Reading

    async def register_plan(self, new: NewPlan) -> Plan:
        """See PipelineStore.register_plan."""
        return await self._writer.submit(lambda tx: plan_ops.register(tx, new))

    async def decide_plan(
        self, tenant: str, plan_id: str, event: PlanEvent, digest: str, validator: Party, reason: str, now: datetime
    ) -> Plan:
        """See PipelineStore.decide_plan."""
        return await self._writer.submit(
            lambda tx: plan_ops.decide(tx, tenant, plan_id, event, digest, validator, reason, now)
        )

    async def get_plan(self, tenant: str, plan_id: str) -> Plan:
        """See PipelineStore.get_plan."""
        return await self._readers.point(lambda view: plan_ops.find(view, tenant, plan_id))

    async def task_plans(self, tenant: str, task_id: str) -> Sequence[Plan]:
        """See PipelineStore.task_plans."""
        return await self._readers.scan(lambda view: plan_ops.of_task(view, tenant, task_id))

    async def delegate(self, new: NewDelegation) -> Delegation:
        """See PipelineStore.delegate."""
        return await self._writer.submit(lambda tx: delegation_ops.delegate(tx, new))

    async def revoke_delegation(self, tenant: str, delegation_id: str, delegator: str, now: datetime) -> Delegation:
        """See PipelineStore.revoke_delegation."""
        return await self._writer.submit(lambda tx: delegation_ops.revoke(tx, tenant, delegation_id, delegator, now))

    async def redeemable(
        self, tenant: str, delegation_id: str, delegate: Party, now: datetime
    ) -> tuple[Delegation, Lease]:
        """See PipelineStore.redeemable."""

        def find(view: View) -> tuple[Delegation, Lease]:
            made, parent = delegation_ops.redeemable(view, tenant, delegation_id, delegate, now)
            return made, with_origin(view, lease_of(parent))

        return await self._readers.point(find)

    async def task_delegations(self, tenant: str, task_id: str, agent: str) -> Sequence[Delegation]:
        """See PipelineStore.task_delegations."""
        return await self._readers.scan(lambda view: delegation_ops.of_task(view, tenant, task_id, agent))
