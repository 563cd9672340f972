"""How long policy takes: decisions by 500 policies, each on a question that nobody asked before.

A policy set keeps answers; here every request differs in its agent and its parameters, so that each is read,
parsed and evaluated. One in eight goes through a gate, and so is evaluated twice, the second time by the policies that
read approvals. One thread, no broker.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.noop import CONTRACT
from broker.deployfiles.load import policy_schema
from broker.identity.agent import Agent, Person, Quotas, Tier
from broker.identity.spiffe_id import SpiffeId
from broker.policy.cedar import PolicySet
from broker.policy.decision import Effect
from broker.policy.facts import RequestFacts, Situation
from broker.scope.model import AccessClass, BlastRadius, Reversibility, Risk, Scope, Sensitivity
from broker.scope.request import AccessRequest

POLICIES = 500
REQUESTS = 4_000
WARM_UP = 200
STARTER_POLICIES = Path(__file__).parent.parent / "deploy" / "dev" / "policies"
_NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
_ONE_IN = 8


@dataclass(frozen=True, slots=True)
class Decisions:
    """Latencies of single decisions, and how many of each kind there were."""

    p50_ms: float
    p99_ms: float
    by_effect: dict[str, int]


def policies(count: int = POLICIES) -> PolicySet:
    """The starter policies, and as many of a large operator's as make ``count``: by team, account, time, parameter."""
    files = {path.name: path.read_text() for path in sorted(STARTER_POLICIES.glob("*.cedar"))}
    more = count - len(PolicySet.parse(files, policy_schema()))
    files["teams.cedar"] = "\n".join(_team_policy(number) for number in range(more))
    # A set that is parsed already has answers: this one is nobody else's.
    files["run.cedar"] = f"// {secrets.token_hex(8)}\n"
    return PolicySet.parse(files, policy_schema())


def _team_policy(number: int) -> str:
    if number % 2:
        return (
            f'@id("team-{number}-reads") permit (principal, action == Action::"read", resource) when {{'
            f' principal.roles.contains("team-{number}") && resource.account == "account-{number}" &&'
            f" context.ttl_seconds <= 600 && principal.environments.contains(resource.environment) }};"
        )
    return (
        f'@id("team-{number}-hours") @reason("Not at night.") forbid (principal, action in Action::"request", resource)'
        f' when {{ resource.account == "account-{number}" && (context.hour < 6 || context.hour > 20) &&'
        f' !resource.parameters.contains("urgent={number}") }};'
    )


def requests(count: int) -> Iterator[RequestFacts]:
    """``count`` requests, no two alike."""
    owner = Person("https://id.example.org", "dana", "Dana", groups=frozenset({"platform"}))
    for number in range(count):
        writes = number % _ONE_IN == 0
        agent = Agent(
            spiffe_id=SpiffeId("bench.example.org", f"/agent/{number}"),
            owner=owner,
            tier=Tier.SEMI_AUTONOMOUS,
            roles=frozenset({"releaser", f"team-{number % POLICIES}"}),
            environments=frozenset({"dev", "staging"}),
            quotas=Quotas(10, 10),
            principal=f"agent-{number}",
        )
        asked = AccessRequest("r", "t", "task", "a", "dev", "orders", timedelta(minutes=5), ticket="T-1", plan="p")
        scope = Scope(
            template=f"template-{number % 100}",
            template_digest="",
            connector="c",
            account=f"account-{number % POLICIES}",
            environment="dev",
            resource="orders",
            access=AccessClass.WRITE if writes else AccessClass.READ,
            actions=("select",),
            parameters={"day": str(number), "shard": str(number % 7)},
            ttl=asked.ttl,
            grant={},
            risk=Risk(Sensitivity.INTERNAL, BlastRadius.SERVICE, Reversibility.REVERSIBLE, "data"),
        )
        held = frozenset({"orders-readonly", "read:dev"})
        yield RequestFacts(agent, asked, scope, CONTRACT, _NOW, situation=Situation(active_grants=held, active_count=1))


def measure(count: int = REQUESTS) -> Decisions:
    """Decide ``count`` requests, after some to warm up."""
    decided = policies()
    asked = list(requests(WARM_UP + count))
    for facts in asked[:WARM_UP]:
        decided.decide(facts)
    spent: list[float] = []
    effects = dict.fromkeys((each.value for each in Effect), 0)
    for facts in asked[WARM_UP:]:
        begun = time.perf_counter()
        decision = decided.decide(facts)
        spent.append(time.perf_counter() - begun)
        effects[decision.effect.value] += 1
    spent.sort()
    return Decisions(spent[count // 2] * 1000, spent[count * 99 // 100] * 1000, effects)
