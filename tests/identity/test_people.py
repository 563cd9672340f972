"""Who a login is to the broker, what its roles are, and as whom automation and the broker itself come."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.errors import Denied, Reason
from broker.identity.agent import Agent, AgentPattern, Person, Quotas, Registry, Tier
from broker.identity.automation import SVID, Automation
from broker.identity.id_token import IdToken, claimed_key
from broker.identity.operator import LOGIN, Operator, Role, RoleGrants
from broker.identity.own import CANARY, canary_agent, is_own
from broker.identity.party import Party, party
from broker.identity.pattern import IdPattern
from broker.identity.people import check_enabled, find_person, with_groups_of
from broker.identity.spiffe_id import SpiffeId
from tests.forge import NOW
from tests.forge_oidc import ForgedProvider

IDP = "https://idp.example.org"
ADA = Person(IDP, "ada", "Ada", groups=frozenset({"oncall", "dba"}))
BEA = Person(IDP, "bea", "Bea")
PEOPLE = {"ada": ADA, "bea": BEA}
ROBOT = SpiffeId("example.org", "/ops/reader")


def login(groups: frozenset[str] | None) -> IdToken:
    return IdToken(IDP, "ada", "jit-broker", NOW, NOW, NOW, "", groups, frozenset(), "", digest="")


def test_a_person_is_found_by_issuer_and_subject_together() -> None:
    assert find_person(PEOPLE, IDP, "bea") == ("bea", BEA)
    for issuer, subject in ((IDP, "cyd"), ("https://other.example.org", "ada")):
        with pytest.raises(Denied) as refused:
            find_person(PEOPLE, issuer, subject)
        assert refused.value.reason is Reason.PERSON_UNKNOWN
        assert refused.value.metadata == {"issuer": issuer, "subject": subject}


def test_a_provider_takes_groups_away_and_gives_none() -> None:
    assert with_groups_of(ADA, login(None)) is ADA
    assert with_groups_of(ADA, login(frozenset({"dba", "root"}))) == replace(ADA, groups=frozenset({"dba"}))
    assert with_groups_of(ADA, login(frozenset())).groups == frozenset()


def test_who_is_disabled_or_over_operates_nothing() -> None:
    ends = replace(ADA, until=NOW)
    check_enabled("ada", ADA, NOW)
    check_enabled("ada", ends, NOW - timedelta(seconds=1))
    for person, why in ((replace(ADA, disabled=True), "is disabled in people.yaml"), (ends, f"until {NOW}")):
        with pytest.raises(Denied, match="ada") as refused:
            check_enabled("ada", person, NOW)
        assert refused.value.reason is Reason.OPERATOR_DISABLED
        assert why in refused.value.message
        assert refused.value.metadata == {"person": "ada"}


def test_a_role_is_given_by_any_of_its_groups_and_by_nothing_else() -> None:
    grants = RoleGrants(
        {
            Role.OPERATOR: frozenset({"oncall", "sre"}),
            Role.APPROVER: frozenset({"dba"}),
            Role.SECURITY: frozenset({"csirt"}),
            Role.AUDITOR: frozenset(),
        }
    )
    assert grants.of(ADA) == {Role.OPERATOR, Role.APPROVER}
    assert grants.of(BEA) == frozenset()


def test_what_gives_roles_is_what_was_written_when_it_was_read() -> None:
    groups = {Role.VIEWER: frozenset({"dba"})}
    grants = RoleGrants(groups)
    groups[Role.SECURITY] = frozenset({"dba"})
    assert grants.of(ADA) == {Role.VIEWER}


def test_automation_answers_to_its_own_name_and_is_nobody_of_people_yaml() -> None:
    for description, shown in (("Nightly report", "Nightly report"), ("", str(ROBOT))):
        robot = Automation(ROBOT, ADA, frozenset({Role.VIEWER}), description).operator()
        nobody = Person("", str(ROBOT), f"{shown} (automation of Ada)")
        assert robot == Operator(nobody, "", SVID, workload=str(ROBOT))
        assert robot.id == str(ROBOT)
        assert RoleGrants({Role.OPERATOR: frozenset({"oncall"})}).of(robot.person) == frozenset()
    assert Operator(ADA, "ada", LOGIN).id == ADA.id == f"{IDP}#ada"


def agent(path: str, principal: str) -> Agent:
    groups: frozenset[str] = frozenset()
    return Agent(SpiffeId("example.org", path), ADA, Tier.ADVISORY, groups, groups, Quotas(1, 1), principal=principal)


def test_two_parties_are_one_by_workload_or_by_entry() -> None:
    one = party(agent("/jobs/one", "jobs"))
    assert one == Party("spiffe://example.org/jobs/one", "jobs")
    assert one.is_same_as(party(agent("/jobs/two", "jobs")))
    assert one.is_same_as(party(agent("/jobs/one", "renamed")))
    assert not one.is_same_as(party(agent("/jobs/two", "others")))


def test_the_brokers_own_agent_may_do_nothing_that_is_permitted_to_agents_at_large() -> None:
    own = canary_agent("example.org")
    assert is_own(own.spiffe_id) and own.spiffe_id.trust_domain == "example.org"
    assert (own.principal, own.tier, own.roles, own.environments) == (CANARY, Tier.ADVISORY, set(), set())
    assert own.owner == Person("urn:jit-broker", "canary", "the broker itself")
    assert own.quotas == Quotas(1_000, 1_000, 1)
    assert own.promoted is True
    assert own.description.startswith("The broker itself, ")


def test_the_broker_itself_is_registered_and_counts_as_no_entry() -> None:
    own, one = canary_agent("example.org"), agent("/jobs/one", "jobs")
    registry = Registry([one], own=own)
    assert registry.own is own
    assert registry.find(own.spiffe_id) is own and own.spiffe_id in registry
    assert registry.find(one.spiffe_id) is one and one.spiffe_id in registry
    assert (len(registry), list(registry)) == (1, [one])
    # Beside it, who is not registered is nobody, and without it so is the broker.
    with pytest.raises(Denied):
        registry.find(SpiffeId("example.org", "/jobs/two"))
    assert SpiffeId("example.org", "/jobs/two") not in registry
    assert own.spiffe_id not in Registry([one])


def test_an_agent_of_a_pattern_has_all_that_its_entry_says() -> None:
    entry = AgentPattern(
        "jobs",
        IdPattern.parse("spiffe://example.org/jobs/{job}"),
        ADA,
        Tier.AUTONOMOUS,
        frozenset({"runner"}),
        frozenset({"dev"}),
        Quotas(2, 1),
        "Jobs.",
        promoted=True,
        tools=frozenset({"sql"}),
    )
    found = Registry([], [entry]).find(SpiffeId("example.org", "/jobs/a"))
    assert (found.promoted, found.tools) == (True, {"sql"})


def test_the_claimed_key_is_one_that_could_be_published() -> None:
    provider = ForgedProvider(IDP)
    for key_id, claimed in (("ec", "ec"), ("k" * 256, "k" * 256), ("k" * 257, ""), (7, ""), (None, "")):
        assert claimed_key(provider.token("ada", "jit-broker", header={"kid": key_id})) == claimed
