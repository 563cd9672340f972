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
        kind,
        AGENT,
        Vouch.BROKER,
        tenant="t",
        task_id="task-1",
        lease_id="lease-1",
        attempt_id="jb-1",
        holder=AGENT,
        data=data,
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


def test_an_activity_whole() -> None:
    (event,) = exported(
        of(
            EventType.REQUEST_REFUSED,
            method="/a.B/Do",
            reason="POLICY_DENIED",
            message="no",
            request_id="r-1",
            access_request="acc-1",
            template="orders",
            resource="orders-db",
            account="dev",
            environment="prod",
            access="read",
            parameters={"a": "b"},
        )
    )
    raw = event["raw_data"]
    digest = hashlib.sha256(bytes(32) + raw.encode()).hexdigest()
    fingerprint = {
        "algorithm_id": 3,
        "algorithm": "SHA-256",
        "encoding_id": 1,
        "encoding": "Hex",
        "serialization_id": 99,
        "serialization": "SHA-256(prev_event.fingerprint || raw_data)",
        "value": digest,
    }
    scope = {"template": "orders", "account": "dev", "environment": "prod", "access": "read", "parameters": {"a": "b"}}
    assert event == {
        **base("request.refused", digest, raw),
        "severity_id": 2,
        "severity": "Low",
        "message": "example.org/agent/a was refused Do: POLICY_DENIED: no",
        "attestation_list": [
            {"uid": digest, "authority_uid": "w", "chain_uid": "jit-broker/t", "fingerprint": fingerprint}
        ],
        "category_uid": 6,
        "category_name": "Application Activity",
        "class_uid": 6003,
        "class_name": "API Activity",
        "type_uid": 600399,
        "activity_id": 99,
        "activity_name": "request.refused",
        "status_id": 2,
        "status": "Failure",
        "status_code": "POLICY_DENIED",
        "status_detail": "no",
        "actor": {"user": USER, "app_name": "jit-broker"},
        "api": {"operation": "/a.B/Do", "service": {"name": "jit-broker"}, "request": {"uid": "r-1"}},
        "src_endpoint": {"uid": AGENT, "svc_name": "example.org/agent/a"},
        "resources": [
            {"type": "lease", "uid": "lease-1"},
            {"type": "attempt", "uid": "jb-1"},
            {"type": "task", "uid": "task-1"},
            {"type": "access request", "uid": "acc-1"},
            {"type": "resource", "name": "orders-db", "data": scope},
        ],
    }


USER = {"uid": AGENT, "name": "example.org/agent/a", "type_id": 4}


def base(kind: str, digest: str, raw: str) -> dict[str, Any]:
    """What every event of the agent has."""
    return {
        "time": 1_767_225_600_001,
        "raw_data": raw,
        "ai_agent": {"uid": AGENT, "name": "example.org/agent/a"},
        "metadata": {
            "version": "1.9.0",
            "product": {"name": "jit-broker", "vendor_name": "jit-broker", "version": "1"},
            "profiles": ["ai_operation", "record_integrity"],
            "uid": digest,
            "sequence": 1,
            "event_code": kind,
            "log_name": "audit",
            "tenant_uid": "t",
            "labels": ["vouched_by:broker"],
            "correlation_uid": "task-1",
        },
    }


def test_a_finding_whole() -> None:
    data = {"rule": "probing", "agent": AGENT, "count": 9}
    (event,) = exported(of(EventType.ESCALATION_DETECTED, **data))
    raw = event["raw_data"]
    digest = hashlib.sha256(bytes(32) + raw.encode()).hexdigest()
    del event["attestation_list"]
    assert event == {
        **base("escalation.detected", digest, raw),
        "severity_id": 4,
        "severity": "High",
        "message": event["message"],
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": 2004,
        "class_name": "Detection Finding",
        "type_uid": 200401,
        "activity_id": 1,
        "activity_name": "Create",
        "status_id": 1,
        "status": "New",
        "is_alert": True,
        "finding_info": {
            "uid": digest,
            "title": "Escalation rule probing",
            "created_time": 1_767_225_600_001,
            "analytic": {"name": "probing", "type_id": 1, "type": "Rule"},
        },
        "evidences": [{"actor": {"user": USER}, "data": data}],
    }


def test_a_finding_of_whom_nobody_names_is_of_the_actor_and_of_its_kind() -> None:
    (event,) = exported(AuditEvent(EventType.ESCALATION_DETECTED, "broker", Vouch.BROKER, tenant="t", data={}))
    assert event["evidences"][0]["actor"]["user"] == {"uid": "broker", "name": "broker", "type_id": 3}
    assert event["finding_info"]["title"] == "Escalation rule escalation.detected"
    assert "ai_agent" not in event and "correlation_uid" not in event["metadata"]


