"""One request in which everything is ordinary; tests change what they are about."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.deployfiles.load import policy_schema
from broker.identity.agent import Agent, Person, Quotas, Tier
from broker.identity.spiffe_id import SpiffeId
from broker.lease.credential import Binding, Contract, ContractClass
from broker.policy.cedar import PolicySet
from broker.policy.facts import RequestFacts, Situation
from broker.scope.model import AccessClass, Scope
from broker.scope.request import AccessRequest

SCHEMA = policy_schema()
PERMIT_ALL = '@id("all") permit (principal, action, resource);'

OWNER = Person("https://id.example.org", "dana", "Dana", groups=frozenset({"platform"}))
AGENT = Agent(
    spiffe_id=SpiffeId.parse("spiffe://example.org/agent/analyst"),
    owner=OWNER,
    tier=Tier.ADVISORY,
    roles=frozenset({"analyst"}),
    environments=frozenset({"dev", "staging"}),
    quotas=Quotas(1, 1),
    principal="analyst",
)
SCOPE = Scope(
    template="orders-readonly",
    template_digest="d" * 64,
    connector="openbao",
    account="acct",
    environment="dev",
    resource="orders",
    access=AccessClass.READ,
    actions=("select",),
    parameters={"table": "lines"},
    ttl=timedelta(seconds=60),
    grant={},
)
REQUEST = AccessRequest("r", "orders-readonly", "t", "acct", "dev", "orders", timedelta(seconds=60), intent="look")
CONTRACT = Contract(
    ContractClass.IMMEDIATE,
    Binding.NONE,
    ttl_floor=timedelta(seconds=1),
    ttl_ceiling=timedelta(hours=1),
    on_expiry=timedelta(seconds=5),
    on_revoke=timedelta(seconds=5),
    broker_dead="",
    upstream_dead="",
)
NOW = datetime(2026, 12, 24, 23, 30, tzinfo=UTC)  # a Thursday


def facts(
    agent: dict[str, Any] | None = None,
    scope: dict[str, Any] | None = None,
    request: dict[str, Any] | None = None,
    contract: dict[str, Any] | None = None,
    now: datetime = NOW,
    situation: dict[str, Any] | None = None,
) -> RequestFacts:
    return RequestFacts(
        agent=replace(AGENT, **(agent or {})),
        request=replace(REQUEST, **(request or {})),
        scope=replace(SCOPE, **(scope or {})),
        contract=replace(CONTRACT, **(contract or {})),
        now=now,
        situation=Situation(**(situation or {})),
    )


def policies(*texts: str) -> PolicySet:
    return PolicySet.parse({f"{number}.cedar": text for number, text in enumerate(texts)}, SCHEMA)
