"""Reports: their digest, what they say of use, and what changed between two of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.audit.event import EventType
from broker.audit.record import Record
from broker.entitlement.changes import Gravity, changes
from broker.entitlement.report import FORM, digest, read
from broker.entitlement.usage import Scope, Usage
from broker.errors import InvalidInput
from broker.identity.agent import Registry
from tests.policy.world import AGENT

ID = str(AGENT.spiffe_id)
NOW_MS = int(datetime(2026, 1, 5, tzinfo=UTC).timestamp() * 1000)


def record(type_: EventType, *, actor: str = ID, attempt: str = "a1", at: int = NOW_MS, **data: Any) -> Record:
    return Record(1, at, "w", "t", type_, actor, "broker", "task", "lease", attempt, actor, data, "0" * 64)


def intent(**changes: Any) -> Record:
    asked = {"template": "orders", "account": "a", "environment": "dev", "access": "read", "resource": "r"}
    return record(EventType.LEASE_INTENT, **{**asked, "parameters": {"day": "monday"}, **changes})


def counted(*records: Record, since: int = 0) -> Usage:
    usage = Usage(Registry([AGENT]), since)
    for each in records:
        usage.take(each)
    return usage


ORDERS = Scope("orders", "a", "dev")


def test_grants_and_what_was_issued_are_counted_by_entry() -> None:
    usage = counted(
        intent(),
        record(EventType.LEASE_ISSUED),
        record(EventType.LEASE_ISSUED),  # the same attempt is issued once
        intent(attempt="a2", at=NOW_MS + 5),
        record(EventType.LEASE_VOID, attempt="a2"),
        record(EventType.LEASE_ISSUED, attempt="a2"),
    )
    used = usage.used["analyst"][ORDERS]
    assert (used.granted, used.issued, used.last_ms) == (2, 1, NOW_MS + 5)
    assert usage.seen == {"orders": {"resource": ("r",), "day": ("monday",)}}
    assert list(usage.workloads["analyst"]) == [ID]


def test_what_is_older_or_not_readable_is_not_counted() -> None:
    usage = counted(intent(at=1), intent(parameters=None), since=2)
    assert (dict(usage.used), usage.unread) == ({"analyst": {ORDERS: usage.used["analyst"][ORDERS]}}, 1)
    assert counted(intent(at=1), since=2).used == {}


def test_who_is_registered_no_more_is_counted_by_its_id() -> None:
    assert counted(intent(actor="spiffe://example.org/gone")).used.keys() == {"spiffe://example.org/gone"}


def test_of_values_the_newest_few_are_kept() -> None:
    usage = counted(*(intent(resource=f"r{number}") for number in (1, 2, 3, 4, 1, 5)))
    assert usage.seen["orders"]["resource"] == ("r3", "r4", "r1", "r5")


def way(access: str = "read", effect: str = "ALLOW", approvals: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
    where = {"template": f"{access}-orders", "account": "a", "environment": "dev"}
    return {**where, "access": access, "effect": effect, "approvals": list(approvals), **changes}


def agent(name: str, *could: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    facts = {"identity": name, "owner": "dana", "tier": "advisory", "roles": [], "environments": [], "promoted": False}
    tried = {"tried_as": [name], "not_tried": []}
    return {"principal": name, "could": list(could), **facts, **tried, **changes}


def told(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[tuple[Gravity, str, str]]:
    return [(each.gravity, each.principal, each.told) for each in changes({"agents": before}, {"agents": now})]


def test_a_reader_that_gained_a_change_stands_first() -> None:
    before = [agent("aa", way("write")), agent("zz", way("read"))]
    now = [agent("aa", way("write"), way("destructive")), agent("zz", way("read"), way("write"), way("network", way=1))]
    found = told(before, now)
    assert [(gravity, name) for gravity, name, _ in found] == [
        (Gravity.READER_CHANGES, "zz"),
        (Gravity.READER_CHANGES, "zz"),
        (Gravity.WIDER, "aa"),  # could change something before
    ]
    assert found[1][2] == "write write-orders on a, dev: is new, no approval"


@pytest.mark.parametrize(
    ("before", "now", "gravity", "words"),
    [
        (way(effect="NEEDS_APPROVAL", approvals=("x",)), way(), Gravity.WIDER, "took the approval x, now no approval"),
        (
            way(effect="NEEDS_APPROVAL", approvals=("x", "y")),
            way(effect="NEEDS_APPROVAL", approvals=("x",)),
            Gravity.WIDER,
            "took the approval x, y, now the approval x",
        ),
        (way(), way(effect="NEEDS_APPROVAL", approvals=("x",)), Gravity.NARROWER, "now takes the approval x"),
        (way(), None, Gravity.NARROWER, "no more"),
    ],
)
def test_fewer_people_is_wider_and_more_is_narrower(
    before: dict[str, Any], now: dict[str, Any] | None, gravity: Gravity, words: str
) -> None:
    ((found, _, text),) = told([agent("a", before)], [agent("a", *([now] if now else []))])
    assert (found, text) == (gravity, f"read read-orders on a, dev: {words}")


@pytest.mark.parametrize("untried", [{"tried_as": []}, {"not_tried": [way("write")]}])
def test_what_could_not_be_tried_was_neither_taken_away_nor_given(untried: dict[str, Any]) -> None:
    could, unknown = agent("a", way("read"), way("write")), agent("a", **untried)
    if unknown["tried_as"]:
        unknown["could"] = [way("read")]
    lost, found = told([could], [unknown]), told([unknown], [could])
    where = "write write-orders on a, dev: "
    assert (Gravity.OTHER_FACTS, "a", f"{where}could not be tried this time") in lost
    assert not any(gravity is Gravity.NARROWER for gravity, _, _ in lost)
    # It may be new: that stays as grave as it was.
    assert (Gravity.READER_CHANGES, "a", f"{where}was not tried before, no approval") in found


def test_who_came_went_and_changed_hands() -> None:
    before = [agent("gone"), agent("kept", roles=["x"])]
    now = [agent("kept", owner="eve", promoted=True), agent("new", way("write"))]
    assert told(before, now) == [
        (Gravity.NEW_AGENT, "new", "is new and can change something: 1 ways"),
        (Gravity.OTHER_FACTS, "kept", "owner: dana -> eve"),
        (Gravity.OTHER_FACTS, "kept", "promoted: False -> True"),
        (Gravity.OTHER_FACTS, "kept", "roles: x -> none"),
        (Gravity.GONE_AGENT, "gone", "is registered no more"),
    ]


def test_nothing_changed() -> None:
    same = [agent("a", way(), way("write", "NEEDS_APPROVAL", ("x",)))]
    assert told(same, copy.deepcopy(same)) == []


def test_a_report_is_known_by_its_digest_however_it_is_written() -> None:
    report: dict[str, Any] = {"form": FORM, "made_ms": 1, "agents": [agent("a", way())]}
    report["digest"] = digest(report)
    for text in (json.dumps(report), json.dumps(report, indent=4, sort_keys=True)):
        assert read(text.encode(), "r.json") == report


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"form": "jit-broker access report 1"}'],
    ids=range(7),
)
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"r\.json is no access report, or was changed"):
        read(data, "r.json")


def test_a_report_that_was_changed_is_refused() -> None:
    report: dict[str, Any] = {"form": FORM, "agents": []}
    report["digest"] = digest(report)
    report["agents"] = [agent("a")]
    with pytest.raises(InvalidInput):
        read(json.dumps(report).encode(), "r.json")
