"""A plan: a text for people, and the actions it proposes as typed scopes, named together by one digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.identity.party import Party
from broker.plan.machine import PlanState, standing
from broker.scope.canonical import JsonValue, canonical_json
from broker.scope.containment import Reach

_FORM = "jit-broker plan 1"


@dataclass(frozen=True, slots=True)
class Action:
    """What one step is to get at most. Every value has passed its template when the plan was registered."""

    step: str  # unique in its plan
    reach: Reach  # bounded by ``ttl``; what the executor's own identity fills in is not in it

    def canonical(self) -> Mapping[str, JsonValue]:
        """Everything it says, as what is digested and stored."""
        reach = self.reach
        return {
            "step": self.step,
            "template": reach.template,
            "template_digest": reach.template_digest,
            "connector": reach.connector,
            "account": reach.account,
            "environment": reach.environment,
            "resource": reach.resource,
            "access": reach.access,
            "actions": sorted(reach.actions),
            "parameters": dict(reach.parameters),
            "ttl_us": None if reach.ttl is None else reach.ttl // timedelta(microseconds=1),
        }


def action_of(stored: Mapping[str, JsonValue]) -> Action:
    """The action that :meth:`Action.canonical` wrote. Raises KeyError, TypeError or ValueError for anything else."""
    actions, parameters, ttl = stored["actions"], stored["parameters"], stored["ttl_us"]
    if not isinstance(actions, list) or not isinstance(parameters, dict) or not isinstance(ttl, int):
        raise TypeError("an action lists its actions and parameters, and has a ttl")
    reach = Reach(
        template=str(stored["template"]),
        template_digest=str(stored["template_digest"]),
        connector=str(stored["connector"]),
        account=str(stored["account"]),
        environment=str(stored["environment"]),
        resource=str(stored["resource"]),
        access=str(stored["access"]),
        actions=frozenset(map(str, actions)),
        parameters={name: str(value) for name, value in parameters.items()},
        ttl=timedelta(microseconds=ttl),
    )
    return Action(str(stored["step"]), reach)


def plan_digest(task_id: str, planner: Party, text: str, actions: Sequence[Action]) -> str:
    """SHA-256 (hex) over the canonical bytes of everything a plan says: whose it is, its text, its actions in order.

    The text counts byte for byte (its own digest enters, so that no text can pass for other fields); the actions
    count as typed values, so that however a message spelled them, one meaning has one digest.
    """
    said: JsonValue = {
        "form": _FORM,
        "task_id": task_id,
        "planner": planner.id,
        "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "actions": [action.canonical() for action in actions],
    }
    return hashlib.sha256(canonical_json(said)).hexdigest()


@dataclass(frozen=True, slots=True)
class Plan:
    """One plan as the ledger has it. ``state`` is what was decided; see :meth:`at` for what is true now."""

    tenant: str
    id: str
    task_id: str
    planner: Party
    text: str
    actions: tuple[Action, ...]
    digest: str
    created_at: datetime
    deadline: datetime
    state: PlanState
    validator: Party | None = None
    reason: str = ""  # the validator's
    decided_at: datetime | None = None

    def at(self, now: datetime) -> PlanState:
        """Where it stands at ``now``."""
        return standing(self.state, self.deadline, now)

    def action(self, step: str) -> Action | None:
        """What it proposes for ``step``."""
        return next((action for action in self.actions if action.step == step), None)
