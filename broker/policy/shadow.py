"""Shadow policies: what they *would* make of a request, beside the decision that stands. They decide nothing.

They lie in a folder of their own and are never part of the set that decides: that set is parsed without
them. What they come to has a type of its own, which nothing that grants or refuses takes, and its words all start
with WOULD. Whatever goes wrong with them is a verdict too, and no failure of the request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from broker.policy.cedar import PolicyProblem, PolicyProblems, PolicySet
from broker.policy.decision import Decision, Effect
from broker.policy.facts import RequestFacts
from broker.scope.canonical import JsonValue
from broker.scope.model import AccessClass


class Would(StrEnum):
    """What would be decided if the shadow policies were in force, too. No :class:`Effect`, on purpose."""

    WOULD_ALLOW = "WOULD_ALLOW"
    WOULD_DENY = "WOULD_DENY"
    WOULD_NEED_APPROVAL = "WOULD_NEED_APPROVAL"
    WOULD_FAIL = "WOULD_FAIL"  # an evaluation error: in force, it would deny


_WOULD = {
    Effect.ALLOW: Would.WOULD_ALLOW,
    Effect.DENY: Would.WOULD_DENY,
    Effect.NEEDS_APPROVAL: Would.WOULD_NEED_APPROVAL,
}


@dataclass(frozen=True, slots=True)
class ShadowVerdict:
    """What shadow policies would make of one request."""

    would: Would
    shadow_policies: tuple[str, ...]  # those of them that would decide it, or fail; empty: none of them would
    changes: bool  # whether it is another answer than the one that stands

    def told(self) -> dict[str, JsonValue]:
        """For the audit trail."""
        return {"would": self.would.value, "shadow_policies": list(self.shadow_policies)}


class ShadowPolicies:
    """The shadow policies of a deploy set. They can be asked what they would, and nothing else."""

    def __init__(self, together: PolicySet, ids: frozenset[str]) -> None:
        """Use :meth:`parse`."""
        self._together = together
        self.ids = ids
        self.statements = {name: together.statements[name] for name in ids}
        self.mentions = tuple(each for each in together.mentions if each.policy in ids)

    @classmethod
    def parse(cls, shadow: Mapping[str, str], enforced: Mapping[str, str], schema: str) -> ShadowPolicies:
        """The policies in ``shadow`` (file to text), seen together with those in force.

        Raises :class:`PolicyProblems` with what is wrong in ``shadow`` alone; that a policy has the id of one in force
        is wrong, too.
        """
        try:
            together = PolicySet.parse({**enforced, **shadow}, schema)
        except PolicyProblems as found:
            own: tuple[PolicyProblem, ...] = tuple(each for each in found.problems if each.file in shadow)
            raise PolicyProblems(own or found.problems) from None
        ids = frozenset(name for name, each in together.statements.items() if each.file in shadow)
        return cls(together, ids)

    def reads(self, access: AccessClass) -> frozenset[str]:
        """The circumstances that they, or those in force, look at of such a request."""
        return self._together.reads[access]

    def verdict(self, facts: RequestFacts, standing: Decision) -> ShadowVerdict:
        """What they would make of the request on which ``standing`` was decided. Never raises."""
        try:
            decision = self._together.decide(facts)
        except Exception:  # noqa: BLE001 - a request must not fail by what decides nothing
            return ShadowVerdict(Would.WOULD_FAIL, (), True)
        would = Would.WOULD_FAIL if decision.errors and not standing.errors else _WOULD[decision.effect]
        deciding = self.ids & frozenset(decision.policies)
        if decision.errors:
            deciding |= self._failing(decision.errors)
        # Other approvals than people are asked for now are another answer, too.
        another = (decision.effect, decision.approvals) != (standing.effect, standing.approvals)
        return ShadowVerdict(would, tuple(sorted(deciding)), another or would is Would.WOULD_FAIL)

    def _failing(self, errors: tuple[str, ...]) -> frozenset[str]:
        # The engine tells which policy failed in the text of its error alone.
        return frozenset(name for name in self.ids if any(f"policy `{name}`" in error for error in errors))
