"""One audit record as an OCSF 1.9 event, for a SIEM or a data lake.

Everything is API Activity (class 6003), but what the escalation rules found, which is a Detection Finding (2004).
Profiles: ``ai_operation`` names the agent and the delegation under which it acts, ``record_integrity`` carries the
chain: each event has its record's bytes as ``raw_data``, and ``attestation_list`` says what SHA-256 over the record
before and these bytes is, so that a consumer can check the chain from the events alone. Source: the OCSF schema, 1.9.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from broker.audit.chain import link
from broker.audit.event import EventType
from broker.audit.record import Record
from broker.audit.story import sentence, short

VERSION: Final = "1.9.0"
_API_ACTIVITY, _APPLICATION = 6003, 6
_DETECTION_FINDING, _FINDINGS = 2004, 2
_CREATE, _READ, _UPDATE, _DELETE, _OTHER = 1, 2, 3, 4, 99
_CAPTIONS = MappingProxyType({_CREATE: "Create", _READ: "Read", _UPDATE: "Update", _DELETE: "Delete"})
_SUCCESS, _FAILURE = 1, 2
_INFORMATIONAL, _LOW, _MEDIUM, _HIGH, _CRITICAL = 1, 2, 3, 4, 5
_SEVERITIES = MappingProxyType(
    {_INFORMATIONAL: "Informational", _LOW: "Low", _MEDIUM: "Medium", _HIGH: "High", _CRITICAL: "Critical"}
)
_SERVICE, _USER, _SYSTEM = 4, 1, 3  # user.type_id
_GENESIS = "0" * 64

# What each kind of event does to what it is about; kinds that are not here do something of their own.
_ACTIVITIES: Final[Mapping[str, int]] = MappingProxyType(
    {
        EventType.TASK_STARTED: _CREATE,
        EventType.LEASE_INTENT: _CREATE,
        EventType.LEASE_ISSUED: _CREATE,
        EventType.ACCESS_REQUESTED: _CREATE,
        EventType.PLAN_REGISTERED: _CREATE,
        EventType.DELEGATION_GIVEN: _CREATE,
        EventType.SUSPENDED: _CREATE,
        EventType.ACCESS_REVIEW_SIGNED_OFF: _CREATE,
        EventType.AUDIT_CHECKPOINT: _CREATE,
        EventType.RECOVERY_ENTERED: _CREATE,
        EventType.RECOVERY_BEGUN: _UPDATE,
        EventType.RECOVERY_RELEASED: _DELETE,
        EventType.ADMIN_READ: _READ,
        EventType.ADMIN_READS_SUMMARISED: _READ,
        EventType.TEXTS_READ: _READ,
        EventType.TEXTS_ERASED: _DELETE,
        EventType.RETENTION_DELETED: _DELETE,
        EventType.DELIVERY_CONFIRMED: _UPDATE,
        EventType.ACCESS_VOTED: _UPDATE,
        EventType.ACCESS_APPROVED: _UPDATE,
        EventType.ACCESS_REDEEMED: _UPDATE,
        EventType.PLAN_CONFIRMED: _UPDATE,
        EventType.PLAN_REJECTED: _UPDATE,
        EventType.RESUME_BEGUN: _UPDATE,
        EventType.LEASE_REVOKING: _UPDATE,
        EventType.DEPLOY_ACTIVATED: _UPDATE,
        EventType.TASK_COMPLETED: _DELETE,
        EventType.TASK_ENDED: _DELETE,
        EventType.LEASE_REVOKED: _DELETE,
        EventType.LEASE_EXPIRED: _DELETE,
        EventType.LEASE_VOID: _DELETE,
        EventType.LEASE_FORGET_BEGUN: _UPDATE,
        EventType.LEASE_FORGOTTEN: _DELETE,
        EventType.DELEGATION_REVOKED: _DELETE,
        EventType.RESUMED: _DELETE,
        EventType.SUSPENSION_EXPIRED: _DELETE,
        EventType.UPSTREAM_UNKNOWN_ENDED: _DELETE,
        EventType.UPSTREAM_RECONCILED: _READ,
    }
)
_SEVERITY: Final[Mapping[str, int]] = MappingProxyType(
    {
        EventType.REQUEST_REFUSED: _LOW,
        EventType.REFUSALS_SUMMARISED: _LOW,
        EventType.LEASE_FORGET_BEGUN: _MEDIUM,
        EventType.LEASE_FORGOTTEN: _HIGH,
        EventType.AGENT_DENIED: _MEDIUM,
        EventType.SUSPENDED: _MEDIUM,
        EventType.DEPLOY_REFUSED: _MEDIUM,
        EventType.ESCALATION_DETECTED: _HIGH,
        EventType.BREAK_GLASS_USED: _HIGH,
        EventType.BREAK_GLASS_CODE_USED: _HIGH,
        EventType.BREAK_GLASS_REVIEW_OVERDUE: _HIGH,
        EventType.BREAK_GLASS_OVERRIDE: _HIGH,
        EventType.BREAK_GLASS_BLOCKED: _MEDIUM,
        EventType.BREAK_GLASS_CODE_FAILED: _MEDIUM,
        EventType.LEASE_STUCK: _CRITICAL,
        EventType.UPSTREAM_UNKNOWN_FOUND: _HIGH,
        EventType.UPSTREAM_UNKNOWN_STUCK: _CRITICAL,
        EventType.UPSTREAM_MISSING: _MEDIUM,
        EventType.UPSTREAM_SWEEP_BRAKED: _HIGH,
        EventType.UPSTREAM_SWEEP_ALLOWED: _MEDIUM,
        EventType.CONNECTOR_ROOT_REFUSED: _CRITICAL,
        EventType.SUSPENSION_TAMPERED: _CRITICAL,
        EventType.RECOVERY_ENTERED: _CRITICAL,
    }
)
_FAILED = frozenset(
    {
        EventType.REQUEST_REFUSED,
        EventType.REFUSALS_SUMMARISED,
        EventType.AGENT_DENIED,
        EventType.DEPLOY_REFUSED,
        EventType.LEASE_STUCK,
        EventType.UPSTREAM_UNKNOWN_STUCK,
        EventType.CONNECTOR_ROOT_REFUSED,
    }
)


def ocsf(record: Record, body: bytes, *, product_version: str) -> dict[str, Any]:
    """``record``, whose stored bytes are ``body``, as an OCSF event. Times are milliseconds since the epoch."""
    finding = record.type == EventType.ESCALATION_DETECTED
    # Unique, and what the next record calls it, too.
    digest = link(bytes.fromhex(record.prev), body).hex()
    event = _base(record, body, digest, product_version)
    event |= _finding(record, digest) if finding else _activity(record)
    event["type_uid"] = event["class_uid"] * 100 + event["activity_id"]
    agent = _agent(record)
    if agent:
        event["ai_agent"] = {"uid": agent, "name": short(agent)}
    if delegation := _delegation(record):
        event["delegation"] = delegation
    return event


def _base(record: Record, body: bytes, digest: str, product_version: str) -> dict[str, Any]:
    severity = _SEVERITY.get(record.type, _INFORMATIONAL)
    return {
        "time": record.at_ms,
        "severity_id": severity,
        "severity": _SEVERITIES[severity],
        "message": sentence(record),
        "metadata": {
            "version": VERSION,
            "product": {"name": "jit-broker", "vendor_name": "jit-broker", "version": product_version},
            "profiles": ["ai_operation", "record_integrity"],
            "uid": digest,
            "sequence": record.seq,
            "event_code": record.type,
            "log_name": "audit",
            "tenant_uid": record.tenant,
            "labels": [f"vouched_by:{record.vouched_by}"],
            **({"correlation_uid": record.task_id} if record.task_id else {}),
        },
        "raw_data": body.decode(),
        "attestation_list": [_attestation(record, digest)],
    }


def _activity(record: Record) -> dict[str, Any]:
    activity = _ACTIVITIES.get(record.type, _OTHER)
    failed = record.type in _FAILED
    data = record.data
    return {
        "category_uid": _APPLICATION,
        "category_name": "Application Activity",
        "class_uid": _API_ACTIVITY,
        "class_name": "API Activity",
        "activity_id": activity,
        "activity_name": _CAPTIONS.get(activity, record.type),
        "status_id": _FAILURE if failed else _SUCCESS,
        "status": "Failure" if failed else "Success",
        **{
            name: str(data[key])
            for name, key in (("status_code", "reason"), ("status_detail", "message"))
            if failed and key in data
        },
        "actor": {"user": _user(record.actor), "app_name": "jit-broker"},
        "api": _api(record),
        "src_endpoint": {"uid": record.actor, "svc_name": short(record.actor)},
        "resources": _resources(record),
    }


def _finding(record: Record, digest: str) -> dict[str, Any]:
    data = record.data
    rule = str(data.get("rule", record.type))
    return {
        "category_uid": _FINDINGS,
        "category_name": "Findings",
        "class_uid": _DETECTION_FINDING,
        "class_name": "Detection Finding",
        "activity_id": _CREATE,
        "activity_name": "Create",
        "status_id": 1,
        "status": "New",
        "is_alert": True,
        "finding_info": {
            "uid": digest,
            "title": f"Escalation rule {rule}",
            "created_time": record.at_ms,
            "analytic": {"name": rule, "type_id": 1, "type": "Rule"},
        },
        "evidences": [{"actor": {"user": _user(_agent(record) or record.actor)}, "data": dict(data)}],
    }


def _user(principal: str) -> dict[str, Any]:
    person = _USER if "#" in principal else _SYSTEM
    kind = _SERVICE if principal.startswith("spiffe://") else person
    return {"uid": principal, "name": short(principal), "type_id": kind}


def _api(record: Record) -> dict[str, Any]:
    data = record.data
    told: dict[str, Any] = {"operation": str(data.get("method", record.type)), "service": {"name": "jit-broker"}}
    if data.get("request_id"):
        told["request"] = {"uid": str(data["request_id"])}
    return told


def _resources(record: Record) -> list[dict[str, Any]]:
    data = record.data
    ids = (("lease", record.lease_id), ("attempt", record.attempt_id), ("task", record.task_id))
    found: list[dict[str, Any]] = [{"type": kind, "uid": uid} for kind, uid in ids if uid]
    if data.get("access_request"):
        found.append({"type": "access request", "uid": str(data["access_request"])})
    if "template" in data and "resource" in data:
        scope = {name: data.get(name) for name in ("template", "account", "environment", "access", "parameters")}
        found.append({"type": "resource", "name": str(data["resource"]), "data": scope})
    return found or [{"type": "broker", "name": record.writer}]


def _agent(record: Record) -> str | None:
    named = (record.holder, record.actor, record.data.get("agent"))
    return next((each for each in named if isinstance(each, str) and each.startswith("spiffe://")), None)


def _delegation(record: Record) -> dict[str, Any] | None:
    data = record.data
    uid = data.get("delegation_id") or data.get("delegation")
    if not isinstance(uid, str) or not uid:
        return None
    told: dict[str, Any] = {"uid": uid, "issuer_uid": record.writer}
    if record.type == EventType.DELEGATION_GIVEN:
        told["created_time"] = record.at_ms
    return told


def _attestation(record: Record, digest: str) -> dict[str, Any]:
    """The record's place in its chain."""
    told: dict[str, Any] = {
        "uid": digest,
        "authority_uid": record.writer,
        "chain_uid": f"jit-broker/{record.tenant}",
        "fingerprint": _fingerprint(digest),
    }
    if record.prev != _GENESIS:
        told["prev_event"] = {"uid": record.prev, "fingerprint": _fingerprint(record.prev)}
    return told


def _fingerprint(value: str) -> dict[str, Any]:
    return {
        "algorithm_id": 3,
        "algorithm": "SHA-256",
        "encoding_id": 1,
        "encoding": "Hex",
        "serialization_id": 99,
        "serialization": "SHA-256(prev_event.fingerprint || raw_data)",
        "value": value,
    }
