"""The canonical bytes of one audit record, and back.

A record is one JSON object in canonical form (:mod:`broker.scope.canonical`); its bytes are what is
stored, hashed, exported and shown. The fields are fixed, so that records of every age are read by
one function; what differs by event type stands in ``data``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from broker.audit.event import AuditEvent
from broker.errors import Reason, Tampered
from broker.scope.canonical import JsonValue, canonical_json, canonical_record


@dataclass(frozen=True, slots=True)
class Record:
    """One audit record, read back. Ids are empty where the event has none."""

    seq: int  # 1, 2, ... without gaps
    at_ms: int  # milliseconds since the epoch, UTC
    writer: str  # which broker wrote it
    tenant: str
    type: str
    actor: str
    vouched_by: str
    task_id: str
    lease_id: str
    attempt_id: str
    holder: str
    data: Mapping[str, JsonValue]
    prev: str  # hash of the record before, hex


def encode(event: AuditEvent, *, seq: int, at_ms: int, writer: str, prev: bytes) -> bytes:
    """The canonical bytes of ``event`` as record ``seq``. Raises TypeError for data without canonical form."""
    return canonical_record(
        {
            "actor": event.actor,
            "at_ms": at_ms,
            "attempt_id": event.attempt_id,
            "data": event.data,
            "holder": event.holder,
            "lease_id": event.lease_id,
            "prev": prev.hex(),
            "seq": seq,
            "task_id": event.task_id,
            "tenant": event.tenant,
            "type": event.type,
            "vouched_by": event.vouched_by,
            "writer": writer,
        }
    )


def decode(body: bytes) -> Record:
    """The record in ``body``. Raises :class:`Tampered` (AUDIT_CHAIN_BROKEN) if it is not one, byte for byte."""
    try:
        fields = json.loads(body)
        record = Record(**fields)
        canonical = canonical_json(fields)
    except (ValueError, TypeError, RecursionError):
        raise _not_a_record() from None
    if canonical != body or not _well_typed(record):
        raise _not_a_record()
    return record


def _well_typed(record: Record) -> bool:
    texts = (
        record.writer,
        record.tenant,
        record.type,
        record.actor,
        record.vouched_by,
        record.task_id,
        record.lease_id,
        record.attempt_id,
        record.holder,
    )
    return (
        all(isinstance(text, str) for text in texts)
        and _is_integer(record.seq)
        and _is_integer(record.at_ms)
        and isinstance(record.data, dict)
        and isinstance(record.prev, str)
        and len(record.prev) == 64
    )


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _not_a_record() -> Tampered:
    return Tampered(Reason.AUDIT_CHAIN_BROKEN, "the stored bytes are not a canonical audit record.")