@pytest.mark.parametrize(
    ("actor", "user"),
    [
        (AGENT, {"uid": AGENT, "name": "example.org/agent/a", "type_id": 4}),
        (
            "https://id.example.org#dana",
            {"uid": "https://id.example.org#dana", "name": "dana (id.example.org)", "type_id": 1},
        ),
        ("broker", {"uid": "broker", "name": "broker", "type_id": 3}),
    ],
)
def test_who_acts_is_a_service_a_person_or_the_system(actor: str, user: dict[str, Any]) -> None:
    (event,) = exported(AuditEvent(EventType.RESUMED, actor, Vouch.BROKER, tenant="t"))
    assert event["actor"]["user"] == user


OTHER, THIRD = "spiffe://example.org/agent/b", "spiffe://example.org/agent/c"


@pytest.mark.parametrize(
    ("holder", "actor", "data", "agent"),
    [
        (OTHER, AGENT, {"agent": THIRD}, OTHER),
        ("", AGENT, {"agent": THIRD}, AGENT),
        ("", "broker", {"agent": THIRD}, THIRD),
        ("https://id.example.org#dana", "broker", {"agent": "none"}, ""),
        ("", "broker", {}, ""),
    ],
)
def test_the_agent_is_the_holder_or_who_acts_or_whom_it_is_about(
    holder: str, actor: str, data: dict[str, Any], agent: str
) -> None:
    (event,) = exported(
        AuditEvent(EventType.ESCALATION_DETECTED, actor, Vouch.BROKER, tenant="t", holder=holder, data=data)
    )
    assert event.get("ai_agent", {}).get("uid", "") == agent
    assert event["evidences"][0]["actor"]["user"]["uid"] == (agent or actor)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (EventType.LEASE_INTENT, (1, "Create", 1, "Success")),
        (EventType.LEASE_REVOKED, (4, "Delete", 1, "Success")),
        (EventType.ADMIN_READ, (2, "Read", 1, "Success")),
        (EventType.ACCESS_VOTED, (3, "Update", 1, "Success")),
        (EventType.DAEMON_STARTED, (99, "daemon.started", 1, "Success")),
        (EventType.LEASE_STUCK, (99, "lease.stuck", 2, "Failure")),
    ],
)
def test_what_an_event_does_and_whether_it_could(kind: EventType, told: tuple[int, str, int, str]) -> None:
    (event,) = exported(of(kind, reason="odd"))
    assert (event["activity_id"], event["activity_name"], event["status_id"], event["status"]) == told
    assert event.get("status_code") == ("odd" if told[3] == "Failure" else None)
    assert "status_detail" not in event
    assert event["api"] == {"operation": kind.value, "service": {"name": "jit-broker"}}


def test_what_is_about_nothing_is_about_the_broker() -> None:
    (event,) = exported(
        AuditEvent(EventType.DAEMON_STARTED, "broker", Vouch.BROKER, tenant="t", data={"template": "x"})
    )
    assert event["resources"] == [{"type": "broker", "name": "w"}]
    (event,) = exported(
        AuditEvent(EventType.DAEMON_STARTED, "broker", Vouch.BROKER, tenant="t", data={"resource": "x"})
    )
    assert event["resources"] == [{"type": "broker", "name": "w"}]


def test_a_delegation_is_named_as_such() -> None:
    given, used = exported(
        of(EventType.DELEGATION_GIVEN, delegation_id="del-1"), of(EventType.LEASE_INTENT, delegation_id="del-1")
    )
    assert given["delegation"] == {"uid": "del-1", "issuer_uid": "w", "created_time": 1_767_225_600_001}
    assert used["delegation"] == {"uid": "del-1", "issuer_uid": "w"}


@pytest.mark.parametrize(
    ("data", "uid"),
    [
        ({"delegation": "del-2"}, "del-2"),
        ({"delegation_id": "", "delegation": "del-2"}, "del-2"),
        ({"delegation_id": "del-1", "delegation": "del-2"}, "del-1"),
        ({"delegation": ""}, None),
        ({"delegation": {"depth": 2}}, None),
        ({}, None),
    ],
)
def test_which_delegation_it_is(data: dict[str, Any], uid: str | None) -> None:
    (event,) = exported(of(EventType.LEASE_INTENT, **data))
    assert event.get("delegation") == (None if uid is None else {"uid": uid, "issuer_uid": "w"})
