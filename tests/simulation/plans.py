"""What a plan lets happen, as the trail tells it and the upstream has it: what was confirmed, once, and no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from broker.scope.model import Scope
from tests.simulation.broken import Broken

# In these what is executed is what was planned, to the letter.
_THE_SAME = ("template", "template_digest", "connector", "account", "environment", "resource", "access", "parameters")


@dataclass
class Planned:
    """One plan. ``actions``: by step, as it was registered."""

    task: str
    planner: str
    deadline_ms: int
    actions: dict[str, dict[str, Any]]
    validator: str = ""
    confirmed: bool = False


@dataclass
class Plans:
    """What one ledger has told of them."""

    executors: frozenset[str] = frozenset()  # SPIFFE IDs
    plans: dict[str, Planned] = field(default_factory=dict)
    leases: dict[str, tuple[str, str]] = field(default_factory=dict)  # by lease, the plan and step it was granted by
    of_step: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)  # leases whose delivery was confirmed
    unused: dict[str, tuple[str, str]] = field(default_factory=dict)  # intended, and the step not used up yet

    def copy(self) -> Plans:
        """That nothing changes any more."""
        return Plans(
            self.executors,
            {name: replace(plan) for name, plan in self.plans.items()},
            dict(self.leases),
            {step: list(leases) for step, leases in self.of_step.items()},
            set(self.kept),
            dict(self.unused),
        )

    def take(self, record: dict[str, Any], told: Counter[str], is_over: Callable[[str], bool]) -> None:
        """A record about a plan. ``is_over``: whether all that a lease ever had has ended. Raises Broken."""
        kind, data = record["type"], record["data"]
        if kind == "plan.registered":
            actions = {action["step"]: action for action in data["actions"]}
            self.plans[data["plan_id"]] = Planned(record["task_id"], record["actor"], data["deadline_ms"], actions)
        elif kind in ("plan.confirmed", "plan.rejected"):
            self._decided(record)
        elif kind == "delivery.confirmed":
            self.kept.add(record["lease_id"])
        elif kind == "plan.step_used":
            self._used(data["plan_id"], data["step"], data["used_for"], told, is_over)

    def _decided(self, record: dict[str, Any]) -> None:
        name = record["data"]["plan_id"]
        plan = self.plans[name]
        if plan.validator or record["at_ms"] >= plan.deadline_ms:
            raise Broken(f"R9: {name} is decided about again, or after its time")
        if record["actor"] == plan.planner:
            raise Broken(f"R9: {name} is decided about by who made it")
        plan.validator, plan.confirmed = record["actor"], record["type"] == "plan.confirmed"

    def intended(self, record: dict[str, Any]) -> None:
        """An attempt that cites a plan: the first of its lease, or a retry. Raises Broken."""
        data, holder, lease = record["data"], record["holder"], record["lease_id"]
        name, step, plan = data["plan_id"], data["step"], self.plans[data["plan_id"]]
        if not plan.confirmed:
            raise Broken(f"R9: {lease} is by {name}, which nobody has confirmed")
        if record["at_ms"] >= plan.deadline_ms:
            raise Broken(f"R9: {lease} is by {name}, whose time was over")
        if holder in (plan.planner, plan.validator) or holder not in self.executors:
            raise Broken(f"R9: {lease} is of {holder}, who planned or validated {name}, or is no executor")
        action = plan.actions.get(step)
        if action is None or record["task_id"] != plan.task:
            raise Broken(f"R9: {lease} is by {step} of {name}, where there is no such step, or of another task")
        ttl_ms = data["expires_ms"] - record["at_ms"]
        wider = [each for each in _THE_SAME if data[each] != action[each]]
        if wider or not set(data["actions"]) <= set(action["actions"]) or ttl_ms > action["ttl_us"] // 1000:
            raise Broken(f"R9: {lease} is wider or longer than {step} of {name}: {wider}, {ttl_ms} ms")
        if lease not in self.leases:
            self.unused[lease] = (name, step)

    def _used(self, plan: str, step: str, lease: str, told: Counter[str], is_over: Callable[[str], bool]) -> None:
        if self.unused.pop(lease, None) != (plan, step):
            raise Broken(f"R9: {step} of {plan} is used up for {lease}, which is of something else")
        earlier = self.of_step.setdefault((plan, step), [])
        if twice := [each for each in earlier if each in self.kept or not is_over(each)]:
            raise Broken(f"R9: {step} of {plan} is executed by {lease}, and was by {twice}")
        told["a step executed"] += 1
        told["a step executed again, whose credential nobody had"] += bool(earlier)
        earlier.append(lease)
        self.leases[lease] = (plan, step)

    def handed_on(self, record: dict[str, Any]) -> None:
        """A part of a lease was handed on: what was got by a plan stays apart from who made it. Raises Broken."""
        granted_by = self.leases.get(record["data"]["part_of"])
        if granted_by is not None:
            plan = self.plans[granted_by[0]]
            if record["actor"] in (plan.planner, plan.validator) or record["actor"] not in self.executors:
                raise Broken(f"R9: a part of what {granted_by} gave is {record['actor']}'s, who is no executor of it")

    def look(self) -> None:
        """Between two commits: what was intended by a plan has used a step up. Raises Broken."""
        if self.unused:
            raise Broken(f"R9: by these no step was used up: {self.unused}")

    def made(self, lease: str, scope: Scope) -> None:
        """The upstream makes a credential of a lease, of this scope. Raises Broken."""
        if lease not in self.leases:
            return
        name, step = self.leases[lease]
        action = self.plans[name].actions[step]
        same = all(getattr(scope, each) == action[each] for each in ("template", "account", "environment", "resource"))
        if not same or not set(scope.actions) <= set(action["actions"]):
            raise Broken(f"R9: {lease} is made upstream with more than {step} of {name} says: {scope}")
