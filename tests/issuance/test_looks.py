"""What of people's looking is told, and that it cannot fill the trail."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from broker.audit.event import EventType
from broker.issuance.looks import LookBudget, look, summary

T0 = datetime(2031, 5, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def test_the_first_look_at_something_is_told_and_the_same_again_is_counted() -> None:
    budget = LookBudget()
    assert budget.admit("sam", "GetLease", {"lease_id": "lease-1"}, T0)
    assert budget.admit("sam", "GetLease", {"lease_id": "lease-2"}, T0)
    assert budget.admit("sam", "GetTask", {}, T0)
    assert budget.admit("kim", "GetTask", {}, T0)
    for _ in range(3):
        assert not budget.admit("sam", "GetLease", {"lease_id": "lease-1"}, T0)
    assert budget.close_windows(T0 + MINUTE - timedelta(milliseconds=1)) == []
    assert budget.close_windows(T0 + MINUTE) == [("sam", {"GetLease": 3})]
    assert budget.admit("sam", "GetLease", {"lease_id": "lease-1"}, T0 + MINUTE)  # a new window
    assert budget.close_windows(T0 + MINUTE, every=True) == []  # nothing was folded


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 9)), max_size=200))
def test_every_look_is_told_or_counted_and_what_is_told_is_bounded(looks: list[tuple[str, str, int]]) -> None:
    budget = LookBudget(per_window=5)
    told = [who for who, method, id_ in looks if budget.admit(who, method, {"id": str(id_)}, T0)]
    counted = sum(sum(counts.values()) for _, counts in budget.close_windows(T0, every=True))
    assert len(told) + counted == len(looks)
    assert all(told.count(who) <= 5 for who in "ab")
    # Whoever looked at all is told by name, once at least.
    assert set(told) == {who for who, _, _ in looks}


def test_the_events() -> None:
    event = look("t", "sam", "/s/GetLease", {"lease_id": "lease-1"})
    assert (event.type, event.actor, event.lease_id, event.task_id) == (EventType.ADMIN_READ, "sam", "lease-1", "")
    assert event.data == {"method": "/s/GetLease", "about": {"lease_id": "lease-1"}}
    folded = summary("t", "sam", {"/s/GetLease": 3})
    assert (folded.type, folded.data) == (EventType.ADMIN_READS_SUMMARISED, {"counts": {"/s/GetLease": 3}})
