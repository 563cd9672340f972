"""The MAC of a row: proof that the broker, and nobody with a database client, wrote it.

Keyed BLAKE2b over the canonical JSON of [table, every field in the order of ``rows.py``]. The tenant,
the id and the table are among the fields, so a row cannot pass for another one. An *older* version of
the same row still passes: that is for the audit chain to contradict, and for its external witnesses.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from functools import lru_cache

from broker.audit import claimed
from broker.audit.chain import link, record_mac
from broker.errors import Reason, Tampered
from broker.ports.keys import KeyRing
from broker.scope.canonical import canonical_row

# Keyed BLAKE2 is a MAC by itself (RFC 7693 section 2.9). It takes less than half the time of an HMAC by
# OpenSSL 3, which looks its algorithm up on every call; a grant makes and checks eight of these.
_LONGEST_KEY = hashlib.blake2b.MAX_KEY_SIZE


_concealing = lru_cache(maxsize=8)(claimed.wrapping_key)


@lru_cache(maxsize=8)
def _prepared(key: bytes) -> hashlib.blake2b:
    """A MAC up to where the row begins."""
    if len(key) > _LONGEST_KEY:
        key = hashlib.blake2b(key).digest()
    return hashlib.blake2b(key=key, digest_size=32, person=b"jit-broker row")


def _mac(key: bytes, row: bytes) -> bytes:
    mac = _prepared(key).copy()
    mac.update(row)
    return mac.digest()


class RowSeal:
    """Makes and checks row MACs with the keys of a ring."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    @property
    def keys(self) -> KeyRing:
        """The ring."""
        return self._keys

    def make(self, table: str, fields: Sequence[str | int | None]) -> tuple[bytes, str]:
        """(MAC, key id) of a row, with the current key."""
        key_id, key = self._keys.current()
        return _mac(key, canonical_row((table, *fields))), key_id

    def conceal(self, text: str, *bound_to: str) -> str:
        """``text`` encrypted, for a column of the row that ``bound_to`` names; nothing stays nothing."""
        if not text:
            return ""
        key_id, key = self._keys.current()
        return (
            f"{key_id}:{claimed.conceal(_concealing(key), text, secrets.token_bytes(claimed.NONCE_BYTES), *bound_to)}"
        )

    def reveal(self, concealed: str, *bound_to: str) -> str:
        """The text again. Raises Tampered (ROW_MAC_MISMATCH) where it is not ours, or not that row's."""
        if not concealed:
            return ""
        key_id, _, text = concealed.partition(":")
        return claimed.reveal(_concealing(self._keys.find(key_id)), text, *bound_to)

    def holds(self, table: str, fields: Sequence[str | int | None], mac: object, key_id: object) -> bool:
        """Whether the MAC is ours. Whatever may stand in a damaged row: False, never an exception."""
        if not isinstance(mac, bytes) or not isinstance(key_id, str):
            return False
        try:
            key = self._keys.find(key_id)
            row = canonical_row((table, *fields))
        except (Tampered, TypeError, ValueError):
            return False
        return hmac.compare_digest(_mac(key, row), mac)

    def holds_spelt(self, table: str, fields: str, mac: bytes, key_id: str) -> bool:
        """Whether the MAC is ours, of fields as JSON without its brackets: False, too, where that is not canonical.

        Where it is ours the text says what we said, whoever spelt it: no other bytes have this MAC.
        """
        try:
            key = self._keys.find(key_id)
        except Tampered:
            return False
        return hmac.compare_digest(_mac(key, f'["{table}",{fields}]'.encode()), mac)

    def holds_record(self, prev: bytes, body: bytes, mac: object, key_id: object) -> bool:
        """Whether the audit record ``body`` after a record with hash ``prev`` is ours."""
        if not isinstance(mac, bytes) or not isinstance(key_id, str):
            return False
        try:
            key = self._keys.find(key_id)
        except Tampered:
            return False
        return hmac.compare_digest(record_mac(key, link(prev, body)), mac)


def tampered(table: str, row_id: str) -> Tampered:
    """What is raised where a row without its MAC would have carried a grant."""
    return Tampered(
        Reason.ROW_MAC_MISMATCH,
        f"the row {row_id} of {table} fails its MAC: it was changed by something other than the broker.",
        hint="Nothing is granted on it. An operator compares it with the audit trail (broker audit show).",
        metadata={"table": table, "rowId": row_id},
    )
