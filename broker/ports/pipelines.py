"""Plans and delegations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from broker.delegation.delegation import Delegation
from broker.identity.party import Party
from broker.plan.machine import PlanEvent
from broker.plan.plan import Action, Plan
from broker.ports.leases import Lease
from broker.ports.tasks import TaskLimits
from broker.scope.narrowing import Narrowings


@dataclass(frozen=True, slots=True)
class NewPlan:
    """What is needed to register a plan; id, times and digest were chosen by the caller."""

    tenant: str
    id: str
    request_id: str  # same (planner, request_id): the same plan; other content: Conflict
    request_digest: str
    task_id: str
    planner: Party
    text: str
    actions: tuple[Action, ...]
    digest: str
    created_at: datetime
    deadline: datetime  # at most the task's, whatever stands here
    max_plans: int  # of this task


@dataclass(frozen=True, slots=True)
class NewDelegation:
    """What is needed to hand on a part of a lease; id and time were chosen by the caller."""

    tenant: str
    id: str
    request_id: str  # same (delegator, request_id): the same delegation; other content: Conflict
    request_digest: str
    lease_id: str
    delegator: Party
    delegate: Party
    template_digest: str  # of the template in force, which ``compared`` is of
    resource: str
    parameters: Mapping[str, str]
    further: int
    compared: Narrowings
    created_at: datetime
    expires_at: datetime | None  # None: when the lease does
    limits: TaskLimits


class PipelineStore(Protocol):
    """Plans and delegations: in one database with, and by the same rules as, :class:`LeaseStore`.

    What an intent cites is checked in its transaction, and consumed by it. A plan: of the intent's task (NotFound
    PLAN_NOT_FOUND), confirmed and within its deadline (WrongState PLAN_NOT_CONFIRMED, PLAN_REJECTED, PLAN_LAPSED),
    with such a step (InvalidInput PLAN_STEP_UNKNOWN) that covers the request (Denied PLAN_EXCEEDED) and that nobody
    has used (WrongState PLAN_STEP_USED), by an executor (Denied AGENT_ROLE_REQUIRED) who neither planned nor validated
    it (Denied PLAN_SAME_PRINCIPAL). A delegation: given to the holder on this task (NotFound DELEGATION_NOT_FOUND),
    its lease alive and itself not over (WrongState DELEGATION_ENDED), covering the request (Denied
    DELEGATION_EXCEEDED), not used (WrongState DELEGATION_USED); what the lease got by a plan stays bound to that plan's
    separation of duties. Used is what a lease was opened for, unless that ended without its agent ever having had the
    credential.

    When the credential of a lease is ended, for whatever cause, the leases that are parts of it are ended in the same
    transaction (PARENT_ENDED), and theirs.
    """

    # -- plans
    async def register_plan(self, new: NewPlan) -> Plan:
        """Keep a plan. NotFound (TASK_NOT_FOUND) where the planner has no part, WrongState (TASK_ENDED), Exhausted."""
        ...

    async def decide_plan(
        self, tenant: str, plan_id: str, event: PlanEvent, digest: str, validator: Party, reason: str, now: datetime
    ) -> Plan:
        """CONFIRM or REJECT exactly what ``digest`` names. Exactly one decision stands; repeating it is harmless.

        Raises NotFound (PLAN_NOT_FOUND) for whoever has no part in its task, InvalidInput (PLAN_DIGEST_MISMATCH),
        Denied (PLAN_SAME_PRINCIPAL), WrongState (PLAN_DECIDED, PLAN_LAPSED, TASK_ENDED).
        """
        ...

    async def get_plan(self, tenant: str, plan_id: str) -> Plan:
        """Raises NotFound (PLAN_NOT_FOUND)."""
        ...

    async def task_plans(self, tenant: str, task_id: str) -> Sequence[Plan]:
        """The plans of a task, oldest first."""
        ...

    # -- delegations
    async def delegate(self, new: NewDelegation) -> Delegation:
        """Hand on a part of a live lease.

        Raises NotFound (LEASE_NOT_FOUND) for another's lease, WrongState (LEASE_ENDED, TASK_ENDED), Denied
        (DELEGATE_NOT_PARTICIPANT, DELEGATION_TOO_DEEP, DELEGATION_EXCEEDED, PLAN_SAME_PRINCIPAL), InvalidInput
        (DELEGATION_CIRCULAR), Exhausted (LIMIT_DELEGATIONS).
        """
        ...

    async def revoke_delegation(self, tenant: str, delegation_id: str, delegator: str, now: datetime) -> Delegation:
        """Take it back, and end what was issued by it; for whoever is in its chain. Repeating it is harmless."""
        ...

    async def redeemable(
        self, tenant: str, delegation_id: str, delegate: Party, now: datetime
    ) -> tuple[Delegation, Lease]:
        """A delegation that ``delegate`` could redeem now, and the live lease it is a part of."""
        ...

    async def task_delegations(self, tenant: str, task_id: str, agent: str) -> Sequence[Delegation]:
        """The delegations of a task that ``agent`` gave, or was given, oldest first."""
        ...
