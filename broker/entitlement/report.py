"""The access report: a document about every agent, with a digest that a person signs off.

Its form is JSON in canonical values (texts, integers, booleans, lists, objects), so that the digest is of what it says
and not of how it is written. Belongs here: making it, and reading one back. How it is told to people is elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from broker.entitlement.examples import identities
from broker.entitlement.possible import NOT_TRIED, Evaluation, Possible
from broker.entitlement.usage import Scope, Usage
from broker.errors import BrokerError, InvalidInput, Reason
from broker.identity.agent import Agent, AgentPattern
from broker.identity.own import is_own
from broker.identity.spiffe_id import SpiffeId
from broker.policy.trial import Rules
from broker.scope.canonical import canonical_json
from broker.scope.model import AccessClass

FORM: Final = "jit-broker access report 1"
# Who else used something: agents that are registered no more, people who broke glass, the broker itself (canaries).
_BESIDE: Final = ("gone", "people", "own")
# Longer is no report of ours.
LONGEST: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a report is about, beside the rules. Times in milliseconds; ``trail`` says how the trail verified."""

    made: datetime
    since_ms: int
    deploy_digest: str
    trail: Mapping[str, Any]
    last_review: Mapping[str, Any] | None


def made(rules: Rules, usage: Usage, about: Circumstances) -> dict[str, Any]:
    """The report, without its digest."""
    evaluation = Evaluation(rules, about.made, usage.seen)
    entries = [*rules.registry, *rules.registry.patterns]
    agents = [_agent(entry, evaluation, usage) for entry in sorted(entries, key=lambda each: each.principal)]
    registered = {each["principal"] for each in agents}
    others = [_beside(entry, used) for entry, used in sorted(usage.used.items()) if entry not in registered]
    return {
        "form": FORM,
        "made_ms": int(about.made.timestamp() * 1000),
        "since_ms": about.since_ms,
        "deploy_digest": about.deploy_digest,
        "policy_digest": rules.policies.digest,
        "trail": dict(about.trail),
        "last_review": about.last_review,
        "unread_records": usage.unread,
        "agents": agents,
        **{kind: [told for of, told in others if of == kind] for kind in _BESIDE},
    }


def digest(report: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of everything it says, its own digest left out."""
    return hashlib.sha256(canonical_json({key: value for key, value in report.items() if key != "digest"})).hexdigest()


def read(data: bytes, name: str) -> dict[str, Any]:
    """A report as it was written. Raises :class:`InvalidInput` (CONFIG_INVALID) for what is none, or was changed."""
    try:
        report: Any = json.loads(data) if len(data) <= LONGEST else None
        if isinstance(report, dict) and report["form"] == FORM and report["digest"] == digest(report):
            return report
    except (ValueError, KeyError, TypeError, RecursionError):
        report = None
    raise InvalidInput(
        Reason.CONFIG_INVALID,
        f"{name} is no access report, or was changed after it was made.",
        hint="Make one: broker access report --output FILE.",
        metadata={"path": name},
    )


def _agent(entry: Agent | AgentPattern, evaluation: Evaluation, usage: Usage) -> dict[str, Any]:
    ids = _identities(entry, usage)
    possible = _widest(each for id_ in ids for each in evaluation.of(id_))
    used = usage.used.get(entry.principal, {})
    could = [each for each in possible if each.reachable]
    not_tried = [each for each in possible if each.reason == NOT_TRIED]
    known = {_key(each) for each in (*could, *not_tried)}
    owner = entry.owner
    return {
        "principal": entry.principal,
        "identity": str(entry.pattern if isinstance(entry, AgentPattern) else entry.spiffe_id),
        "tried_as": list(ids),
        "owner": owner.id,
        "owner_name": owner.display_name,
        "owner_disabled": not owner.enabled(evaluation.now),
        "tier": entry.tier.value,
        "roles": sorted(entry.roles),
        "environments": sorted(entry.environments),
        "promoted": entry.promoted,
        "could": [_could(each, usage.used.get(entry.principal, {})) for each in could],
        "denied": sum(1 for each in possible if not each.reachable and each.reason != NOT_TRIED),
        "not_tried": [_scope(each) for each in not_tried],
        # What was had and could not be had today.
        "no_more": [
            {**scope._asdict(), "access": each.access, "granted": each.granted, "last_ms": each.last_ms}
            for scope, each in sorted(used.items())
            if scope not in known
        ],
    }


def _identities(entry: Agent | AgentPattern, usage: Usage) -> Sequence[str]:
    """Whom an entry is tried as: of a pattern those who came, and some that could."""
    if isinstance(entry, Agent):
        return (str(entry.spiffe_id),)
    came = list(usage.workloads.get(entry.principal, ()))
    return tuple(dict.fromkeys([*came, *(str(each) for each in identities(entry.pattern))]))


def _widest(possible: Iterable[Possible]) -> list[Possible]:
    found: dict[Scope, Possible] = {}
    for each in possible:
        best = found.setdefault(_key(each), each)
        if each.width < best.width:
            found[_key(each)] = each
    return [found[key] for key in sorted(found)]


def _key(each: Possible) -> Scope:
    return Scope(each.template, each.account, each.environment)


def _scope(each: Possible) -> dict[str, Any]:
    return {**_key(each)._asdict(), "access": each.access}


def _could(each: Possible, used: Mapping[Scope, Any]) -> dict[str, Any]:
    use = used.get(_key(each))
    return {
        **_scope(each),
        "effect": each.effect.value,
        "approvals": list(each.approvals),
        "policies": list(each.policies),
        "condition": each.condition,
        "examples": list(each.examples),
        "every_value_tried": each.whole,
        "as": each.agent,
        "granted": use.granted if use else 0,
        "issued": use.issued if use else 0,
        "last_ms": use.last_ms if use else 0,
    }


def _beside(entry: str, used: Mapping[Scope, Any]) -> tuple[str, dict[str, Any]]:
    """What somebody used who is no entry of the registry, and under which of ``_BESIDE`` that is told."""
    uses = [
        {**scope._asdict(), "access": each.access, "granted": each.granted, "last_ms": each.last_ms}
        for scope, each in sorted(used.items())
    ]
    try:
        kind = "own" if is_own(SpiffeId.parse(entry)) else "gone"
    except BrokerError:
        kind = "people"
    return kind, {"agent": entry, "used": uses}


def changes_something(path: Mapping[str, Any]) -> bool:
    """Whether a line of ``could`` is more than reading."""
    return bool(path["access"] != AccessClass.READ.value)
