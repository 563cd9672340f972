"""``policies/*.test.yaml`` as part of a set: what is taken, what is refused and where, and what it does not change."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from broker.deployfiles import listing, load
from broker.deployfiles.load import policy_tests
from broker.deployfiles.policy_tests import DEFAULT_TIME, PolicyTest
from broker.deployfiles.source import DeployFiles
from broker.files import Problems
from broker.identity.agent import Delivery
from broker.lease.credential import ContractClass
from tests.deployfiles.test_broken import HERE, private_copy
from tests.deployfiles.test_load import refusals

GOOD = """\
given: {account: dev, environment: dev, resource: orders, ttl: 1m}
tests:
  - name: reads
    request: {agent: analyst, template: orders}
    expect: {effect: allow, policies: [read]}
  - name: everything that can be said
    request:
      agent: spiffe://example.org/agent/analyst
      template: orders
      parameters: {day: "2026-11"}
      ttl: 5m
      time: "2026-12-24T18:00:00+01:00"
      ticket: T-1
      plan: true
      delivery: proxy
      sealed: true
      suppose: {contract_class: STATIC, bound_on_broker_dead: 5s, template_environments: [production]}
    expect: {effect: deny, reason: PARAMETER_UNKNOWN}
"""
FILE = "policies/read.test.yaml"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    directory = private_copy(HERE / "good", tmp_path / "set")
    (directory / FILE).write_text(GOOD)
    (directory / FILE).chmod(0o600)
    return directory


def read_tests(directory: Path) -> list[PolicyTest]:
    return policy_tests(listing.read_set(directory))


def test_what_is_said_is_what_is_tried(good: Path) -> None:
    first, second = read_tests(good)
    assert (first.file, first.line, first.name) == (str(good / FILE), 3, "reads")
    assert (first.trial.now, first.trial.request.ttl) == (DEFAULT_TIME, timedelta(minutes=1))
    assert (first.trial.request.plan, first.trial.request.recipient_public_key) == ("", b"")
    assert first.trial.supposed.contract == {}
    asked = second.trial
    assert (asked.now.hour, asked.now.utcoffset()) == (18, timedelta(hours=1))
    assert (asked.request.account, asked.request.ttl) == ("dev", timedelta(minutes=5))  # given, and said otherwise
    assert asked.request.plan and asked.request.recipient_public_key and not asked.request.prompt
    assert asked.delivery is Delivery.PROXY
    assert asked.supposed.contract == {"cls": ContractClass.STATIC, "on_broker_dead": timedelta(seconds=5)}
    assert asked.supposed.agent_environments == frozenset()


def test_tests_are_in_the_digest_of_the_set_and_not_in_that_of_the_policies(good: Path) -> None:
    with_tests = load(good)
    (good / FILE).unlink()
    without = load(good)
    assert with_tests.digest != without.digest
    assert with_tests.policies.digest == without.policies.digest
    assert len(with_tests.policies) == len(without.policies)


def test_tests_alone_are_no_policies(good: Path) -> None:
    (good / "policies/read.cedar").unlink()
    assert any("has no *.cedar" in refusal for refusal in refusals(good))


@pytest.mark.parametrize("name", ["read.test.yml", "read.yaml", "test.txt"])
def test_a_file_that_would_not_be_run_is_refused(good: Path, name: str) -> None:
    (good / FILE).rename(good / "policies" / name)
    assert refusals(good) == [
        f"policies/{name}:1: is not part of a deploy set (Files of policies end in .cedar or .test.yaml.)"
    ]


def test_one_that_others_may_write_is_refused(good: Path) -> None:
    (good / FILE).chmod(0o646)
    assert refusals(good)[0].startswith(f"{FILE}:1: is writable by the world")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("effect: allow, ", "", "5: tests.0.expect.effect: is missing"),
        ("effect: allow", "effect: perhaps", "5: tests.0.expect.effect: must be 'allow', 'deny' or 'nee"),
        ("policies: [read]}", "approvals: [x]}", "5: tests.0.expect.approvals: are missing, and allow is expected"),
        ("contract_class: STATIC", "approvals: [owners]", "17: tests.1.request.suppose.approvals.0: owners is no rule"),
        ("contract_class: STATIC", "on_behalf_of: kim", "17: tests.1.request.suppose.on_behalf_of: kim is not in"),
        ("contract_class: STATIC", "plan: perhaps", "17: tests.1.request.suppose.plan: must be '', 'registered'"),
        ("contract_class: STATIC", "active_count: -1", "17: tests.1.request.suppose.active_count: "),
        ("policies: [read]", "policies: [raed]", "5: tests.0.expect.policies.0: 'raed' is no policy of this set"),
        ("policies: [read]", "reason: POLICY_DENIED", "5: tests.0.expect.reason: is of refusals"),
        ("PARAMETER_UNKNOWN", "PARAMETER_UNKNWON", "18: tests.1.expect.reason: must be 'SVID_MISSING'"),
        ("agent: analyst", "agent: analist", "4: tests.0.request.agent: 'analist' is no entry"),
        ("{agent: analyst, ", "{", "3: tests.0.request.agent: is missing (Say it here, or for all in given.)"),
        (", ttl: 1m", "", "3: tests.0.request.ttl: is missing"),
        ("ttl: 1m", "ttl: 60", "1: given.ttl: must be a duration"),
        ("ttl: 5m", "ttl: 0s", "11: tests.1.request.ttl: must be a duration"),
        ("agent: spiffe://example.org/", "agent: SPIFFE://example.org/", "8: tests.1.request.agent: "),
        ("18:00:00+01:00", "18:00:00", "12: tests.1.request.time: must be a time with its offset"),
        ('"2026-12-24T18:00:00+01:00"', '"tonight"', "12: tests.1.request.time: must be a time with its offset"),
        ("2026-12-24T18:00:00+01:00", "0001-01-01T00:00:00+14:00", "12: tests.1.request.time: must be a time"),
        ("2026-12-24T18:00:00+01:00", "9999-12-31T23:00:00-01:00", "12: tests.1.request.time: must be a time"),
        ("plan: true", "plan: because", "14: tests.1.request.plan: must be a valid boolean"),
        ("plan: true", "plan:", "14: tests.1.request.plan: is empty"),
        ("ticket: T-1", "tikcet: T-1", "13: tests.1.request.tikcet: is not a known key"),
        ("delivery: proxy", "delivery: pigeon", "15: tests.1.request.delivery: must be 'direct' or 'proxy'"),
        ("name: everything that can be said", "name: reads", "6: tests.1.name: comes twice (It is already in line 3.)"),
        ("contract_class: STATIC", "contract_class: NEVER", "17: "),
        ("  - name: reads", "  - nam: reads", "3: tests.0.nam"),
        ("tests:", "tests: [", "3: "),
    ],
)
def test_what_is_wrong_is_told_with_file_line_and_field(good: Path, old: str, new: str, told: str) -> None:
    assert old in GOOD
    (good / FILE).write_text(GOOD.replace(old, new, 1))
    assert any(refusal.startswith(f"{FILE}:{told}") for refusal in refusals(good)), refusals(good)


def test_a_pattern_has_no_single_agent(good: Path) -> None:
    jobs = good / "agents/jobs.yaml"
    jobs.write_text(
        "spiffe_id_pattern: spiffe://example.org/job/{job}\ndescription: Jobs.\nowner: dana\n"
        "tier: autonomous\nenvironments: [dev]\n"
    )
    jobs.chmod(0o600)
    (good / FILE).write_text(GOOD.replace("agent: analyst", "agent: jobs"))
    (refusal,) = refusals(good)
    assert "is the entry of a pattern, and stands for many agents (Write the SPIFFE ID of one of them.)" in refusal
    (good / FILE).write_text(GOOD.replace("agent: analyst", 'agent: "spiffe://example.org/job/x"'))
    load(good)


def test_a_broken_test_file_hides_nothing_else(good: Path) -> None:
    (good / FILE).write_text("nonsense: [")
    with pytest.raises(Problems):
        read_tests(good)
    agent = good / "agents/analyst.yaml"
    agent.write_text(agent.read_text().replace("owner: dana", "owner: mallory"))
    assert [refusal.split(":")[0] for refusal in refusals(good)] == ["agents/analyst.yaml", FILE]


def test_a_broker_serves_without_what_only_a_test_names(good: Path) -> None:
    """An agent that is taken out is gone, although a test still names it; `broker check` tells of the test."""
    (good / FILE).write_text(GOOD.replace("agent: analyst", "agent: analist"))
    assert len(refusals(good)) == 1
    source = DeployFiles(good)
    (good / FILE).write_text("nonsense: [")
    assert source.load().digest != source.current.digest
