"""Verification by somebody who trusts nobody: the records, the public keys, and what witnesses were sent.

Takes records in order, as an export or a ledger has them, and needs no secret. What it proves, and what not, is in
docs/audit.md. Memory does not grow with the trail, nor with what the witnesses have.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker.audit.believed import read
from broker.audit.checkpoint import FIRST, REACH, Checkpoint
from broker.audit.event import EventType
from broker.audit.following import Following
from broker.audit.verify import Finding, Problem
from broker.audit.witnessed import Witnessed

_CHECKPOINT = EventType.AUDIT_CHECKPOINT.value


class Audit:
    """One run over one trail. Afterwards the figures say how far it is proven."""

    def __init__(
        self,
        keys: Sequence[Ed25519PublicKey],
        witnesses: Sequence[Witnessed] = (),
        *,
        origin: str = "",
        closed: bool = False,
    ) -> None:
        """``origin``: whose log it must be. ``closed``: its writer has ended, so that a checkpoint covers all of it."""
        self._keys = keys
        self._witnesses = witnesses
        self._origin = origin
        self._closed = closed
        self._place = Following()
        # The record that a checkpoint is in, and those that it may be about.
        self._recent: deque[bytes] = deque(maxlen=REACH + 1)
        self._previous = FIRST
        self._last_time = -1
        self._after = 0  # the last record that is no checkpoint
        self.log = b""  # hash of the first record
        self.records = 0
        self.signed = 0  # up to this record, a checkpoint in the trail covers it
        self.checkpoints = 0

    @property
    def witnessed(self) -> int:
        """Up to this record, every witness has seen this very trail; 0 without witnesses."""
        return min((each.agreed for each in self._witnesses), default=0)

    def verify(self, bodies: Iterable[bytes]) -> Iterator[Finding]:
        """Every damage, in order of place."""
        for witness in self._witnesses:
            yield from witness.advance()
        step, place, recent = self._place.step, self._place, self._recent
        awaited = self._awaited()
        for body in bodies:
            before = place.seq
            fields, found = step(body)
            yield from found
            if place.seq != before + 1:
                if place.seq == before:
                    continue  # out of place: it says nothing about the trail
                recent.extend(bytes(32) for _ in range(min(place.seq - before - 1, REACH + 1)))
            recent.append(place.head)
            if not before:
                self.log = place.head
            if fields is not None and fields["type"] == _CHECKPOINT:
                yield from self._checkpoint(fields)
            else:
                self._after = place.seq
            if awaited and place.seq >= awaited:
                yield from self._compare()
                awaited = self._awaited()
        yield from self._end()

    def _awaited(self) -> int:
        return min((each.next_count for each in self._witnesses if each.next_count), default=0)

    def _compare(self) -> Iterator[Finding]:
        for witness in self._witnesses:
            yield from witness.compare(self._place.seq, self._place.head, self.log)

    def _end(self) -> Iterator[Finding]:
        yield from self._place.end()
        self.records = self._place.seq
        for witness in self._witnesses:
            yield from witness.finish(self.records)
        if not self.checkpoints:
            yield Finding(1, Problem.UNSIGNED, "the trail has no checkpoint that one of the keys has signed")
        elif self._closed and self._after > self.signed:
            detail = f"no checkpoint covers records {self.signed + 1} to {self._after}"
            yield Finding(self.signed + 1, Problem.UNSIGNED, detail)

    # ------------------------------------------------------------------ checkpoints in the trail

    def _checkpoint(self, fields: dict[str, Any]) -> Iterator[Finding]:
        seq = self._place.seq
        note = fields["data"].get("note")
        shown = read(note if isinstance(note, str) else "", self._keys)
        said, previous = shown.checkpoint, self._previous
        if said is not None:
            self._previous = shown.digest
        if said is None or shown.doubt:
            yield Finding(seq, Problem.SIGNATURE, f"its checkpoint is not believed: {shown.doubt}")
            return
        for why in self._misfits(said, fields, previous):
            yield Finding(seq, Problem.CHECKPOINT, why)
        if self._hash(said.count) not in (said.head, None):
            first = min(self.signed + 1, said.count)
            detail = f"records {first} to {said.count} are not those that checkpoint {seq} was signed over"
            yield Finding(first, Problem.CHECKPOINT, detail)
        self.checkpoints += 1
        self.signed = max(self.signed, min(said.count, seq))
        self._last_time = max(self._last_time, said.at_ms)

    def _misfits(self, said: Checkpoint, fields: dict[str, Any], previous: bytes) -> Iterator[str]:
        seq = self._place.seq
        self._origin = self._origin or said.origin
        if said.origin != self._origin:
            yield f"it is of another log: {said.origin}"
        if said.log != self.log:
            yield "it is of a log that begins with another record"
        if (said.tenant, said.writer) != (fields["tenant"], fields["writer"]):
            yield "its tenant or writer is not the record's"
        if not max(self.signed + 1, seq - REACH) <= said.count < seq:
            yield f"it is about record {said.count}, which is not one of those between the checkpoint before and itself"
        if said.previous != previous:
            yield "it does not follow the checkpoint before it"
        if said.at_ms <= self._last_time:
            yield "it is not later than the checkpoint before it"

    def _hash(self, count: int) -> bytes | None:
        """The hash of an earlier record; None where it is not remembered, or the record is missing."""
        back = self._place.seq - count
        if not 0 <= back < len(self._recent):
            return None
        found = self._recent[-1 - back]
        return None if found == bytes(32) else found
