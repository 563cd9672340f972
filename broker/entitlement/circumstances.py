"""Circumstances under which a request is tried: the widest answer counts, because an agent chooses its moment.

Whatever an agent can claim is claimed; it asks directly, for a minute, holding nothing, with no approval. On top of
that, in combination, what policies look at: a confirmed plan, the texts they compare intent, step, ticket and type of
task with, each person on whose behalf it might act, and each full hour of a week.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import chain, islice, product
from typing import Any, Final

from broker.entitlement.examples import Filled
from broker.policy.trial import Rules, Trial
from broker.scope.model import ScopeTemplate
from broker.scope.request import AccessRequest

# For how long it is asked: where an agent may have it for a minute, it may have it.
TTL: Final = timedelta(minutes=1)
MOST_PEOPLE: Final = 20
MOST_TEXTS: Final = 20
# Combinations of such texts, and of all circumstances. The likelier ones come first.
MOST_CLAIMS: Final = 32
MOST_WAYS: Final = 1_000
_SAID = "said"
_KEY = b"\x01" * 32
_TIMES = frozenset({"hour", "minute", "weekday", "date"})
_HOURS_OF_A_WEEK = 7 * 24
_REQUEST_TEXTS = ("intent", "step", "ticket")
# A circumstance in words, and the request under it.
_Way = tuple[str, Trial]


def asking(agent: str, template: ScopeTemplate, account: str, environment: str, filled: Filled, now: datetime) -> Trial:
    """The request with everything said that can be said."""
    said: dict[str, Any] = dict.fromkeys((*_REQUEST_TEXTS, "reason", "prompt", "tool_call", "plan"), _SAID)
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
        **said,
    )
    return Trial(agent, request, now)


def ways(trial: Trial, rules: Rules, template: ScopeTemplate) -> Iterator[tuple[str, Trial]]:
    """``trial`` as it is, then under one combination of circumstances after the other, each in words."""
    looked_at = rules.policies.reads[template.access]
    claims = tuple(_claims(rules, looked_at))
    bases = [
        (_and(plan, claim), way) for plan, start in _plans(trial, looked_at) for claim, way in _said(start, claims)
    ]
    return islice(chain(bases, *(_more(told, base, rules, looked_at) for told, base in bases)), MOST_WAYS)


def _plans(trial: Trial, looked_at: Collection[str]) -> Iterator[_Way]:
    yield "", trial
    if "plan" in looked_at:
        yield "as a step of a confirmed plan", _situated(trial, plan="confirmed")


def _claims(rules: Rules, looked_at: Collection[str]) -> Iterator[Mapping[str, str]]:
    """What an agent could say instead, by text: every combination of what policies compare them with."""
    names = sorted({*_REQUEST_TEXTS, "task_type"} & set(looked_at))
    values = [("", *rules.policies.compared.get(name, ())[:MOST_TEXTS]) for name in names]
    for texts in islice(product(*values), MOST_CLAIMS):
        yield {name: text for name, text in zip(names, texts, strict=True) if text}


def _said(trial: Trial, claims: Iterable[Mapping[str, str]]) -> Iterator[_Way]:
    for texts in claims:
        told, way = "", trial
        for name, text in texts.items():
            told, way = _and(told, f'with {name} "{text}"'), _claiming(way, name, text)
        yield told, way


def _more(told: str, base: Trial, rules: Rules, looked_at: Collection[str]) -> Iterator[_Way]:
    """``base`` on behalf of somebody, and at other times."""
    starts = [(told, base)]
    if "on_behalf_of" in looked_at:
        # Of those alone for whom agents may do something.
        some = (key for key, person in rules.people.items() if person.enabled(base.now) and person.may is not None)
        people = sorted(some)[:MOST_PEOPLE]
        behind = [(_and(told, f"on behalf of {key}"), _behind(base, key)) for key in people]
        starts += behind
        yield from behind
    if times := _TIMES & set(looked_at):
        for said, way in starts:
            for at in _moments(way.now, times):
                yield _and(said, f"on {at:%A} at {at:%H:%M}Z"), replace(way, now=at)


def _and(told: str, more: str) -> str:
    return f"{told}, {more}" if told and more else told or more


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


def _moments(now: datetime, looked_at: Collection[str]) -> Iterable[datetime]:
    """The full hours of the next week, those left out that policies cannot tell from an earlier one."""
    start = now.replace(minute=0, second=0, microsecond=0)
    week = (start + timedelta(hours=hours) for hours in range(1, _HOURS_OF_A_WEEK + 1))
    seen: dict[tuple[int, int, int], datetime] = {}
    by_hour = not {"hour", "minute"}.isdisjoint(looked_at)
    for at in week:
        seen.setdefault(
            (at.hour * by_hour, at.weekday() * ("weekday" in looked_at), at.day * ("date" in looked_at)), at
        )
    return seen.values()
