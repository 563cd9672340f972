"""What each replica counts or remembers by itself (docs/replicas.md): so many of them let through so much, and no more.

The replicas' counters are side by side here, as in processes that do not hear of each other. What is asked goes round
them in turn, which is the worst that an agent can do.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import count, cycle
from typing import TypeVar

import pytest

from broker.errors import BrokerError, Denied, Reason
from broker.escalation.detect import Detector
from broker.escalation.rules import Answer, Counts, Mode, Rule, Sighting
from broker.identity.jwt_svid import JwtSvid
from broker.identity.spiffe_id import SpiffeId
from broker.identity.token_bindings import TokenBindings
from broker.issuance.looks import LookBudget
from broker.issuance.refusals import RefusalBudget
from broker.policy.quotas import Rate
from broker.policy.rate import RateTable
from tests.clock import START

T = TypeVar("T")
REPLICAS = (1, 2, 3)
MINUTE = timedelta(minutes=1)
BUDGET = 20
ENOUGH = 1_000  # asked: far above every bound here


def let_through(replicas: list[T], one: Callable[[T], bool]) -> int:
    """How many of very many at one moment, in turn."""
    turn = cycle(replicas)
    return sum(one(next(turn)) for _ in range(ENOUGH))


@pytest.mark.parametrize("number", REPLICAS)
def test_a_rate_is_each_replicas(number: int) -> None:
    rate = Rate(10, MINUTE)

    def asked(table: RateTable) -> bool:
        if table.wait("alice", rate, START):
            return False
        table.spend("alice", rate, START)
        return True

    assert let_through([RateTable() for _ in range(number)], asked) == number * 10


@pytest.mark.parametrize("number", REPLICAS)
def test_refusals_written_by_themselves_are_each_replicas(number: int) -> None:
    budgets = [RefusalBudget() for _ in range(number)]
    written = let_through(budgets, lambda each: each.admit("alice", "POLICY_DENIED", START)[1])
    assert written == number * BUDGET
    folded = [dict(counts) for each in budgets for _, counts in each.close_windows(START + MINUTE)]
    # None is lost: the others are in the trail by their number.
    assert sum(each["POLICY_DENIED"] for each in folded) == ENOUGH - written


@pytest.mark.parametrize("number", REPLICAS)
def test_looks_written_by_themselves_are_each_replicas(number: int) -> None:
    lease = count()
    budgets = [LookBudget() for _ in range(number)]
    written = let_through(budgets, lambda each: each.admit("sam", "GetLease", {"id": str(next(lease))}, START))
    assert written == number * BUDGET


@pytest.mark.parametrize("number", REPLICAS)
def test_escalation_fires_at_the_latest_with_the_one_that_any_replica_must_have_seen_often_enough(number: int) -> None:
    enough = 5
    rule = Rule("acted", Counts.REFUSALS, enough, MINUTE, Mode.ENFORCE, Answer.COOL_DOWN)
    detectors = cycle([Detector() for _ in range(number)])

    def fires(request: int) -> bool:
        sighting = Sighting(
            "spiffe://test/a", "entry", START, Reason.POLICY_DENIED, Denied, "Ask", f"r{request}", "t", "x"
        )
        return bool(next(detectors).see([rule], sighting))

    first = next(request for request in range(1, ENOUGH) if fires(request))
    assert first == number * (enough - 1) + 1


def test_a_proxied_token_is_bound_by_each_replica_until_its_life_is_over() -> None:
    here, there = TokenBindings(), TokenBindings()
    east, west = (SpiffeId("example.org", f"/proxy/{name}") for name in ("east", "west"))
    token = JwtSvid(SpiffeId("example.org", "/agent/one"), START, START + 5 * MINUTE, "token", "key")
    last = START + 5 * MINUTE - timedelta(seconds=1)
    here.bind(token, east, START)
    there.bind(token, west, START)
    for bindings, stranger in ((here, west), (there, east)):
        with pytest.raises(BrokerError) as refused:
            bindings.bind(token, stranger, last)
        assert refused.value.reason is Reason.JWT_SVID_OF_ANOTHER_PROXY
