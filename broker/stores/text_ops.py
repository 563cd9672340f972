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
from broker.scope.request import AccessRequest, Digested
from broker.stores.images import keep as keep_image
from broker.stores.transaction import Transaction
from broker.stores.view import Raw, View

_wrapping = lru_cache(maxsize=8)(wrapping_key)


def claimed_in(request: AccessRequest) -> dict[str, str]:
    """The whole texts of a request; a text of which only the digest is known is none."""
    texts = ((name, getattr(request, name)) for name in NAMES)
    return {name: text for name, text in texts if text and not isinstance(text, Digested)}


def keep(tx: Transaction, tenant: str, task_id: str, texts: Mapping[str, str], about: str, now_ms: int) -> None:
    """Keep what was said about an attempt, an access request or a plan; nothing where nothing was said."""
    if not texts or not tx.keeps_texts:
        return
    key = _task_key(tx, tenant, task_id, now_ms)
    sealed = seal(key, texts, secrets.token_bytes(NONCE_BYTES), tenant, task_id, about)
    tx.write("insert_claimed_texts", (tenant, task_id, about, now_ms, sealed))


def _task_key(tx: Transaction, tenant: str, task_id: str, now_ms: int) -> bytes:
    images = tx.images.text_keys
    key = images.get((tenant, task_id))
    if key is None:
        key = _stored_key(tx, tenant, task_id) or _new_key(tx, tenant, task_id, now_ms)
        keep_image(images, (tenant, task_id), key)
    return key


def _stored_key(view: View, tenant: str, task_id: str) -> bytes | None:
    row = view.one("text_key", (tenant, task_id))
    return None if row is None else task_key(view, tenant, task_id, row)


def task_key(view: View, tenant: str, task_id: str, row: Raw) -> bytes:
    """The key in a row of ``text_key``. Raises Tampered."""
    wrapped, key_id = row
    return unwrap(_wrapping(view.seal.keys.find(key_id)), wrapped, tenant, task_id)


def _new_key(tx: Transaction, tenant: str, task_id: str, now_ms: int) -> bytes:
    key = secrets.token_bytes(KEY_BYTES)
    key_id, current = tx.seal.keys.current()
    wrapped = wrap(_wrapping(current), key, secrets.token_bytes(NONCE_BYTES), tenant, task_id)
    tx.write("insert_text_key", (tenant, task_id, wrapped, key_id, now_ms))
    return key


def read(view: View, tenant: str, task_id: str) -> list[Claimed]:
    """What agents said on one task, oldest first; nothing where it was erased. Raises Tampered."""
    key = _stored_key(view, tenant, task_id)
    if key is None:
        return []
    rows = view.all("claimed_texts", (tenant, task_id))
    return [unseal(key, sealed, at, tenant, task_id, about) for about, at, sealed in rows]
