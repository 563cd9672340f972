"""OCSF 1.9: what its classes require is there, and the chain can be checked from the events alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from broker.audit.chain import GENESIS, link
from broker.audit.event import AuditEvent, EventType, Vouch
from broker.audit.ocsf import ocsf
from broker.audit.record import decode, encode

AGENT = "spiffe://example.org/agent/a"
# Of the OCSF schema 1.9: what an event of the class must have (base event included).
REQUIRED = {
    6003: {"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"}
    | {"actor", "api", "src_endpoint"},
    2004: {"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid", "finding_info"},
}
CATEGORY = {6003: 6, 2004: 2}


def exported(*events: AuditEvent) -> list[dict[str, Any]]:
    return list(_exported(events))


def _exported(events: tuple[AuditEvent, ...]) -> Iterator[dict[str, Any]]:
    prev = GENESIS
    for seq, event in enumerate(events, 1):
        body = encode(event, seq=seq, at_ms=1_767_225_600_000 + seq, writer="w", prev=prev)
        prev = link(prev, body)
        made = ocsf(decode(body), body, product_version="1")
        yield json.loads(json.dumps(made))  # it must have a JSON form


def of(kind: EventType, **data: Any) -> AuditEvent:
    return AuditEvent(
        kind, AGENT, Vouch.BROKER, tenant="t", task_id="task-1", lease_id="lease-1", holder=AGENT, data=data
    )


@pytest.mark.parametrize("kind", EventType)
def test_each_kind_of_event_has_what_its_class_requires(kind: EventType) -> None:
    (event,) = exported(of(kind, agent=AGENT, rule="probing"))
    assert REQUIRED[event["class_uid"]] <= event.keys()
    assert event["category_uid"] == CATEGORY[event["class_uid"]]
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    assert {"version", "product"} <= event["metadata"].keys()
    assert event["metadata"]["event_code"] == kind.value
    assert event["ai_agent"]["uid"] == AGENT
    if event["class_uid"] == 6003:
        assert event["actor"]["user"]["uid"]
        assert event["api"]["operation"]
        assert event["src_endpoint"]["uid"]
        assert event["resources"]
    else:
        assert event["finding_info"]["uid"] == event["metadata"]["uid"]


def test_the_chain_can_be_checked_from_the_events_alone() -> None:
    events = exported(*(of(EventType.LEASE_REVOKED, cause="EXPIRED", failures=number) for number in range(3)))
    before = "0" * 64
    for event in events:
        (attestation,) = event["attestation_list"]
        digest = hashlib.sha256(bytes.fromhex(before) + event["raw_data"].encode()).hexdigest()
        assert attestation["fingerprint"]["value"] == digest == event["metadata"]["uid"]
        assert attestation.get("prev_event", {"fingerprint": {"value": before}})["fingerprint"]["value"] == before
        before = digest
    assert "prev_event" not in events[0]["attestation_list"][0]
    assert events[1]["attestation_list"][0]["prev_event"]["uid"] == events[0]["metadata"]["uid"]


def test_refusals_fail_and_say_why() -> None:
    (event,) = exported(of(EventType.REQUEST_REFUSED, reason="POLICY_DENIED", message="no", method="/a.B/Do"))
    assert (event["status_id"], event["status_code"], event["status_detail"]) == (2, "POLICY_DENIED", "no")
    assert event["api"]["operation"] == "/a.B/Do"
    assert event["severity"] == "Low"


def test_a_delegation_is_named_as_such() -> None:
    given, used = exported(
        of(EventType.DELEGATION_GIVEN, delegation_id="del-1"), of(EventType.LEASE_INTENT, delegation_id="del-1")
    )
    assert given["delegation"] == {"uid": "del-1", "issuer_uid": "w", "created_time": 1_767_225_600_001}
    assert used["delegation"] == {"uid": "del-1", "issuer_uid": "w"}
