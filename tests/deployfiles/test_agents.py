"""Agents registered by pattern, from files to grants: what is taken, and what two files may not both claim."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from broker.deployfiles import load
from broker.deployfiles.schemas import published
from broker.errors import InvalidInput, Reason
from broker.files import Problems
from broker.identity.agent import Quotas, Tier
from broker.identity.spiffe_id import SpiffeId
from broker.lease.credential import ContractClass
from broker.policy.facts import RequestFacts
from broker.scope.bind import bind
from broker.scope.request import AccessRequest
from tests.connectors.fake import contract
from tests.deployfiles.test_broken import HERE, private_copy

JOBS = """\
spiffe_id_pattern: spiffe://example.org/ns/{namespace}/job/{job}
segments:
  namespace: {enum: [payments, refunds]}
  job: {regex: "^[a-z][a-z0-9-]*$"}
description: Runs jobs.
owner: dana
tier: autonomous
environments: [dev]
roles: [runner]
quotas: {live_leases: 2, open_tasks: 1}
"""
POLICY = """
@id("jobs-of-payments")
@reason("Payments only.")
forbid (principal, action, resource)
when { principal.entry == "jobs" && !(principal.hasTag("namespace") && principal.getTag("namespace") == "payments") };
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The good set, with a pattern, a template that takes a value from it, and a policy that looks at it."""
    directory = private_copy(HERE / "good", tmp_path / "set")
    write(directory / "agents/jobs.yaml", JOBS)
    reports = directory / "templates/reports.yaml"
    text = reports.read_text().replace("pattern: ^[0-9]{4}-[0-9]{2}$", "pattern: ^[a-z]+$")
    write(reports, text.replace("max_length: 7", "max_length: 8\n    from_identity: namespace"))
    write(directory / "policies/jobs.cedar", POLICY)
    return directory


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o644)


def refusals(directory: Path) -> list[str]:
    with pytest.raises(Problems) as caught:
        load(directory)
    return [str(problem).replace(f"{directory}/", "") for problem in caught.value.problems]


REQUEST = AccessRequest("r", "reports", "t", "123456789012", "dev", "reports", timedelta(seconds=60), intent="look")


def test_from_a_file_with_a_pattern_to_a_decision_on_one_identity(directory: Path) -> None:
    deploy = load(directory)
    assert len(deploy.registry) == 2
    agent = deploy.registry.find(SpiffeId.parse("spiffe://example.org/ns/payments/job/nightly"))
    assert (agent.principal, agent.segments) == ("jobs", (("namespace", "payments"), ("job", "nightly")))
    assert (agent.tier, agent.roles, agent.environments) == (Tier.AUTONOMOUS, {"runner"}, {"dev"})
    assert (agent.owner, agent.quotas) == (deploy.people["dana"], Quotas(live_leases=2, open_tasks=1))
    assert deploy.registry.find(SpiffeId.parse("spiffe://example.org/agent/analyst")).principal == "analyst"

    template = deploy.templates["reports"]
    assert template.parameters == {}
    scope = bind(template, REQUEST, dict(agent.segments))
    assert scope.parameters == {"day": "payments"}
    now = datetime(2026, 12, 24, tzinfo=UTC)
    assert deploy.policies.decide(RequestFacts(agent, REQUEST, scope, contract(ContractClass.EXPIRY_ONLY), now)).allowed

    other = deploy.registry.find(SpiffeId.parse("spiffe://example.org/ns/refunds/job/nightly"))
    refunds = bind(template, REQUEST, dict(other.segments))
    assert refunds == replace(scope, parameters={"day": "refunds"})
    refused = deploy.policies.decide(RequestFacts(other, REQUEST, refunds, contract(ContractClass.EXPIRY_ONLY), now))
    assert refused.policies == ("jobs-of-payments",)


def test_each_namespace_gets_the_database_role_of_its_name(directory: Path) -> None:
    orders = directory / "templates/orders.yaml"
    team = "parameters:\n  team: {type: enum, values: [payments, refunds], from_identity: namespace}\ngrant:"
    write(orders, orders.read_text().replace("grant:\n  role: orders-readonly", f"{team}\n  role: {{parameter: team}}"))
    deploy = load(directory)
    asked = replace(REQUEST, template="orders", account="dev", resource="orders")
    for namespace in ("payments", "refunds"):
        agent = deploy.registry.find(SpiffeId.parse(f"spiffe://example.org/ns/{namespace}/job/nightly"))
        assert bind(deploy.templates["orders"], asked, dict(agent.segments)).grant == {"role": namespace}


@pytest.mark.parametrize(
    "text",
    [
        "spiffe://example.org/ns/orders/job/nightly",  # not listed
        "spiffe://example.org/ns/payments/job/Nightly",
        "spiffe://example.org/ns/payments/job/9",
        "spiffe://example.org/ns/payments/cron/nightly",
        "spiffe://partner.org/ns/payments/job/nightly",
    ],
)
def test_an_id_outside_the_pattern_or_its_segments_is_nobody(directory: Path, text: str) -> None:
    assert not load(directory).registry.registers(text)


def test_an_agent_with_an_exact_id_cannot_use_a_template_made_for_a_segment(directory: Path) -> None:
    deploy = load(directory)
    analyst = deploy.registry.find(SpiffeId.parse("spiffe://example.org/agent/analyst"))
    with pytest.raises(InvalidInput) as refused:
        bind(deploy.templates["reports"], REQUEST, dict(analyst.segments))
    assert refused.value.reason is Reason.SEGMENT_NOT_IN_IDENTITY


def test_where_a_value_comes_from_is_in_the_digest_of_the_template(directory: Path) -> None:
    before = load(directory).templates["reports"].digest
    reports = directory / "templates/reports.yaml"
    write(reports, reports.read_text().replace("from_identity: namespace", "from_identity: job"))
    assert load(directory).templates["reports"].digest != before


def test_a_file_that_says_so_takes_one_id_out_of_a_pattern(directory: Path) -> None:
    special = "spiffe_id: spiffe://example.org/ns/payments/job/special\noverrides: jobs\n" + _rest(owner="dana")
    write(directory / "agents/special.yaml", special)
    registry = load(directory).registry
    assert registry.find(SpiffeId.parse("spiffe://example.org/ns/payments/job/special")).principal == "special"
    assert registry.find(SpiffeId.parse("spiffe://example.org/ns/payments/job/other")).principal == "jobs"
    # What it was taken out of may go, or stop matching it: then the sentence is false, and is said to be.
    (directory / "agents/jobs.yaml").unlink()
    assert any(line.startswith("agents/special.yaml:2: overrides: no pattern of jobs") for line in refusals(directory))


def test_the_example_of_an_overlap_is_an_id_that_both_files_match(directory: Path) -> None:
    write(
        directory / "agents/more.yaml",
        "spiffe_id_pattern: spiffe://example.org/ns/{n}/job/special\n" + _rest(owner="dana"),
    )
    lines = refusals(directory)
    assert [line.split(": ")[:2] for line in lines] == [
        ["agents/jobs.yaml:1", "spiffe_id_pattern"],
        ["agents/more.yaml:1", "spiffe_id_pattern"],
    ]
    assert all("spiffe://example.org/ns/payments/job/special would match" in line for line in lines)
    (directory / "agents/jobs.yaml").unlink()
    write(directory / "templates/reports.yaml", (HERE / "good/templates/reports.yaml").read_text())
    (directory / "policies/jobs.cedar").unlink()
    assert load(directory).registry.registers("spiffe://example.org/ns/payments/job/special")


def test_three_patterns_of_one_id_are_told_pair_by_pair(directory: Path) -> None:
    for name in ("one", "two"):
        pattern = f"spiffe_id_pattern: spiffe://example.org/ns/payments/job/{{{name}}}\n"
        write(directory / f"agents/{name}.yaml", pattern + _rest(owner="dana"))
    assert len(refusals(directory)) == 6  # 3 pairs, on both sides


def test_many_patterns_that_are_alike_are_not_told_in_every_pairing(directory: Path) -> None:
    for number in range(20):  # 190 pairs
        pattern = "spiffe_id_pattern: spiffe://example.org/run/{name}\n"
        write(directory / f"agents/run{number}.yaml", pattern + _rest(owner="dana"))
    assert len(refusals(directory)) == 200  # 100 pairs, on both sides


def test_a_segment_that_is_not_there_is_told_of_a_federated_agent_too(directory: Path) -> None:
    partner = "spiffe_id_pattern: spiffe://partner.org/ns/{n}\nsegments: {m: {enum: [a]}}\n" + _rest(owner="dana")
    write(directory / "agents/partner.yaml", partner)
    write(
        directory / "trust_domains.yaml",
        "trust_domains:\n  partner.org:\n    allow: [/ns/a]\n    environments: [dev]\n",
    )
    assert [line.split(": ")[:2] for line in refusals(directory)] == [["agents/partner.yaml:2", "segments.m"]]


def test_a_mistake_in_one_agent_does_not_make_templates_and_policies_look_wrong(directory: Path) -> None:
    write(directory / "agents/jobs.yaml", JOBS.replace("owner: dana", "owner: mallory"))
    assert [line.split(": ")[0] for line in refusals(directory)] == ["agents/jobs.yaml:6"]
    write(directory / "agents/jobs.yaml", JOBS.replace("tier: autonomous", "tier: best"))
    assert [line.split(": ")[0] for line in refusals(directory)] == ["agents/jobs.yaml:7"]


def test_a_template_that_is_wrong_does_not_make_policies_look_wrong(directory: Path) -> None:
    write(
        directory / "policies/jobs.cedar",
        '@id("o") permit (principal, action, resource in Template::"orders");',
    )
    orders = directory / "templates/orders.yaml"
    write(orders, orders.read_text().replace("max_ttl: 15m", "max_ttl: 0s"))
    assert [line.split(": ")[0] for line in refusals(directory)] == ["templates/orders.yaml:9"]


def test_a_policy_may_name_an_identity_that_only_a_pattern_registers(directory: Path) -> None:
    named = '@id("one") permit (principal == Agent::"spiffe://example.org/ns/{}/job/a", action, resource);'
    write(directory / "policies/one.cedar", named.replace("{}", "payments"))
    assert load(directory)
    write(directory / "policies/one.cedar", named.replace("{}", "orders"))
    assert refusals(directory) == [
        "policies/one.cedar:1: one: 'spiffe://example.org/ns/orders/job/a' is no registered agent"
        " (It is compared byte for byte with the SPIFFE IDs and patterns of agents/.)"
    ]


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        ({}, True),
        ({"segments": {"job": {"regex": "^a$"}}}, True),
        ({"spiffe_id": "spiffe://example.org/agent/x"}, False),  # beside the pattern
        ({"spiffe_id_pattern": None}, False),
        ({"segments": {"job": {}}}, False),
        ({"segments": {"job": {"enum": ["a"], "regex": "^a$"}}}, False),
        ({"segments": {"job": {"glob": "a*"}}}, False),
    ],
)
def test_editors_see_the_form_of_an_entry_too(change: dict[str, Any], taken: bool) -> None:
    schema: Any = json.loads(published()["agent.schema.json"])
    data = {key: value for key, value in {**yaml.safe_load(JOBS), **change}.items() if value is not None}
    assert (not list(jsonschema.Draft202012Validator(schema).iter_errors(data))) is taken


def _rest(owner: str) -> str:
    return f"description: More.\nowner: {owner}\ntier: advisory\nenvironments: [dev]\n"
