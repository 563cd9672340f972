"""Checkpoints in the ledger, and what of them the witnesses have; each operation inside one write transaction."""

from __future__ import annotations

from datetime import datetime, timedelta

from broker.audit.checkpoint import FIRST, REACH
from broker.audit.event import BROKER, AuditEvent, EventType, Vouch
from broker.audit.record import decode
from broker.errors import Tampered
from broker.ports.trail import NewCheckpoint, OutgoingCheckpoint, TrailEnd, WitnessLag
from broker.stores.times import from_ms, to_ms
from broker.stores.transaction import Transaction
from broker.stores.view import View


def trail_end(view: View, tenant: str) -> TrailEnd | None:
    """See TrailStore.trail_end."""
    head, first = view.one("audit_head", {}), view.one("audit_hash", {"seq": 1})
    if head is None or first is None:
        return None
    seq, count, at_ms, digest = view.one("last_checkpoint", {}) or (0, 0, -1, FIRST)
    recovery = view.one("latest_recovery", {"tenant": tenant})
    floor = -1 if recovery is None else recovery[6]
    return TrailEnd(head[0], head[1], first[0], seq, count, max(at_ms, floor), digest)


def add(tx: Transaction, tenant: str, new: NewCheckpoint, now: datetime) -> bool:
    """See TrailStore.add_checkpoint."""
    event = AuditEvent(EventType.AUDIT_CHECKPOINT, BROKER, Vouch.BROKER, tenant=tenant, data={"note": new.note})
    seq = tx.next_audit_seq
    newest: bytes = (tx.one("last_checkpoint", {}) or (FIRST,))[-1]
    # Two who sign at once read the same end of the trail: one of them is second, and signs anew.
    if new.previous != newest or seq - new.count > REACH:
        return False
    tx.audit(event, to_ms(now))
    row = {"seq": seq, "count": new.count, "at_ms": new.at_ms, "digest": new.digest, "note": new.note}
    tx.run("insert_checkpoint", row)
    return True


def since(view: View, after: int, limit: int) -> list[OutgoingCheckpoint]:
    """See TrailStore.checkpoints_since."""
    return [OutgoingCheckpoint(*row) for row in view.all("checkpoints_since", {"after": after, "limit": limit})]


def position(view: View, tenant: str, witness: str) -> int:
    """See TrailStore.witness_position."""
    row = view.one("witness_position", {"tenant": tenant, "witness": witness})
    return 0 if row is None else int(row[0])


def lag(view: View, upto: int, now: datetime) -> WitnessLag:
    """See TrailStore.witness_lag."""
    (covered,) = view.row("witness_backlog", {"upto": upto})
    head = view.one("audit_head", {})
    records = 0 if head is None else head[0] - covered
    # The next record may be the checkpoint itself; a chain of nothing but checkpoints is no backlog.
    for body in view.all("audit_bodies", {"after": covered, "limit": 8}):
        try:
            record = decode(body[0])
        except Tampered:
            return WitnessLag(records, timedelta(0))
        if record.type != EventType.AUDIT_CHECKPOINT:
            return WitnessLag(records, max(now - from_ms(record.at_ms), timedelta(0)))
        records -= 1
    return WitnessLag(max(records, 0), timedelta(0))
