"""Decisions that were made and recorded, made again under other rules: what would a new set have said?

Belongs here: what of a decision's facts must be recorded for that (:func:`known`), and from such a record back to
a request that can be tried. What a record does not say is not guessed: the decision is then told as one
that cannot be made again. Does not belong here: where records are kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from broker.errors import BrokerError
from broker.identity.agent import TO_PEOPLE, Delivery, Registry
from broker.policy.decision import Effect
from broker.policy.facts import Situation, with_groups
from broker.policy.trial import Outcome, Rules, Supposed, Trial, found, tried
from broker.scope.canonical import JsonValue
from broker.scope.request import AccessRequest

_TEXTS = ("template", "account", "environment", "resource")
_CLAIMS = ("step", "intent", "reason", "ticket")
# Recorded by digest only, because policies see no more of them than whether they were there.
_PRESENT = ("prompt", "tool_call", "plan")
_SAID = "recorded by its digest"
_KEY = b"\x01" * 32
# Circumstances that come from the situation, and the field of it that each is told by.
_SITUATION: Mapping[str, str] = {
    **{name: name for name in ("task_type", "approvals", "plan", "delegators", "on_behalf_of")},
    **{name: name for name in ("active_grants", "active_count", "pending_count")},
    "delegated": "delegators",
    "delegation_depth": "delegators",
}


@dataclass(frozen=True, slots=True)
class Recorded:
    """One decision as the audit trail has it. ``facts`` are the data of its record, JSON."""

    agent: str  # the SPIFFE ID that asked
    at: datetime
    effect: Effect
    policies: tuple[str, ...]
    facts: Mapping[str, Any]


class Unknown(Exception):
    """The record does not say what the new rules want to know."""


def known(situation: Situation, looked_at: Iterable[str]) -> dict[str, JsonValue]:
    """Of ``situation``, what was established for policies that look at the circumstances ``looked_at``, as JSON."""
    return {
        field: _json(getattr(situation, field))
        for field in sorted({_SITUATION[n] for n in looked_at if n in _SITUATION})
    }


def _json(value: Any) -> JsonValue:
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return list(value)
    return value if value is None or isinstance(value, (str, int)) else f"{value.issuer}#{value.subject}"


def made_again(decision: Recorded, rules: Rules, present: Mapping[str, Any] | None = None) -> Outcome:
    """What ``rules`` say to the same request. Raises :class:`Unknown` where the record does not say enough.

    ``present``: fields of the situation as they are now, in the form of :func:`known`, for what nobody looked at then.
    """
    facts = decision.facts
    if facts.get("delivery") == TO_PEOPLE:
        raise Unknown("it was granted by break-glass, which passes over what policy asks of people")
    try:
        template = rules.templates.get(facts["template"])
        looked_at = rules.policies.reads[template.access] if template else frozenset[str]()
        from_identity = template.from_identity.keys() if template else ()
        said: dict[str, Any] = {name: _SAID for name in _PRESENT if facts.get(f"{name}_sha256")}
        request = AccessRequest(
            request_id="recorded",
            task_id="recorded",
            ttl=timedelta(milliseconds=facts["ttl_ms"]),
            parameters={name: value for name, value in facts["parameters"].items() if name not in from_identity},
            recipient_public_key=_KEY if facts["sealed"] else b"",
            **{name: facts[name] for name in _TEXTS},
            **{name: facts.get(name, "") for name in _CLAIMS},
            **said,
        )
        situation = {**(present or {}), **facts["situation"]}
        supposed = _situation(situation, looked_at, facts.get("on_behalf_of"))
        if "tool_call" in said or "tool" in facts:
            supposed = replace(supposed, tool=_tool(facts, decision.agent, rules.registry))
        trial = Trial(decision.agent, request, decision.at, Delivery(facts["delivery"]), supposed)
    except KeyError as missing:
        raise Unknown(f"the record does not say {missing.args[0]}") from None
    return tried(trial, rules)


def _tool(facts: Mapping[str, Any], agent: str, registry: Registry) -> str:
    """Which one was called. It was recorded where there was an allow list then; where there is one now, it must be."""
    with contextlib.suppress(BrokerError):  # who is not registered is refused for that
        if "tool" not in facts and found(agent, registry).tools:
            raise Unknown("the record does not say which tool was called")
    return str(facts.get("tool", ""))


def _situation(recorded: Mapping[str, Any], looked_at: Collection[str], human: str | None) -> Supposed:
    """``human``: whom the task acts for, which is recorded whether or not a policy looks at it."""
    fields = {_SITUATION[name] for name in looked_at if name in _SITUATION}
    # Nobody but people adds approvals to a request, so a decision made without looking at them was made without any.
    said = {"approvals": [], **recorded}
    values = {field: said[field] for field in fields}
    behind = values.pop("on_behalf_of", None) or human
    for field, kind in (("approvals", frozenset), ("active_grants", with_groups), ("delegators", tuple)):
        if field in values:
            values[field] = kind(values[field])
    return Supposed(situation=Situation(**values), on_behalf_of=behind or "")


def differs(decision: Recorded, outcome: Outcome) -> bool:
    """Whether it is another answer: other people who would have to be asked are one."""
    if outcome.effect is not Effect.NEEDS_APPROVAL or decision.effect is not Effect.NEEDS_APPROVAL:
        return outcome.effect is not decision.effect
    return set(outcome.approvals) != set(decision.facts.get("approvals", outcome.approvals))
