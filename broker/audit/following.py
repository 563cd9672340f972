"""Following a trail record by record, by what the records themselves say: without the ledger's hashes and MACs.

Each record quotes the hash of the one before it. So a record that was changed is told by the next one's quotation;
and where it was the quotation that was changed, by the record after that, whose quotation fits if the right one is
put back. Holds one record's worth of state, however long the trail is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from broker.audit.chain import GENESIS, link
from broker.audit.record import Record, decode
from broker.audit.verify import Finding, Problem
from broker.errors import Tampered
from broker.scope.canonical import canonical_json, respelt


@dataclass(frozen=True, slots=True)
class _Doubt:
    """Record ``sequence`` does not quote the hash of the one before it: which of the two was changed?"""

    sequence: int
    as_quoted: bytes  # its hash if the quotation is right, and the record before it was changed
    as_found: bytes  # its hash if the quotation was changed


class Following:
    """The place in the trail: after each :meth:`step`, ``seq`` and ``head`` are those of the last record."""

    def __init__(self) -> None:
        self.seq = 0
        self.head = GENESIS
        # What the next record must quote; empty where it has to be looked at closely.
        self._quoted = GENESIS.hex()
        self._doubt: _Doubt | None = None
        self._unknown = False  # the last record could not be read: its hash is whatever the next one quotes

    def step(self, body: bytes) -> tuple[dict[str, Any] | None, Iterator[Finding]]:
        """Take the next record: what it says (None where it cannot be read), and what is wrong with it."""
        try:
            fields, spelt = respelt(body)
            whole = spelt == body and _shaped(fields) and fields["prev"] == self._quoted  # type: ignore[index]
            whole = whole and fields["seq"] == self.seq + 1  # type: ignore[index]
        except (ValueError, TypeError, RecursionError):
            fields, whole = None, False
        if not whole:
            return self._closely(body)
        self.head = sha256(self.head + body).digest()
        self._quoted = self.head.hex()
        self.seq += 1
        return fields, _NOTHING  # type: ignore[return-value]

    def end(self) -> Iterator[Finding]:
        """What remains in doubt where the trail ends."""
        if self._doubt is not None:
            yield _either(self._doubt)
            self._doubt = None

    def _closely(self, body: bytes) -> tuple[dict[str, Any] | None, Iterator[Finding]]:
        try:
            record = decode(body)
        except Tampered:
            return None, iter(self._unreadable())
        found = list(self._placed(record))
        if record.seq > self.seq:
            found = [*self._settled(record), *found, *self._linked(record, body)]
            self._move(record.seq, _hash(record.prev, body))
        return _fields(record), iter(found)

    def _unreadable(self) -> list[Finding]:
        found = [*self.end(), Finding(self.seq + 1, Problem.BODY, "its bytes are no record")]
        self.seq += 1
        self._unknown, self._quoted = True, ""
        return found

    def _placed(self, record: Record) -> Iterator[Finding]:
        expected = self.seq + 1
        if record.seq > expected:
            missing = f"record {expected} is" if record.seq == expected + 1 else f"records {expected} to"
            tail = "" if record.seq == expected + 1 else f" {record.seq - 1} are"
            yield Finding(record.seq, Problem.GAP, f"{missing}{tail} missing before it")
        elif record.seq < expected:
            yield Finding(record.seq, Problem.ORDER, f"it comes after record {self.seq}")

    def _settled(self, record: Record) -> Iterator[Finding]:
        """What the earlier doubt turns out to be, by what this record quotes."""
        doubt, self._doubt = self._doubt, None
        if doubt is None:
            return
        if record.seq != doubt.sequence + 1:
            yield _either(doubt)
        elif record.prev == doubt.as_quoted.hex():
            yield Finding(doubt.sequence - 1, Problem.BODY, f"record {doubt.sequence} quotes another hash than it has")
        elif record.prev == doubt.as_found.hex():
            yield Finding(doubt.sequence, Problem.BODY, "the hash that it quotes was changed")
            self.head = doubt.as_found
        else:
            yield _either(doubt)
            yield Finding(doubt.sequence, Problem.BODY, f"record {record.seq} quotes another hash than it has")
            self._unknown = True

    def _linked(self, record: Record, body: bytes) -> Iterator[Finding]:
        unknown, self._unknown = self._unknown, False
        if unknown or record.seq != self.seq + 1 or record.prev == self.head.hex():
            return
        if self.seq == 0:
            yield Finding(1, Problem.LINK, "it is the first record and follows another one")
            return
        found = canonical_json({**_fields(record), "prev": self.head.hex()})
        self._doubt = _Doubt(record.seq, _hash(record.prev, body), link(self.head, found))

    def _move(self, seq: int, head: bytes) -> None:
        self.seq, self.head = seq, head
        self._quoted = "" if self._doubt is not None else head.hex()


_NAMES = frozenset(Record.__dataclass_fields__)
_NOTHING: Iterator[Finding] = iter(())


def _either(doubt: _Doubt) -> Finding:
    return Finding(
        doubt.sequence - 1, Problem.BODY, f"it, or record {doubt.sequence}, was changed: one does not quote the other"
    )


def _shaped(fields: object) -> bool:
    """Whether it has the fields of a record, of the types that matter here; the rest is the hash's to tell."""
    return (
        fields.__class__ is dict
        and fields.keys() == _NAMES
        and fields["data"].__class__ is dict
        and fields["type"].__class__ is str
    )


def _hash(prev: str, body: bytes) -> bytes:
    try:
        return link(bytes.fromhex(prev), body)
    except ValueError:
        return link(GENESIS, body)


def _fields(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in Record.__dataclass_fields__}
