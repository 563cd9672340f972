"""One witness's checkpoints, held against the trail as it goes by: both in order, so one of each is in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker.audit.believed import read
from broker.audit.checkpoint import Checkpoint
from broker.audit.verify import Finding, Problem


@dataclass(frozen=True, slots=True)
class Seen:
    """A believed checkpoint of the witness."""

    checkpoint: Checkpoint
    digest: bytes


class Witnessed:
    """What one witness shows. :attr:`next_count` is the record at which :meth:`compare` wants to be asked."""

    def __init__(self, name: str, notes: Iterable[str], keys: Sequence[Ed25519PublicKey]) -> None:
        self.name = name
        self.agreed = 0  # the last record up to which it has seen this very trail
        self._notes = iter(notes)
        self._keys = keys
        self._next: Seen | None = None
        self._last: Seen | None = None
        self._forked = False
        self.log = b""
        self.origin = ""

    @property
    def next_count(self) -> int:
        """The record that its next checkpoint is about; 0 where it has no more."""
        return 0 if self._next is None else self._next.checkpoint.count

    def advance(self) -> Iterator[Finding]:
        """Go to its next checkpoint that can be believed."""
        self._next = None
        for note in self._notes:
            shown = read(note, self._keys)
            if shown.checkpoint is None or shown.doubt:
                yield self._finding(shown.checkpoint.count if shown.checkpoint else 0, shown.doubt)
                continue
            seen = Seen(shown.checkpoint, shown.digest)
            if self._last is not None and seen.digest == self._last.digest:
                continue  # sent twice: its outbox delivers at least once
            yield from self._follows(seen)
            if self._last is None or seen.checkpoint.count >= self._last.checkpoint.count:
                self._next = self._last = seen
                return
        if self._last is None:
            yield self._finding(0, "it shows no checkpoint that one of the keys has signed")

    def _follows(self, seen: Seen) -> Iterator[Finding]:
        said, last = seen.checkpoint, self._last
        if last is None:
            self.log, self.origin = said.log, said.origin
            return
        if (said.origin, said.log) != (self.origin, self.log):
            yield self._finding(said.count, f"a checkpoint is of another log: {said.origin}, {said.log.hex()[:16]}")
        elif said.count < last.checkpoint.count:
            detail = f"it saw the trail go back from record {last.checkpoint.count} to {said.count}"
            yield Finding(said.count + 1, Problem.FORKED, f"witness {self.name}: {detail}")
        elif said.previous != last.digest:
            detail = f"checkpoints between records {last.checkpoint.count} and {said.count} are missing"
            yield self._finding(said.count, detail)

    def compare(self, seq: int, head: bytes, log: bytes) -> Iterator[Finding]:
        """The trail has come to record ``seq``: go through its checkpoints up to there."""
        while self._next is not None and self._next.checkpoint.count <= seq:
            said = self._next.checkpoint
            if said.log != log:
                yield from self._fork(1, said.count, "it has seen another log")
            elif said.count == seq and said.head == head:
                self.agreed = seq
            elif said.count == seq:
                # It may have agreed to this very record before, by another checkpoint.
                yield from self._fork(min(self.agreed + 1, seq), seq, "they are not those that it has seen")
            yield from self.advance()

    def _fork(self, first: int, last: int, why: str) -> Iterator[Finding]:
        if not self._forked:  # once is enough: every later one differs as well
            self._forked = True
            yield Finding(first, Problem.FORKED, f"witness {self.name}: records {first} to {last}: {why}")

    def finish(self, seq: int) -> Iterator[Finding]:
        """The trail has ended with record ``seq``."""
        highest = 0
        while self._next is not None:
            highest = max(highest, self._next.checkpoint.count)
            yield from self.advance()
        if highest > seq:
            detail = f"witness {self.name} has seen {highest} records: {highest - seq} are missing"
            yield Finding(seq + 1, Problem.TRUNCATED, detail)

    def _finding(self, sequence: int, why: str) -> Finding:
        return Finding(sequence, Problem.WITNESS, f"witness {self.name}: {why}")
