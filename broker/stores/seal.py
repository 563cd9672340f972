"""The MAC of a row: proof that the broker, and nobody with a database client, wrote it.

HMAC-SHA256 over the canonical JSON of [table, every field in the order of ``rows.py``]. The tenant,
the id and the table are among the fields, so a row cannot pass for another one. An *older* version of
the same row still passes: that is for the audit chain to contradict, and for its external witnesses.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from functools import lru_cache

from broker.errors import Reason, Tampered
from broker.ports import KeyRing
from broker.scope.canonical import canonical_row


# A row that is read again unchanged (the task of every request, the lease just written) costs a look-up
# instead of a hash. Bounded: about 8 MiB of row texts, which are no secrets.
@lru_cache(maxsize=8192)
def _mac(key: bytes, row: bytes) -> bytes:
    # RFC 2104 hashes a block of the key first: begun once per key, and copied.
    mac = _begun(key).copy()
    mac.update(row)
    return mac.digest()


@lru_cache(maxsize=16)
def _begun(key: bytes) -> hmac.HMAC:
    return hmac.new(key, b"row\0", "sha256")


class RowSeal:
    """Makes and checks row MACs with the keys of a ring."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    def make(self, table: str, fields: Sequence[str | int | None]) -> tuple[bytes, str]:
        """(MAC, key id) of a row, with the current key."""
        key_id, key = self._keys.current()
        return _mac(key, canonical_row((table, *fields))), key_id

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


def tampered(table: str, row_id: str) -> Tampered:
    """What is raised where a row without its MAC would have carried a grant."""
    return Tampered(
        Reason.ROW_MAC_MISMATCH,
        f"the row {row_id} of {table} fails its MAC: it was changed by something other than the broker.",
        hint="Nothing is granted on it. An operator compares it with the audit trail (broker audit show).",
        metadata={"table": table, "rowId": row_id},
    )
