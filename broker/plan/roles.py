"""Who may do what in a pipeline: three roles, and three different registry entries."""

from __future__ import annotations

from collections.abc import Collection

from broker.errors import Denied, Reason
from broker.identity.party import Party
from broker.plan.plan import Plan

PLANNER, VALIDATOR, EXECUTOR = "planner", "validator", "executor"


def require_role(party: Party, roles: Collection[str], role: str) -> None:
    """Raises :class:`Denied` (AGENT_ROLE_REQUIRED)."""
    if role in roles:
        return
    raise Denied(
        Reason.AGENT_ROLE_REQUIRED,
        f"{party.id} does not have the role {role}.",
        hint=f"An operator gives it in the agent's file: roles: [{role}].",
        metadata={"role": role, "principal": party.principal},
    )


def require_other(plan: Plan, party: Party, role: str) -> None:
    """``party`` is neither of those who planned and validated. Raises :class:`Denied` (PLAN_SAME_PRINCIPAL)."""
    for name, other in (("planned", plan.planner), ("validated", plan.validator)):
        if other is not None and party.is_same_as(other):
            raise Denied(
                Reason.PLAN_SAME_PRINCIPAL,
                f"{party.id} cannot be the {role} of plan {plan.id}: the registry entry {other.principal} {name} it.",
                hint="Planner, validator and executor are three different registry entries; workloads that one pattern"
                " matches are one entry.",
                metadata={"planId": plan.id, "principal": party.principal, "role": role},
            )
