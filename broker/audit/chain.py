"""How records are chained, and how the chain is bound to a key.

Each record's hash covers the hash of the record before it, so that one changed, missing or inserted
record is seen by all that follow. A hash needs no secret, so whoever can write the database could
compute the chain anew: each hash therefore carries an HMAC under a key that is not in the database,
and so does the *head* (the last sequence number and hash), which makes cutting off the tail visible.

Not seen from inside: a database put back, as a whole, to an earlier state of itself, head included.
That takes a witness elsewhere: the exported records (:mod:`broker.stores.audit_file`), and the signed
checkpoints that come with the audit work.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache

# What the first record follows.
GENESIS = bytes(32)
_BLOCK = 64  # bytes, of SHA-256
_BEGUN = hashlib.sha256()  # a copy is made without asking OpenSSL for the algorithm


def link(prev: bytes, body: bytes) -> bytes:
    """The hash of the record ``body`` that follows a record with hash ``prev``: SHA-256(prev || body)."""
    digest = _BEGUN.copy()
    digest.update(prev + body)
    return digest.digest()


def record_mac(key: bytes, digest: bytes) -> bytes:
    """The MAC of one record, by its hash. The prefix keeps it apart from the other uses of the key."""
    inner, outer = _prepared(key)
    within, around = inner.copy(), outer.copy()
    within.update(digest)
    around.update(within.digest())
    return around.digest()


@lru_cache(maxsize=8)
def _prepared(key: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """HMAC-SHA256 (RFC 2104 section 4) up to where the digest begins: a copy takes half as long as OpenSSL's HMAC."""
    if len(key) > _BLOCK:
        key = hashlib.sha256(key).digest()
    key = key.ljust(_BLOCK, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + b"audit-record\0")
    return inner, hashlib.sha256(bytes(byte ^ 0x5C for byte in key))


def head_mac(key: bytes, seq: int, digest: bytes) -> bytes:
    """The MAC of the head: the chain ends at record ``seq`` with this hash."""
    return hmac.digest(key, b"audit-head\0%d\0" % seq + digest, "sha256")
