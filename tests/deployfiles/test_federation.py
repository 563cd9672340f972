"""trust_domains.yaml: agents of other trust domains are registered within its rules, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.cli.main import cli
from broker.deployfiles import load
from broker.files import Problems
from broker.identity.spiffe_id import SpiffeId
from tests.api.served import private
from tests.config.test_config import MINIMAL as CONFIG
from tests.deployfiles.test_broken import HERE, private_copy

RULES = """\
trust_domains:
  partner.org:
    allow: [/agent/planner, '/ns/{namespace}/job/{job}', '/team/{team}/bot']
    environments: [dev, staging]
"""
AGENT = """\
{id}
description: Comes from elsewhere.
owner: dana
tier: advisory
environments: {environments}
"""
PARTNER = "spiffe_id: spiffe://partner.org/agent/planner"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return private_copy(HERE / "good", tmp_path / "set")


def write(directory: Path, name: str, text: str) -> None:
    file = directory / name
    file.write_text(text)
    file.chmod(0o600)


def agent(directory: Path, id_: str, environments: str = "[dev]") -> None:
    write(directory, "agents/partner.yaml", AGENT.format(id=id_, environments=environments))


def problems(directory: Path, own: str = "") -> list[tuple[str, int, str, str]]:
    with pytest.raises(Problems) as caught:
        load(directory, own)
    return [(Path(each.file).name, each.line, each.field, each.message) for each in caught.value.problems]


@pytest.mark.parametrize("own", ["", "example.org"])
@pytest.mark.parametrize(
    "id_",
    [
        PARTNER,
        "spiffe_id: spiffe://partner.org/ns/a/job/b",
        "spiffe_id: spiffe://partner.org/team/x/bot",
        "spiffe_id_pattern: 'spiffe://partner.org/ns/{namespace}/job/{job}'",
        "spiffe_id_pattern: 'spiffe://partner.org/ns/blue/job/{job}'",
        "spiffe_id_pattern: 'spiffe://partner.org/team/{t}/bot'\nsegments: {t: {enum: [a, b]}}",
    ],
)
def test_what_the_rules_allow(good: Path, own: str, id_: str) -> None:
    write(good, "trust_domains.yaml", RULES)
    agent(good, id_, "[dev, staging]")
    assert len(load(good, own).registry) == 2


@pytest.mark.parametrize(
    "id_",
    [
        "spiffe_id: spiffe://partner.org/agent/executor",
        "spiffe_id: spiffe://partner.org/agent/planner/two",
        "spiffe_id: spiffe://partner.org/agent",
        "spiffe_id: spiffe://partner.org/ns/a/job/b/c",
        "spiffe_id_pattern: 'spiffe://partner.org/agent/{name}'",
        "spiffe_id_pattern: 'spiffe://partner.org/{kind}/a/job/b'",
        "spiffe_id_pattern: 'spiffe://partner.org/ns/{namespace}/{kind}/b'",
        "spiffe_id_pattern: 'spiffe://partner.org/ns/{n}/{kind}/b'\nsegments: {kind: {enum: [job, cron]}}",
        "spiffe_id_pattern: 'spiffe://partner.org/ns/{n}/{kind}/b'\nsegments: {kind: {regex: '^job$'}}",
    ],
)
def test_what_they_do_not_allow_has_file_and_line(good: Path, id_: str) -> None:
    write(good, "trust_domains.yaml", RULES)
    agent(good, id_)
    field = id_.partition(":")[0]
    ((file, line, where, told),) = problems(good, "example.org")
    assert (file, line, where) == ("partner.yaml", 1, field)
    assert "is not among what trust_domains.yaml allows of partner.org" in told


def test_the_ceiling_of_environments(good: Path) -> None:
    write(good, "trust_domains.yaml", RULES)
    agent(good, PARTNER, "[dev, production]")
    ((file, line, field, told),) = problems(good, "example.org")
    assert (file, line, field) == ("partner.yaml", 5, "environments.1")
    assert "production is more than trust_domains.yaml allows" in told


@pytest.mark.parametrize("rules", [None, RULES.replace("partner.org", "other.org")])
@pytest.mark.parametrize("own", ["", "example.org"])
def test_a_trust_domain_without_a_rule_registers_nobody(good: Path, rules: str | None, own: str) -> None:
    if rules:
        write(good, "trust_domains.yaml", rules)
    agent(good, PARTNER)
    found = problems(good, own)
    assert len(found) == 1
    if own:
        assert found[0][:3] == ("partner.yaml", 1, "spiffe_id")
        assert "is of the trust domain partner.org, which is not the broker's own (example.org)" in found[0][3]


def test_agents_of_one_trust_domain_alone_are_taken_for_the_own_only_where_it_is_not_known(good: Path) -> None:
    assert len(load(good).registry) == 1
    ((file, _, _, told),) = problems(good, "partner.org")
    assert (file, "not the broker's own (partner.org)" in told) == ("analyst.yaml", True)


def test_the_own_trust_domain_is_not_federated_with(good: Path) -> None:
    write(good, "trust_domains.yaml", RULES.replace("partner.org", "example.org"))
    found = problems(good, "example.org")
    assert ("trust_domains.yaml", 2, "trust_domains.example.org", "is the broker's own trust domain") in found


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("/agent/planner", "agent/planner", "begins with /"),
        ("/agent/planner", "/agent/../planner", "dotted"),
        ("/agent/planner", "/agent/*", "path segment"),
        ("/agent/planner", "''", "begins with /"),
        ("'/ns/{namespace}/job/{job}'", "'/{a}/{b}'", "no literal segment"),
        ("'/ns/{namespace}/job/{job}'", "'/ns/x{a}/b'", "only whole segments"),
        ("[/agent/planner, '/ns/{namespace}/job/{job}', '/team/{team}/bot']", "[]", "at least 1"),
        ("[dev, staging]", "[]", "at least 1"),
        ("partner.org", "Partner.org", "trust domain"),
        ("    environments", "    deny: [/x]\n    environments", "not a known key"),
    ],
)
def test_rules_that_are_none(good: Path, old: str, new: str, told: str) -> None:
    write(good, "trust_domains.yaml", RULES.replace(old, new, 1))
    agent(good, PARTNER)
    assert any(file == "trust_domains.yaml" and told in message for file, _, _, message in problems(good)), problems(
        good
    )


def test_broker_check_tells_it(good: Path) -> None:
    from click.testing import CliRunner

    agent(good, PARTNER)
    told = CliRunner().invoke(cli, ["check", str(good)])
    assert told.exit_code == 1
    assert "partner.org" in told.stderr
    write(good, "trust_domains.yaml", RULES)
    assert CliRunner().invoke(cli, ["check", str(good)]).exit_code == 0
    # With brokerd's configuration beside it, it is known which trust domain is the own one.
    for own, code in (("example.org", 0), ("partner.org", 1)):
        config = private(good.parent / "brokerd.yaml", CONFIG.replace("example.org", own))
        assert CliRunner().invoke(cli, ["check", str(config), str(good)]).exit_code == code
    assert load(good).registry.find(SpiffeId.parse("spiffe://partner.org/agent/planner"))
