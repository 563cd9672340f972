"""Agents' whole texts and reports, beside the trail that has their digests. See :mod:`broker.audit.claimed`."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from functools import lru_cache

from broker.audit.claimed import (
    KEY_BYTES,
    NAMES,
    NONCE_BYTES,
    Claimed,
    seal,
    unseal,
    unwrap,
    wrap,
    wrapping_key,
)
from broker.audit.event import AuditEvent, EventType, Vouch
from broker.scope.request import AccessRequest, Digested
from broker.stores.transaction import Transaction, View

BROKER = "broker"
_wrapping = lru_cache(maxsize=8)(wrapping_key)


def keep(tx: Transaction, tenant: str, request: AccessRequest, about: str, now_ms: int) -> None:
    """Keep the whole texts of ``request``, if it has any; a text of which only the digest is known has none."""
    if not tx.keeps_texts:
        return
    texts = {name: text for name in NAMES if (text := getattr(request, name)) and not isinstance(text, Digested)}
    if not texts:
        return
    key = _task_key(tx, tenant, request.task_id, now_ms)
    sealed = seal(key, texts, secrets.token_bytes(NONCE_BYTES), tenant, request.task_id, about)
    tx.run("insert_claimed_texts", (tenant, request.task_id, about, now_ms, sealed))


def _task_key(tx: Transaction, tenant: str, task_id: str, now_ms: int) -> bytes:
    keys = tx.seal.keys
    row = tx.one("text_key", (tenant, task_id))
    if row is not None:
        wrapped, key_id = row
        return unwrap(_wrapping(keys.find(key_id)), wrapped, tenant, task_id)
    key = secrets.token_bytes(KEY_BYTES)
    key_id, current = keys.current()
    wrapped = wrap(_wrapping(current), key, secrets.token_bytes(NONCE_BYTES), tenant, task_id)
    tx.run("insert_text_key", (tenant, task_id, wrapped, key_id, now_ms))
    return key


def read(view: View, tenant: str, task_id: str) -> list[Claimed]:
    """What agents said on one task, oldest first; nothing where it was erased. Raises Tampered."""
    row = view.one("text_key", (tenant, task_id))
    if row is None:
        return []
    wrapped, key_id = row
    key = unwrap(_wrapping(view.seal.keys.find(key_id)), wrapped, tenant, task_id)
    rows = view.all("claimed_texts", (tenant, task_id))
    return [unseal(key, sealed, at, tenant, task_id, about) for about, at, sealed in rows]


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
    tx.connection.execute("PRAGMA secure_delete = ON")
    try:
        tx.run("delete_text_key", (tenant, task_id))
    finally:
        tx.connection.execute("PRAGMA secure_delete = OFF")
    tx.run("delete_claimed_texts", (tenant, task_id))
