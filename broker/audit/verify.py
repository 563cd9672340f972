"""Verification of a stored chain: which record is damaged, and what about it.

Takes rows in order, holds one of them at a time, and yields findings; no finding means that the
chain is whole. Knows no database and needs no key: without one, everything but the MACs is checked.

How damage is located. A record names its predecessor's hash inside its body, so it can be checked
against its own stored hash alone; a flipped byte is therefore found in the one record that has it.
Whether the body or the stored hash was changed is told by the witnesses that remain: the MAC over
the hash, and the next record, which quotes it.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from broker.audit.chain import GENESIS, head_mac, link, record_mac
from broker.audit.record import Record, decode
from broker.errors import Tampered


class Problem(StrEnum):
    """What is wrong with a record, or with the chain at its place."""

    BODY = "BODY"  # the bytes of the record were changed
    HASH = "HASH"  # the record is right, its stored hash was changed
    LINK = "LINK"  # it is whole in itself, but does not follow the record before it
    GAP = "GAP"  # records are missing before it
    ORDER = "ORDER"  # its sequence number is not above the one before it
    INDEX = "INDEX"  # the columns to search by do not say what the record says
    MAC = "MAC"  # its MAC is not ours: written by somebody without the key
    KEY = "KEY"  # its MAC was made with a key that is not at hand
    TRUNCATED = "TRUNCATED"  # the head knows of later records that are not there
    HEAD = "HEAD"  # the head itself is missing, or is not ours, or is not the last record's
    # Found by signatures and witnesses (offline.py).
    SIGNATURE = "SIGNATURE"  # it carries a checkpoint that no known key has signed
    CHECKPOINT = "CHECKPOINT"  # its checkpoint is signed, and does not fit the records
    UNSIGNED = "UNSIGNED"  # no checkpoint covers it
    FORKED = "FORKED"  # a witness has seen another record in its place
    WITNESS = "WITNESS"  # what the witness shows is not, or not all, what it was sent


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One row of the audit table, as it is."""

    seq: int
    tenant: str
    holder: str
    lease_id: str
    body: bytes
    hash: bytes
    mac: bytes
    mac_key_id: str


@dataclass(frozen=True, slots=True)
class StoredHead:
    """Where the ledger says that the chain ends."""

    seq: int
    hash: bytes
    mac: bytes
    mac_key_id: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One damage and its place."""

    sequence: int
    problem: Problem
    detail: str

    def __str__(self) -> str:
        return f"record {self.sequence}: {self.problem}: {self.detail}"


# The key of an id; raises Tampered for an unknown one (KeyRing.find).
FindKey = Callable[[str], bytes]


def verify(rows: Iterable[StoredRecord], head: StoredHead | None, find_key: FindKey | None = None) -> Iterator[Finding]:
    """Every damage of the chain, in order of place. ``rows`` ascend by sequence, from the first record on."""
    last: _Link | None = None
    for row, following in _with_following(rows):
        record = _decoded(row.body)
        this = _Link(row.seq, _true_hash(row, record, following))
        yield from _check_place(row, last)
        yield from _check_content(row, record, this)
        if (
            record is not None
            and _follows_directly(this, last)
            and record.prev != (last.hash if last else GENESIS).hex()
        ):
            yield Finding(row.seq, Problem.LINK, "it is whole, but does not follow the record before it")
        yield from _check_mac(row, this, find_key)
        last = this
    yield from _check_head(last, head, find_key)


@dataclass(frozen=True, slots=True)
class _Link:
    """What a checked record leaves behind for the next one: its place, and its hash as it must have been."""

    seq: int
    hash: bytes


def _with_following(rows: Iterable[StoredRecord]) -> Iterator[tuple[StoredRecord, StoredRecord | None]]:
    ahead = iter(rows)
    current = next(ahead, None)
    while current is not None:
        following = next(ahead, None)
        yield current, following
        current = following


def _decoded(body: bytes) -> Record | None:
    try:
        return decode(body)
    except Tampered:
        return None


def _true_hash(row: StoredRecord, record: Record | None, following: StoredRecord | None) -> bytes:
    """The stored hash, unless the next record quotes the one that the body really has: then that one."""
    computed = _computed(record, row.body)
    if computed is None or computed == row.hash or following is None:
        return row.hash
    successor = _decoded(following.body)
    return computed if successor is not None and successor.prev == computed.hex() else row.hash


def _computed(record: Record | None, body: bytes) -> bytes | None:
    if record is None:
        return None
    try:
        return link(bytes.fromhex(record.prev), body)
    except ValueError:
        return None


def _follows_directly(this: _Link, last: _Link | None) -> bool:
    return this.seq == (last.seq if last else 0) + 1


def _check_place(row: StoredRecord, last: _Link | None) -> Iterator[Finding]:
    expected = (last.seq if last else 0) + 1
    if row.seq > expected:
        missing = f"record {expected} is" if row.seq == expected + 1 else f"records {expected} to {row.seq - 1} are"
        yield Finding(row.seq, Problem.GAP, f"{missing} missing before it")
    elif row.seq < expected:
        yield Finding(row.seq, Problem.ORDER, f"it comes after record {expected - 1}")


def _check_content(row: StoredRecord, record: Record | None, this: _Link) -> Iterator[Finding]:
    computed = _computed(record, row.body)
    if record is None or computed is None:
        yield Finding(row.seq, Problem.BODY, "its bytes are no record any more")
        return
    if computed != row.hash:
        if this.hash == computed:
            yield Finding(
                row.seq, Problem.HASH, "its bytes are right (the next record says so), its stored hash is not"
            )
        else:
            yield Finding(row.seq, Problem.BODY, "its bytes do not have its hash")
    if record.seq != row.seq:
        yield Finding(row.seq, Problem.INDEX, f"it says that it is record {record.seq}")
    for column in ("tenant", "holder", "lease_id"):
        if getattr(record, column) != getattr(row, column):
            yield Finding(row.seq, Problem.INDEX, f"column {column} is not what the record says")


def _check_mac(row: StoredRecord, this: _Link, find_key: FindKey | None) -> Iterator[Finding]:
    if find_key is None:
        return
    try:
        key = find_key(row.mac_key_id)
    except Tampered:
        yield Finding(row.seq, Problem.KEY, f"no key {row.mac_key_id!r} at hand")
        return
    if not hmac.compare_digest(record_mac(key, this.hash), row.mac):
        yield Finding(row.seq, Problem.MAC, "its MAC is not ours")


def _check_head(last: _Link | None, head: StoredHead | None, find_key: FindKey | None) -> Iterator[Finding]:
    if head is None:
        if last is not None:
            yield Finding(last.seq, Problem.HEAD, "the ledger has records and no head")
        return
    seq, digest = (last.seq, last.hash) if last else (0, GENESIS)
    if head.seq > seq:
        yield Finding(seq + 1, Problem.TRUNCATED, f"the head stands at record {head.seq}: {head.seq - seq} are missing")
    elif head.seq < seq:
        yield Finding(head.seq, Problem.HEAD, f"the head stands here, the records go on to {seq}")
    elif not hmac.compare_digest(head.hash, digest):
        yield Finding(head.seq, Problem.HEAD, "the head's hash is not the last record's")
    if find_key is None:
        return
    try:
        key = find_key(head.mac_key_id)
    except Tampered:
        yield Finding(head.seq, Problem.KEY, f"no key {head.mac_key_id!r} of the head at hand")
        return
    if not hmac.compare_digest(head_mac(key, head.seq, head.hash), head.mac):
        yield Finding(head.seq, Problem.MAC, "the head's MAC is not ours")
