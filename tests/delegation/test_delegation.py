"""Handing on: who to, how often, and never more than there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.delegation.delegation import Delegation, check_hand_over, check_redemption, handed
from broker.errors import BrokerError, Denied, InvalidInput, NotFound, Reason, WrongState
from broker.identity.party import Party
from broker.scope.containment import Reach, contains
from broker.scope.narrowing import Narrowing, Narrowings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ANN, BEN, CAT = (Party(f"spiffe://d/{name}", name) for name in ("ann", "ben", "cat"))
COMPARED = Narrowings(Narrowing.FOLDER, {})
WHOLE = Reach(
    "orders",
    "d1",
    "db",
    "dev",
    "dev",
    "orders",
    "read",
    frozenset({"select"}),
    {"p": "1"},
    ends_at=NOW + timedelta(minutes=5),
    further=0,
)
GIVEN = Delegation(
    tenant="t",
    id="delegation-1",
    task_id="task-1",
    lease_id="lease-1",
    chain=(ANN,),
    delegate=BEN,
    resource="orders/eu",
    parameters={"p": "1"},
    further=0,
    created_at=NOW,
    expires_at=NOW + timedelta(minutes=2),
)


def hand(delegation: Delegation = GIVEN, whole: Reach = WHOLE, depth: int = 1) -> None:
    check_hand_over(delegation, whole, handed(delegation, whole), COMPARED, depth)


def test_a_part_can_be_handed_on() -> None:
    hand()
    hand(replace(GIVEN, resource="orders", expires_at=NOW + timedelta(minutes=5)))
    hand(replace(GIVEN, chain=(ANN, CAT)), depth=2)


@pytest.mark.parametrize(
    ("changes", "whole", "depth", "family", "reason"),
    [
        ({"delegate": ANN}, {}, 1, InvalidInput, Reason.DELEGATION_CIRCULAR),
        ({"chain": (BEN, ANN)}, {"further": 5}, 9, InvalidInput, Reason.DELEGATION_CIRCULAR),
        ({"delegate": Party("spiffe://d/ann-2", "ann")}, {}, 1, InvalidInput, Reason.DELEGATION_CIRCULAR),
        ({"delegate": Party("spiffe://d/ann", "renamed")}, {}, 1, InvalidInput, Reason.DELEGATION_CIRCULAR),
        ({}, {"further": -1}, 1, Denied, Reason.DELEGATION_TOO_DEEP),
        ({}, {}, 0, Denied, Reason.DELEGATION_TOO_DEEP),
        ({"chain": (ANN, CAT)}, {"further": 1}, 1, Denied, Reason.DELEGATION_TOO_DEEP),
        ({"further": 1}, {"further": 5}, 1, Denied, Reason.DELEGATION_TOO_DEEP),
        ({"further": 2}, {"further": 1}, 9, Denied, Reason.DELEGATION_EXCEEDED),
        ({"resource": "orders-eu"}, {}, 1, Denied, Reason.DELEGATION_EXCEEDED),
        ({"resource": "all"}, {}, 1, Denied, Reason.DELEGATION_EXCEEDED),
        ({"parameters": {}}, {}, 1, Denied, Reason.DELEGATION_EXCEEDED),
        ({"expires_at": NOW + timedelta(minutes=5, milliseconds=1)}, {}, 1, Denied, Reason.DELEGATION_EXCEEDED),
    ],
)
def test_what_is_not_handed_on(
    changes: dict[str, Any], whole: dict[str, Any], depth: int, family: type[BrokerError], reason: Reason
) -> None:
    with pytest.raises(family) as refused:
        hand(replace(GIVEN, **changes), replace(WHOLE, **whole), depth)
    assert refused.value.reason is reason


def redeem(delegation: Delegation = GIVEN, whole: Reach = WHOLE, **changes: Any) -> None:
    asked = replace(handed(delegation, whole), further=0)
    values: dict[str, Any] = {"task_id": "task-1", "delegate": BEN, "asked": asked, "now": NOW}
    values |= changes
    check_redemption(delegation, values["task_id"], values["delegate"], whole, values["asked"], COMPARED, values["now"])


def test_what_was_handed_on_can_be_redeemed() -> None:
    redeem()
    redeem(asked=replace(handed(GIVEN, WHOLE), resource="orders/eu/de"))


@pytest.mark.parametrize(
    ("changes", "asked", "family", "reason"),
    [
        ({"task_id": "task-2"}, {}, NotFound, Reason.DELEGATION_NOT_FOUND),
        ({"delegate": CAT}, {}, NotFound, Reason.DELEGATION_NOT_FOUND),
        # The delegate is a workload, not its entry.
        ({"delegate": Party("spiffe://d/ben-2", "ben")}, {}, NotFound, Reason.DELEGATION_NOT_FOUND),
        ({"now": GIVEN.expires_at}, {}, WrongState, Reason.DELEGATION_ENDED),
        ({}, {"resource": "orders"}, Denied, Reason.DELEGATION_EXCEEDED),  # the lease has it, and did not give it
        ({}, {"account": "prod"}, Denied, Reason.DELEGATION_EXCEEDED),
        ({}, {"ends_at": GIVEN.expires_at + timedelta(milliseconds=1)}, Denied, Reason.DELEGATION_EXCEEDED),
        ({}, {"ends_at": None}, Denied, Reason.DELEGATION_EXCEEDED),
    ],
)
def test_what_was_not_handed_on_is_refused(
    changes: dict[str, Any], asked: dict[str, Any], family: type[BrokerError], reason: Reason
) -> None:
    with pytest.raises(family) as refused:
        redeem(asked=replace(handed(GIVEN, WHOLE), **asked), **changes)
    assert refused.value.reason is reason


def test_the_live_lease_counts_not_what_was_said_when_it_was_handed_on() -> None:
    """The lease has become shorter since: activation may only shorten it."""
    shorter = replace(WHOLE, ends_at=NOW + timedelta(minutes=1))
    with pytest.raises(Denied) as refused:
        redeem(GIVEN, shorter, asked=replace(handed(GIVEN, shorter), ends_at=GIVEN.expires_at))
    assert refused.value.reason is Reason.DELEGATION_EXCEEDED


PARTS = st.sampled_from(["orders", "orders/eu", "orders/eu/de", "orders/us", "all"])
ENDS = st.integers(0, 6).map(lambda minutes: NOW + timedelta(minutes=minutes))


@settings(deadline=None)
@given(PARTS, PARTS, PARTS, ENDS, ENDS, ENDS)
def test_whatever_is_redeemed_lies_within_the_live_lease(
    held: str, given_: str, wanted: str, held_until: datetime, given_until: datetime, wanted_until: datetime
) -> None:
    """Along a hand-over, whatever anybody says: what comes out is within both, or nothing comes out."""
    whole = replace(WHOLE, resource=held, ends_at=held_until)
    delegation = replace(GIVEN, resource=given_, expires_at=given_until)
    asked = replace(whole, resource=wanted, ends_at=wanted_until)
    try:
        redeem(delegation, whole, asked=asked)
    except BrokerError:
        return
    assert contains(whole, asked, COMPARED)
    assert contains(handed(delegation, whole), asked, COMPARED)


def test_what_was_taken_back_is_over_before_its_time() -> None:
    with pytest.raises(WrongState) as refused:
        redeem(replace(GIVEN, revoked_at=NOW))
    assert refused.value.reason is Reason.DELEGATION_ENDED
    assert refused.value.metadata == {"delegationId": "delegation-1", "expireTime": "2026-01-01T00:02:00+00:00"}


def test_it_is_over_at_its_end_and_not_before() -> None:
    redeem(now=GIVEN.expires_at - timedelta(microseconds=1))


def test_what_is_handed_on_is_the_lease_but_for_what_the_delegation_says() -> None:
    own = {"resource": "orders/eu", "parameters": {"q": "2"}, "ends_at": GIVEN.expires_at, "further": 3}
    given_ = handed(replace(GIVEN, parameters={"q": "2"}, further=3), WHOLE)
    assert given_ == replace(WHOLE, **own)


def test_the_delegator_is_who_held_it_last() -> None:
    assert replace(GIVEN, chain=(ANN, CAT)).delegator is CAT


@pytest.mark.parametrize(
    ("refused", "metadata"),
    [
        (lambda: hand(replace(GIVEN, delegate=ANN)), {"leaseId": "lease-1", "delegate": "spiffe://d/ann"}),
        (lambda: hand(depth=0), {"leaseId": "lease-1", "maxDepth": "0"}),
        (
            lambda: hand(replace(GIVEN, resource="all", parameters={})),
            {"leaseId": "lease-1", "delegationId": "delegation-1", "dimensions": "resource,parameter p"},
        ),
        (lambda: redeem(task_id="task-2"), {"delegationId": "delegation-1"}),
    ],
)
def test_a_refusal_says_of_what_it_speaks(refused: Callable[[], None], metadata: dict[str, str]) -> None:
    with pytest.raises(BrokerError) as told:
        refused()
    assert told.value.metadata == metadata
    assert told.value.hint
