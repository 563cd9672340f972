"""The agent registry: by exact id, or a refusal that says which."""

from __future__ import annotations

import pytest

from broker.errors import Denied, Reason
from broker.identity.agent import Agent, Person, Quotas, Registry, Tier
from broker.identity.spiffe_id import SpiffeId

OWNER = Person("https://login.example.org", "u-1", "Ada")


def _agent(text: str) -> Agent:
    return Agent(SpiffeId.parse(text), OWNER, Tier.ADVISORY, frozenset(), frozenset({"dev"}), Quotas(1, 1))


def test_agent_is_found_by_its_exact_id_only() -> None:
    one = _agent("spiffe://example.org/agent/one")
    registry = Registry([one])

    assert registry.find(SpiffeId("example.org", "/agent/one")) is one
    assert (len(registry), list(registry)) == (1, [one])
    for near in ("/agent/One", "/agent/one1", "/agent"):
        assert SpiffeId("example.org", near) not in registry
        with pytest.raises(Denied) as refused:
            registry.find(SpiffeId("example.org", near))
        assert refused.value.reason is Reason.AGENT_NOT_REGISTERED
        assert refused.value.metadata == {"spiffeId": f"spiffe://example.org{near}"}


def test_same_path_in_another_trust_domain_is_another_agent() -> None:
    registry = Registry([_agent("spiffe://example.org/agent/one")])

    with pytest.raises(Denied):
        registry.find(SpiffeId.parse("spiffe://partner.org/agent/one"))
