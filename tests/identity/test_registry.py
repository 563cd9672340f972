"""The agent registry: by exact id or by pattern, or a refusal that says which."""

from __future__ import annotations

import pytest

from broker.errors import Denied, InvalidInput, Reason
from broker.identity.agent import Agent, AgentPattern, Person, Quotas, Registry, Tier
from broker.identity.pattern import IdPattern, OneOf, Restriction
from broker.identity.spiffe_id import SpiffeId

OWNER = Person("https://login.example.org", "u-1", "Ada")


def _agent(text: str) -> Agent:
    name = text.rpartition("/")[2]
    environments = frozenset({"dev"})
    return Agent(SpiffeId.parse(text), OWNER, Tier.ADVISORY, frozenset(), environments, Quotas(1, 1), principal=name)


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


# --------------------------------------------------------------------------- by pattern


def _pattern(principal: str, text: str, **restrictions: Restriction) -> AgentPattern:
    return AgentPattern(
        principal=principal,
        pattern=IdPattern.parse(text, restrictions),
        owner=OWNER,
        tier=Tier.AUTONOMOUS,
        roles=frozenset({"runner"}),
        environments=frozenset({"dev"}),
        quotas=Quotas(2, 1),
        description="Jobs.",
    )


JOBS = _pattern("jobs", "spiffe://example.org/ns/{namespace}/job/{job}")


def test_whoever_matches_a_pattern_is_an_agent_of_its_own_and_the_same_principal() -> None:
    registry = Registry([_agent("spiffe://example.org/agent/one")], [JOBS])
    first = registry.find(SpiffeId.parse("spiffe://example.org/ns/payments/job/a"))
    second = registry.find(SpiffeId.parse("spiffe://example.org/ns/orders/job/a"))

    assert str(first.spiffe_id) == "spiffe://example.org/ns/payments/job/a"
    assert first.segments == (("namespace", "payments"), ("job", "a"))
    assert second.segments == (("namespace", "orders"), ("job", "a"))
    assert first.principal == second.principal == "jobs"
    assert first != second
    assert hash(first) != hash(second)  # what is kept per agent is kept apart
    for agent in (first, second):
        assert (agent.owner, agent.tier, agent.quotas) == (JOBS.owner, JOBS.tier, JOBS.quotas)
        assert (agent.roles, agent.environments, agent.description) == (JOBS.roles, JOBS.environments, "Jobs.")


def test_an_exact_entry_beats_the_pattern_around_it() -> None:
    exact = _agent("spiffe://example.org/ns/payments/job/special")
    registry = Registry([exact], [JOBS])
    found = registry.find(SpiffeId.parse("spiffe://example.org/ns/payments/job/special"))
    assert found is exact
    assert (found.principal, found.segments) == ("special", ())
    assert registry.find(SpiffeId.parse("spiffe://example.org/ns/payments/job/specialx")).principal == "jobs"


def test_an_exact_id_costs_one_look_up_and_no_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = _agent("spiffe://example.org/ns/payments/job/special")
    registry = Registry([exact], [JOBS])

    def unasked(_: SpiffeId) -> Agent | None:
        raise AssertionError("a pattern was asked")

    monkeypatch.setattr(registry, "_matched", unasked)
    assert registry.find(exact.spiffe_id) is exact
    assert exact.spiffe_id in registry


@pytest.mark.parametrize(
    "near",
    [
        "spiffe://example.org/ns/payments/job",
        "spiffe://example.org/ns/payments/job/a/b",
        "spiffe://example.org/ns/payments/cron/a",
        "spiffe://example.org/NS/payments/job/a",
        "spiffe://partner.org/ns/payments/job/a",
    ],
)
def test_what_a_pattern_does_not_match_is_nobody(near: str) -> None:
    registry = Registry([], [JOBS])
    assert SpiffeId.parse(near) not in registry
    assert not registry.registers(near)
    with pytest.raises(Denied) as refused:
        registry.find(SpiffeId.parse(near))
    assert refused.value.reason is Reason.AGENT_NOT_REGISTERED


@pytest.mark.parametrize(
    ("holder", "registered"),
    [
        ("spiffe://example.org/agent/one", True),
        ("spiffe://example.org/ns/payments/job/a", True),
        ("spiffe://example.org/agent/two", False),
        ("spiffe://example.org/ns/payments/job/a/", False),
        ("spiffe://example.org/ns/payments/../payments/job/a", False),
        ("broker", False),
        ("", False),
    ],
)
def test_a_stored_holder_is_looked_up_by_its_text(holder: str, registered: bool) -> None:
    assert Registry([_agent("spiffe://example.org/agent/one")], [JOBS]).registers(holder) is registered


def test_a_registry_is_as_large_as_what_was_written() -> None:
    registry = Registry([_agent("spiffe://example.org/agent/one")], [JOBS])
    before = _size(registry)
    for number in range(2_000):
        registry.find(SpiffeId.parse(f"spiffe://example.org/ns/payments/job/{number}"))
    assert _size(registry) == before
    assert (len(registry), len(list(registry))) == (2, 1)


def _size(registry: Registry) -> int:
    return sum(len(part) for part in (registry._by_id, registry.patterns, registry._index._places))


def test_entries_that_could_be_taken_for_each_other_make_no_registry() -> None:
    """`broker check` says it with file and line; here it is refused whoever asks."""
    other = _pattern("others", "spiffe://example.org/ns/payments/{kind}/{name}")
    for agents, patterns in [
        ([], [JOBS, other]),
        ([], [JOBS, _pattern("jobs", "spiffe://example.org/cron/{name}")]),
        ([_agent("spiffe://example.org/agent/jobs")], [JOBS]),
        ([], [_pattern("", "spiffe://example.org/cron/{name}")]),
    ]:
        with pytest.raises(InvalidInput) as refused:
            Registry(agents, patterns)
        assert refused.value.reason is Reason.CONFIG_INVALID


def test_patterns_with_values_apart_live_beside_each_other() -> None:
    payments = _pattern("payments", "spiffe://example.org/ns/{n}/job/{j}", n=OneOf(frozenset({"payments", "refunds"})))
    orders = _pattern("orders", "spiffe://example.org/ns/{n}/job/{j}", n=OneOf(frozenset({"orders"})))
    registry = Registry([], [payments, orders])
    for namespace, principal in [("payments", "payments"), ("refunds", "payments"), ("orders", "orders")]:
        found = registry.find(SpiffeId.parse(f"spiffe://example.org/ns/{namespace}/job/a"))
        assert found.principal == principal
    assert not registry.registers("spiffe://example.org/ns/other/job/a")


@pytest.mark.parametrize("text", ["other", "spiffe://example.org/agent/\u043ene", "SPIFFE://example.org/agent/one", ""])
def test_an_agent_that_somebody_names_badly_says_nothing_of_who_they_are(text: str) -> None:
    registry = Registry([_agent("spiffe://example.org/agent/one")])
    with pytest.raises(InvalidInput, match=r"^participants: .* is not a SPIFFE ID") as refused:
        registry.named(text, "participants")
    assert (refused.value.reason, refused.value.metadata["field"]) == (Reason.FIELD_INVALID, "participants")
    assert refused.value.hint


def test_an_agent_that_somebody_names_is_found_or_is_not_registered() -> None:
    one = _agent("spiffe://example.org/agent/one")
    assert Registry([one]).named("spiffe://example.org/agent/one", "delegate") == one
    with pytest.raises(Denied) as refused:
        Registry([one]).named("spiffe://example.org/agent/two", "delegate")
    assert refused.value.reason is Reason.AGENT_NOT_REGISTERED
