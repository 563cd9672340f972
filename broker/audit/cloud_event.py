"""One audit record as a CloudEvent 1.0 in its structured JSON form.

Nothing is added to what the record says and nothing interpreted: ``data`` is the record without its chain. The id is
the same however often the event is sent, so that receivers can drop repeats.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from broker.audit.record import Record
from broker.errors import ERROR_DOMAIN
from broker.scope.canonical import JsonValue, canonical_json

# CloudEvents, HTTP protocol binding, section 3.2: the whole event is the body.
CONTENT_TYPE = "application/cloudevents+json"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """Its id, and its bytes."""

    id: str
    body: bytes


def source(trust_domain: str, tenant: str) -> str:
    """Where the events of one broker come from: a URI reference, as CloudEvents asks for."""
    return f"//{trust_domain}/jit-broker/{tenant}"


def cloud_event(record: Record, source: str) -> CloudEvent:
    """``record`` as an event from ``source``."""
    name = f"{record.writer}-{record.seq}"
    event: dict[str, JsonValue] = {
        "specversion": "1.0",
        "id": name,
        "source": source,
        "type": f"{ERROR_DOMAIN}.{record.type}",
        "time": _time(record.at_ms),
        "datacontenttype": "application/json",
        # The extension "sequence": texts in the order of the events.
        "sequence": f"{record.seq:020d}",
        "data": {
            "seq": record.seq,
            "tenant": record.tenant,
            "actor": record.actor,
            "vouched_by": record.vouched_by,
            "task_id": record.task_id,
            "lease_id": record.lease_id,
            "attempt_id": record.attempt_id,
            "holder": record.holder,
            "details": dict(record.data),
        },
    }
    if subject := record.lease_id or record.task_id:
        event["subject"] = subject
    return CloudEvent(name, canonical_json(event))


def wanted(patterns: tuple[str, ...], type_: str) -> bool:
    """Whether one of ``patterns`` (``lease.issued``, ``lease.*``, ``*``) means events of this type."""
    return any(type_ == each or (each.endswith("*") and type_.startswith(each[:-1])) for each in patterns)


def _time(at_ms: int) -> str:
    """As RFC 3339 writes it, with milliseconds."""
    return (_EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
