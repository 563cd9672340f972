"""Which quotas a request falls under, and by what it is counted there."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.identity.agent import AgentPattern, Person, Quotas, Registry, Tier
from broker.identity.pattern import IdPattern
from broker.policy.quotas import Asked, Counted, Per, Quota, Rate, belongs, counted, person_key
from tests.issuance.world import ALICE, BOB, OWNER, agent

ASKED = Asked(ALICE, "task-1", "orders-read", "bao")


@pytest.mark.parametrize(
    ("per", "subject", "shown"),
    [
        (Per.AGENT, "spiffe://test/agent/alice", "spiffe://test/agent/alice"),
        (Per.ENTRY, "alice", "alice"),
        (Per.OWNER, "https://idp.test ada", "Ada"),
        (Per.TASK, "task-1", "task-1"),
        (Per.TEMPLATE, "orders-read", "orders-read"),
        (Per.CONNECTOR, "bao", "bao"),
    ],
)
def test_what_a_request_is_counted_by(per: Per, subject: str, shown: str) -> None:
    quota = Quota("q", per, 1)
    assert counted([quota], ASKED) == (Counted(quota, subject, shown),)


def test_every_quota_that_holds_is_counted_in_the_order_they_are_written() -> None:
    others = Quota("others", Per.AGENT, 1, only=frozenset({"bob"}))
    quotas = [Quota("z", Per.TASK, 1), others, Quota("a", Per.AGENT, 1)]
    assert [each.quota.name for each in counted(quotas, ASKED)] == ["z", "a"]


@pytest.mark.parametrize(
    ("quota", "falls"),
    [
        (Quota("q", Per.AGENT, 1, only=frozenset({"alice"})), True),  # by the name of its entry
        (Quota("q", Per.AGENT, 1, only=frozenset({"bob"})), False),
        (Quota("q", Per.OWNER, 1, only=frozenset({person_key(OWNER)})), True),
        (Quota("q", Per.OWNER, 1, only=frozenset({"https://idp.test eve"})), False),
        (Quota("q", Per.TEMPLATE, 1, only=frozenset({"orders-read", "other"})), True),
        (Quota("q", Per.CONNECTOR, 1, only=frozenset({"aws"})), False),
        (Quota("q", Per.ENTRY, 1, tiers=frozenset({Tier.SEMI_AUTONOMOUS})), True),
        (Quota("q", Per.ENTRY, 1, tiers=frozenset({Tier.AUTONOMOUS})), False),
        (Quota("q", Per.AGENT, 1, only=frozenset({"alice"}), tiers=frozenset({Tier.AUTONOMOUS})), False),
    ],
)
def test_for_whom_a_quota_is(quota: Quota, falls: bool) -> None:
    assert bool(counted([quota], ASKED)) is falls


def test_the_interval() -> None:
    assert Rate(30, timedelta(minutes=1)).interval == timedelta(seconds=2)


def test_who_belongs_to_an_entry_and_to_an_owner() -> None:
    eve = Person("https://idp.test", "eve", "Eve")
    jobs = AgentPattern(
        "jobs", IdPattern.parse("spiffe://test/job/{job}"), eve, Tier.ADVISORY, frozenset(), frozenset(), Quotas(1, 1)
    )
    registry = Registry([ALICE, BOB, replace(agent("carol"), owner=eve)], [jobs])
    of_jobs, of_eve = belongs(registry, Per.ENTRY, "jobs"), belongs(registry, Per.OWNER, person_key(eve))
    holders = [f"spiffe://test{path}" for path in ("/job/a", "/job/b", "/agent/carol", "/agent/alice", "/gone", "")]
    assert [of_jobs(holder) for holder in holders] == [True, True, False, False, False, False]
    assert [of_eve(holder) for holder in holders] == [True, True, True, False, False, False]
    assert not of_jobs("no SPIFFE ID at all")
