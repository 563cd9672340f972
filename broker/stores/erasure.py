"""Erasing what agents said in whole: by their task's key, and in the rows of its plans. The trail keeps the digests."""

from __future__ import annotations

from collections.abc import Mapping

from broker.audit.event import BROKER, AuditEvent, EventType, Vouch
from broker.stores.plan_ops import erase_texts
from broker.stores.transaction import Transaction


def erase(tx: Transaction, tenant: str, task_id: str, actor: str, reason: str, now_ms: int) -> bool:
    """Erase one task's texts; False if there are none. The trail says who did, and why."""
    if tx.one("text_key", (tenant, task_id)) is None:
        return False
    _delete(tx, tenant, task_id)
    data = {"reason": reason}
    tx.audit(AuditEvent(EventType.TEXTS_ERASED, actor, Vouch.BROKER, tenant=tenant, task_id=task_id, data=data), now_ms)
    return True


def erase_older(tx: Transaction, before_ms: int, limit: int, now_ms: int) -> int:
    """Erase the texts of tasks that began to have some before ``before_ms``; how many tasks."""
    due = tx.all("text_keys_due", (before_ms, limit))
    counts: dict[str, int] = {}
    for tenant, task_id in due:
        _delete(tx, tenant, task_id)
        counts[tenant] = counts.get(tenant, 0) + 1
    for tenant, count in counts.items():
        data: Mapping[str, str | int] = {"reason": "kept as long as configured", "tasks": count}
        tx.audit(AuditEvent(EventType.TEXTS_ERASED, BROKER, Vouch.BROKER, tenant=tenant, data=data), now_ms)
    return len(due)


def _delete(tx: Transaction, tenant: str, task_id: str) -> None:
    """Without the key the texts are noise, wherever copies of them may lie; its bytes are overwritten in the file."""
    tx.images.text_keys.pop((tenant, task_id), None)
    tx.connection.execute("PRAGMA secure_delete = ON")
    try:
        tx.run("delete_text_key", (tenant, task_id))
    finally:
        tx.connection.execute("PRAGMA secure_delete = OFF")
    tx.run("delete_claimed_texts", {"tenant": tenant, "task_id": task_id})
    erase_texts(tx, tenant, task_id)
