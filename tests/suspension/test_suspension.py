"""What covers whom, and until when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from broker.suspension.suspension import Kind, Lift, Subject, Suspension, suspended

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALICE = "spiffe://example.org/agent/alice"
ALL = Subject(ALICE, "alice", "https://idp.test#ada", "task-1", "orders", "bao", "acme")
VALUES = {
    Kind.AGENT: ALICE,
    Kind.ENTRY: "alice",
    Kind.OWNER: "https://idp.test#ada",
    Kind.TASK: "task-1",
    Kind.TEMPLATE: "orders",
    Kind.CONNECTOR: "bao",
    Kind.ACCOUNT: "acme",
    Kind.TRUST_DOMAIN: "example.org",
    Kind.EVERYTHING: "",
}


def made(kind: Kind, value: str, **changes: object) -> Suspension:
    values = {"until": None, "first": None, "lifted": None, "trusted": True, **changes}
    return Suspension("t", "susp-1", kind, value, "it went mad", "i#s", "Ada", NOW, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", Kind)
def test_each_kind_looks_at_its_own_value_and_at_no_other(kind: Kind) -> None:
    assert made(kind, VALUES[kind]).covers(ALL)
    for other in Kind:
        if other is not kind and kind is not Kind.EVERYTHING:
            assert not made(kind, VALUES[other]).covers(ALL), other


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.EVERYTHING])
def test_an_empty_value_is_nobodys(kind: Kind) -> None:
    nothing = Subject("", "", "")
    assert not made(kind, "").covers(nothing)
    assert not made(kind, "").covers(ALL)
    assert not made(kind, VALUES[kind]).covers(nothing)


def test_when_it_is_in_force() -> None:
    later = NOW + timedelta(seconds=10)
    assert made(Kind.AGENT, ALICE).in_force(later)
    timed = made(Kind.AGENT, ALICE, until=later)
    assert timed.in_force(later - timedelta(milliseconds=1))
    assert not timed.in_force(later)
    assert not made(Kind.AGENT, ALICE, lifted=Lift("i#e", "Eve", "done", NOW)).in_force(NOW)


def test_one_that_cannot_be_believed_stops_everybody_whatever_it_says() -> None:
    over = made(Kind.AGENT, "somebody", until=NOW, lifted=Lift("i#e", "Eve", "done", NOW), trusted=False)
    assert over.in_force(NOW + timedelta(days=9999))
    assert over.covers(ALL)
    assert over.needs_two
    assert "changed by something other than the broker" in suspended(over).message


def test_what_the_stopped_hear() -> None:
    told = suspended(made(Kind.TRUST_DOMAIN, "example.org", until=NOW))
    assert told.message == "trust domain example.org is suspended until 2026-01-01T00:00:00+00:00: it went mad"
    assert told.hint.startswith("Ask Ada.")
    assert told.metadata == {
        "suspensionId": "susp-1",
        "kind": "TRUST_DOMAIN",
        "ask": "Ada",
        "until": NOW.isoformat(),
    }
    assert suspended(made(Kind.EVERYTHING, "")).message == "everything is suspended: it went mad"
