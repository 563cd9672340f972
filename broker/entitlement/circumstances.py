"""Circumstances under which a request is tried: the widest answer counts, because an agent chooses its moment.

Whatever an agent can claim is claimed; it asks directly, for a minute, holding nothing, with no approval. On top of
that, one at a time, what policies look at: a confirmed plan, the texts they name for intent, step, ticket and type of
task, each person on whose behalf it might act, and each full hour of a week.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from broker.entitlement.examples import Filled
from broker.policy.trial import Rules, Trial
from broker.scope.model import ScopeTemplate
from broker.scope.request import AccessRequest

# For how long it is asked: where an agent may have it for a minute, it may have it.
TTL: Final = timedelta(minutes=1)
MOST_PEOPLE: Final = 20
MOST_TEXTS: Final = 20
_SAID = "said"
_KEY = b"\x01" * 32
_TIMES = frozenset({"hour", "minute", "weekday", "date"})
_HOURS_OF_A_WEEK = 7 * 24
_REQUEST_TEXTS = ("intent", "step", "ticket")


def asking(agent: str, template: ScopeTemplate, account: str, environment: str, filled: Filled, now: datetime) -> Trial:
    """The request with everything said that can be said."""
    request = AccessRequest(
        request_id="access-report",
        task_id="access-report",
        template=template.name,
        account=account,
        environment=environment,
        resource=filled.resource,
        parameters=dict(filled.parameters),
        ttl=min(TTL, template.max_ttl),
        recipient_public_key=_KEY,
        **dict.fromkeys((*_REQUEST_TEXTS, "reason", "prompt", "tool_call", "plan"), _SAID),
    )
    return Trial(agent, request, now)


def ways(trial: Trial, rules: Rules, template: ScopeTemplate) -> Iterator[tuple[str, Trial]]:
    """``trial`` as it is, then under one circumstance after the other, each in words."""
    looked_at = rules.policies.reads[template.access]
    bases = [("", trial)]
    if "plan" in looked_at:
        bases.append(("as a step of a confirmed plan", _situated(trial, plan="confirmed")))
    yield from bases
    people = sorted(key for key, person in rules.people.items() if not person.disabled)[:MOST_PEOPLE]
    for told, base in bases:
        for name in sorted({*_REQUEST_TEXTS, "task_type"} & looked_at):
            texts = rules.policies.compared.get(name, ())[:MOST_TEXTS]
            yield from ((_and(told, f'with {name} "{text}"'), _claiming(base, name, text)) for text in texts)
        if "on_behalf_of" in looked_at:
            yield from ((_and(told, f"on behalf of {key}"), _behind(base, key)) for key in people)
        if looked_at & _TIMES:
            yield from ((_and(told, f"on {at:%A} at {at:%H:%M}Z"), replace(base, now=at)) for at in _week(base.now))


def _and(told: str, more: str) -> str:
    return f"{told}, {more}" if told else more


def _situated(trial: Trial, **changes: Any) -> Trial:
    situation = replace(trial.supposed.situation, **changes)
    return replace(trial, supposed=replace(trial.supposed, situation=situation))


def _claiming(trial: Trial, name: str, text: str) -> Trial:
    if name == "task_type":
        return _situated(trial, task_type=text)
    changed: dict[str, Any] = {name: text}
    return replace(trial, request=replace(trial.request, **changed))


def _behind(trial: Trial, person: str) -> Trial:
    return replace(trial, supposed=replace(trial.supposed, on_behalf_of=person))


def _week(now: datetime) -> Iterator[datetime]:
    start = now.replace(minute=0, second=0, microsecond=0)
    return (start + timedelta(hours=hours) for hours in range(1, _HOURS_OF_A_WEEK + 1))
