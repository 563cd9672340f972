"""What would have to change for a refused request to be allowed: found by trying, not by reading policies.

Each remedy told was itself tried and allowed. That none is told is no proof that there is none: what is tried
are the things people can change (the TTL, the time, what is said, the way of delivery, environment, account,
who asks), one at a time, and then two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import combinations
from typing import Any

from broker.errors import BrokerError
from broker.identity.agent import Delivery
from broker.policy.trial import Rules, Trial, found, tried
from broker.scope.blank import blank

_SECOND = timedelta(seconds=1)
_HOURS_OF_A_WEEK = 7 * 24
# Something to say, and something to seal for, where policies only ask whether there is any.
_SAID = "said"
_KEY = b"\x01" * 32
_TEXTS = ("ticket", "intent", "step", "reason", "prompt", "tool_call", "plan")


@dataclass(frozen=True, slots=True)
class _Change:
    """One thing to change: of what, in words, and how."""

    field: str
    told: str
    made: Callable[[Trial], Trial]


def remedies(trial: Trial, rules: Rules) -> tuple[tuple[str, ...], ...]:
    """What makes a refused ``trial`` allowed, in words: every single change that does, or else every two."""
    changes = tuple(_changes(trial, rules))
    single = (
        *_approved(trial, rules),
        *_shorter(trial, rules),
        *(each.told for each in changes if tried(each.made(trial), rules).allowed),
        *_later(trial, rules),
        *_somebody_else(trial, rules),
    )
    return tuple((told,) for told in single) or tuple(_pairs(trial, rules, changes))


def _changes(trial: Trial, rules: Rules) -> Iterator[_Change]:
    """The same request with one more thing said, or one other value named."""
    request = trial.request
    for name in _TEXTS:
        if blank(str(getattr(request, name))):
            yield _Change(name, f"say {name}", _asking(name, _SAID))
    if trial.delivery is not Delivery.DIRECT:
        yield _Change(
            "delivery", "ask directly, not through a proxy", lambda one: replace(one, delivery=Delivery.DIRECT)
        )
    if not request.recipient_public_key:
        yield _Change("sealed", "have it sealed", _asking("recipient_public_key", _KEY))
    template = rules.templates.get(request.template)
    if template is None:
        return
    environments = trial.supposed.template_environments or template.environments
    for field, values in (("environment", environments), ("account", template.accounts)):
        for value in sorted(values - {getattr(request, field)}):
            yield _Change(field, f"ask for the {field} {value}", _asking(field, value))


def _asking(name: str, value: object) -> Callable[[Trial], Trial]:
    return lambda trial: _asked(trial, **{name: value})


def _asked(trial: Trial, **changes: Any) -> Trial:
    return replace(trial, request=replace(trial.request, **changes))


def _approved(trial: Trial, rules: Rules) -> Iterator[str]:
    """The approvals that people would have to give, where that is all that is missing."""
    if missing := tried(trial, rules).approvals:
        situation = trial.supposed.situation
        held = replace(situation, approvals=situation.approvals | frozenset(missing))
        if tried(replace(trial, supposed=replace(trial.supposed, situation=held)), rules).allowed:
            yield f"have people give: {', '.join(missing)}"


def _shorter(trial: Trial, rules: Rules) -> Iterator[str]:
    """The longest allowed TTL, to the second, by halving; none where even one second is too long."""
    low, high = 1, -(-trial.request.ttl // _SECOND)
    if high <= low or not tried(_asked(trial, ttl=_SECOND), rules).allowed:
        return
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if tried(_asked(trial, ttl=middle * _SECOND), rules).allowed else (low, middle)
    yield f"ask for {low}s or less"


def _later(trial: Trial, rules: Rules) -> Iterator[str]:
    """The first full hour of the next week at which it is allowed."""
    start = trial.now.replace(minute=0, second=0, microsecond=0)
    for hours in range(1, _HOURS_OF_A_WEEK + 1):
        later = replace(trial, now=start + timedelta(hours=hours))
        if tried(later, rules).allowed:
            yield f"ask on {later.now.strftime('%A %Y-%m-%d at %H:%M %Z')}"
            return


def _somebody_else(trial: Trial, rules: Rules) -> Iterator[str]:
    """The agents that may, of those with an entry of their own."""
    try:
        asking = found(trial.agent, rules.registry).principal
    except BrokerError:
        asking = ""
    for agent in sorted(rules.registry, key=lambda each: each.principal):
        if agent.principal != asking and tried(replace(trial, agent=str(agent.spiffe_id)), rules).allowed:
            yield f"have {agent.principal} ask"


def _pairs(trial: Trial, rules: Rules, changes: tuple[_Change, ...]) -> Iterator[tuple[str, ...]]:
    for one, other in combinations(changes, 2):
        if one.field != other.field and tried(other.made(one.made(trial)), rules).allowed:
            yield one.told, other.told
    for each in changes:
        yield from ((each.told, shorter) for shorter in _shorter(each.made(trial), rules))
