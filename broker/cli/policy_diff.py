"""``broker policy diff``: which decisions of an audit trail a deploy set would make otherwise.

Belongs here: from audit records to decisions, the count of what cannot be made again, and how it is printed. How a
decision is made again is ``broker/policy/recorded.py``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import click

from broker.audit.event import EventType
from broker.audit.record import Record
from broker.errors import Reason
from broker.policy.decision import Effect
from broker.policy.recorded import Recorded, Unknown, differs, made_again
from broker.policy.trial import Outcome, Rules

_REFUSED = {
    Reason.POLICY_DENIED: Effect.DENY,
    Reason.POLICY_ERROR: Effect.DENY,
}
_BY_PEOPLE = "a person asked for it, by break-glass, and what they asked is not made again"
_NO_FACTS = "the record does not say what was asked (it is of an older release)"


@dataclass(frozen=True, slots=True)
class Change:
    """A decision that would be another one."""

    seq: int
    decision: Recorded
    outcome: Outcome

    @property
    def missing(self) -> list[str]:
        """The approvals that people were asked for."""
        return list(self.decision.facts.get("approvals", ())) if self.decision.effect is Effect.NEEDS_APPROVAL else []


@dataclass(slots=True)
class Comparison:
    """What came of a whole trail."""

    compared: int = 0
    changes: list[Change] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)  # why, and how often


def compared(records: Iterable[Record], rules: Rules) -> Comparison:
    """Every decision of ``records`` made again under ``rules``."""
    result = Comparison()
    for record in records:
        for decision in _decisions(record, result):
            try:
                outcome = made_again(decision, rules)
            except Unknown as why:
                result.unknown[str(why)] += 1
                continue
            result.compared += 1
            if differs(decision, outcome):
                result.changes.append(Change(record.seq, decision, outcome))
    return result


def _decisions(record: Record, result: Comparison) -> Iterator[Recorded]:
    """The decision that ``record`` tells of, if any; what can only be counted goes to ``result``."""
    data: Any = record.data
    effect: Effect | None = None
    if record.type == EventType.LEASE_INTENT:
        effect = Effect.ALLOW
    elif record.type == EventType.ACCESS_REQUESTED:
        effect = Effect.NEEDS_APPROVAL
    elif record.type == EventType.REQUEST_REFUSED:
        effect = _REFUSED.get(data.get("reason"))
    elif record.type == EventType.REFUSALS_SUMMARISED:
        folded = sum(count for reason, count in data["counts"].items() if reason in _REFUSED)
        result.unknown.update({"refusals beyond an agent's budget are only counted": folded} if folded else {})
    if effect is None:
        return
    if "decided_on" not in data:
        result.unknown[_NO_FACTS if record.actor.startswith("spiffe://") else _BY_PEOPLE] += 1
        return
    facts = {**data, **data["decided_on"]}
    at = datetime.fromtimestamp(record.at_ms / 1000, UTC)
    # An intent has them by themselves, a refusal as its caller was told them.
    policies = facts.get("policies") or filter(None, facts.get("metadata", {}).get("policies", "").split(","))
    yield Recorded(record.actor, at, effect, tuple(policies), facts)


def print_text(result: Comparison, where: str) -> None:
    """A line for each change, then the sums."""
    for each in result.changes:
        facts, outcome = each.decision.facts, each.outcome
        reason = f" {outcome.reason.value}" if outcome.reason else ""
        click.echo(
            f"{each.seq}  {each.decision.at.isoformat()}  {each.decision.agent}  {facts['template']}"
            f" {facts['environment']}: {_by(each.decision.effect.value + _of(each.missing), each.decision.policies)}"
            f" -> {_by(f'{outcome.effect.value}{reason}{_of(outcome.approvals)}', outcome.policies)}"
        )
    for why, count in sorted(result.unknown.items()):
        click.echo(f"{count} cannot be made again: {why}")
    click.echo(f"{result.compared} recorded decisions, {len(result.changes)} would be others under {where}")


def _of(approvals: Collection[str]) -> str:
    return f" of {', '.join(approvals)}" if approvals else ""


def _by(told: str, policies: Iterable[str]) -> str:
    return f"{told} by {', '.join(policies) or 'no policy'}"


def print_json(result: Comparison) -> None:
    """The same, for programs."""
    changes = [
        {
            "sequence": each.seq,
            "time": each.decision.at.isoformat(),
            "agent": each.decision.agent,
            "template": each.decision.facts["template"],
            "environment": each.decision.facts["environment"],
            "before": {
                "effect": each.decision.effect.value,
                "policies": list(each.decision.policies),
                "approvals": each.missing,
            },
            "after": {
                "effect": each.outcome.effect.value,
                "reason": each.outcome.reason and each.outcome.reason.value,
                "policies": list(each.outcome.policies),
                "approvals": list(each.outcome.approvals),
            },
        }
        for each in result.changes
    ]
    told = {"compared": result.compared, "changes": changes, "cannotBeMadeAgain": dict(sorted(result.unknown.items()))}
    click.echo(json.dumps(told, indent=2, ensure_ascii=False))
