"""quotas.yaml, and the allow list of tools in an agent's file."""

from datetime import timedelta
from pathlib import Path

import pytest

from broker.deployfiles import load
from broker.files import Problems
from broker.identity.agent import Tier
from broker.policy.quotas import Per, Quota, Rate, person_key
from tests.deployfiles.test_broken import HERE, private_copy


def deployed(directory: Path, quotas: str = "", agent: str = "") -> Path:
    copy = private_copy(HERE / "good", directory / "set")
    if quotas:
        (copy / "quotas.yaml").write_text(quotas)
        (copy / "quotas.yaml").chmod(0o644)
    if agent:
        file = copy / "agents" / "analyst.yaml"
        file.write_text(file.read_text() + agent)
    return copy


def test_a_set_without_the_file_bounds_nothing(tmp_path: Path) -> None:
    assert load(deployed(tmp_path)).quotas == ()


def test_what_is_read(tmp_path: Path) -> None:
    text = """\
quotas:
  busy-agents: {per: agent, tiers: [autonomous], live_leases: 5, requests: 30, within: 1m}
  danas: {per: owner, only: [dana], live_leases: 50}
  reports: {per: template, only: [reports], requests: 1, within: 10s}
"""
    deploy = load(deployed(tmp_path, text))
    assert deploy.quotas == (
        Quota("busy-agents", Per.AGENT, 5, Rate(30, timedelta(minutes=1)), tiers=frozenset({Tier.AUTONOMOUS})),
        Quota("danas", Per.OWNER, 50, only=frozenset({person_key(deploy.people["dana"])})),
        Quota("reports", Per.TEMPLATE, None, Rate(1, timedelta(seconds=10)), only=frozenset({"reports"})),
    )


@pytest.mark.parametrize(
    ("entry", "field", "told"),
    [
        ("{per: agent}", "quotas.q", "bounds nothing"),
        ("{per: agent, requests: 5}", "quotas.q", "requests and within together"),
        ("{per: agent, within: 5s, live_leases: 1}", "quotas.q", "requests and within together"),
        ("{per: agent, live_leases: 0}", "quotas.q.live_leases", "greater than or equal to 1"),
        ("{per: agent, live_leases: -1}", "quotas.q.live_leases", "greater than or equal to 1"),
        ('{per: agent, live_leases: "5"}', "quotas.q.live_leases", "must be a valid integer"),
        ("{per: agent, live_leases: }", "quotas.q", "bounds nothing"),
        ("{per: agent, requests: 0, within: 1m}", "quotas.q.requests", "greater than or equal to 1"),
        ("{per: agent, requests: 5, within: 0s}", "quotas.q.within", "must be a duration"),
        ("{per: everybody, live_leases: 1}", "quotas.q.per", "must be 'agent'"),
        ("{live_leases: 1}", "quotas.q.per", "is missing"),
        ("{per: agent, live_lease: 1}", "quotas.q.live_lease", "is not a known key"),
        ("{per: owner, tiers: [advisory], live_leases: 1}", "quotas.q", "says tiers"),
        ("{per: task, only: [task-1], live_leases: 1}", "quotas.q", "tasks have no names"),
        ("{per: agent, only: [nobody], live_leases: 1}", "quotas.q.only.0", "nobody is not a file of agents/"),
        ("{per: entry, only: [analyst, nobody], live_leases: 1}", "quotas.q.only.1", "nobody is not a file of agents/"),
        ("{per: owner, only: [nobody], live_leases: 1}", "quotas.q.only.0", "nobody is not in people.yaml"),
        ("{per: template, only: [nothing], live_leases: 1}", "quotas.q.only.0", "nothing is not a template"),
        ("{per: connector, only: [volt], live_leases: 1}", "quotas.q.only.0", "volt is not in connectors.yaml"),
        ("{per: connector, only: [aws, aws], live_leases: 1}", "quotas.q.only", "lists aws twice"),
    ],
)
def test_what_is_wrong_is_told(entry: str, field: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(Problems) as caught:
        load(deployed(tmp_path, f"quotas:\n  q: {entry}\n"))
    found = [(Path(each.file).name, each.line, each.field) for each in caught.value.problems]
    assert ("quotas.yaml", 2, field) in found
    assert any(told in each.message for each in caught.value.problems), caught.value


def test_an_agents_tools(tmp_path: Path) -> None:
    (agent,) = load(deployed(tmp_path, agent="tools: [sql.read, mcp:notes/add]\n")).registry
    assert agent.tools == {"sql.read", "mcp:notes/add"}


@pytest.mark.parametrize(
    ("tools", "told"),
    [
        ("[]", "at least 1 item"),  # an empty list would read as: none, and mean: any
        ("[a, a]", "lists a twice"),
        ('["a b"]', "must match"),
        ('[""]', "must match"),
        ("sql.read", "must be a list"),
    ],
)
def test_a_list_of_tools_that_cannot_be_meant(tools: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(Problems, match=told):
        load(deployed(tmp_path, agent=f"tools: {tools}\n"))
