"""A whole chain to damage, made without a database."""

from __future__ import annotations

from broker.audit.chain import GENESIS, head_mac, link, record_mac
from broker.audit.event import AuditEvent, EventType, Vouch
from broker.audit.record import encode
from broker.audit.verify import Finding, StoredHead, StoredRecord, verify
from broker.errors import Reason, Tampered

KEYS = {"k1": b"1" * 32, "k2": b"2" * 32}


def find_key(key_id: str) -> bytes:
    if key_id not in KEYS:
        raise Tampered(Reason.ROW_MAC_MISMATCH, "unknown key")
    return KEYS[key_id]


def stored(event: AuditEvent, seq: int, prev: bytes, key_id: str = "k1") -> StoredRecord:
    body = encode(event, seq=seq, at_ms=1000 * seq, writer="w", prev=prev)
    digest = link(prev, body)
    mac = record_mac(KEYS[key_id], digest)
    return StoredRecord(seq, event.tenant, event.holder, event.lease_id, body, digest, mac, key_id)


def event(number: int) -> AuditEvent:
    return AuditEvent(
        EventType.LEASE_ISSUED,
        "broker",
        Vouch.BROKER,
        tenant="default",
        lease_id=f"lease-{number}",
        holder="spiffe://example.org/a",
        data={"n": number},
    )


def chain(length: int) -> tuple[list[StoredRecord], StoredHead]:
    """``length`` records; from the third on, under a second key."""
    rows: list[StoredRecord] = []
    prev = GENESIS
    for seq in range(1, length + 1):
        rows.append(stored(event(seq), seq, prev, "k1" if seq < 3 else "k2"))
        prev = rows[-1].hash
    return rows, StoredHead(length, prev, head_mac(KEYS["k2"], length, prev), "k2")


def found(rows: list[StoredRecord], head: StoredHead | None, *, keys: bool = True) -> list[Finding]:
    return list(verify(rows, head, find_key if keys else None))


def findings(rows: list[StoredRecord], head: StoredHead | None, *, keys: bool = True) -> list[tuple[int, str]]:
    return [(each.sequence, each.problem.value) for each in found(rows, head, keys=keys)]
