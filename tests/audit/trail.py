"""A whole signed trail to damage: records, the checkpoints in it, and what a witness was sent of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from broker.audit import checkpoint as checkpoints
from broker.audit import note
from broker.audit.chain import GENESIS, link
from broker.audit.checkpoint import FIRST, Checkpoint
from broker.audit.event import AuditEvent, EventType, Vouch
from broker.audit.offline import Audit
from broker.audit.record import encode
from broker.audit.verify import Finding
from broker.audit.witnessed import Witnessed
from broker.scope.canonical import JsonValue, canonical_json

ORIGIN, TENANT, WRITER = "example.org/jit-broker/default", "default", "writer-1"
KEY, NEXT_KEY, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 9))


@dataclass(frozen=True)
class Trail:
    """Everything that an attacker may get at. Damaging makes another one."""

    bodies: tuple[bytes, ...]
    notes: tuple[str, ...]  # what the witness was sent, in order
    keys: tuple[Ed25519PublicKey, ...] = (KEY.public_key(),)
    origin: str = ORIGIN

    def with_body(self, seq: int, body: bytes) -> Trail:
        """Record ``seq`` is ``body``."""
        return replace(self, bodies=(*self.bodies[: seq - 1], body, *self.bodies[seq:]))

    def edited(self, seq: int, /, **changes: JsonValue) -> Trail:
        """Record ``seq`` says something else, in its canonical form."""
        return self.with_body(seq, canonical_json({**json.loads(self.bodies[seq - 1]), **changes}))

    def spelt(self, seq: int, change: Callable[[str], str]) -> Trail:
        """Record ``seq`` is spelt otherwise."""
        before = self.bodies[seq - 1].decode()
        assert change(before) != before
        return self.with_body(seq, change(before).encode())

    def verify(self, *, closed: bool = False, witness: bool = True) -> tuple[Audit, list[Finding]]:
        """What an auditor finds."""
        witnesses = [Witnessed("w", self.notes, self.keys)] if witness else []
        audit = Audit(self.keys, witnesses, origin=self.origin, closed=closed)
        return audit, list(audit.verify(self.bodies))


def event(number: int, said: str = "") -> AuditEvent:
    """What record ``number`` is about; ``said`` makes it another one."""
    return AuditEvent(
        EventType.LEASE_ISSUED,
        "spiffe://example.org/agent/a",
        Vouch.BROKER,
        tenant=TENANT,
        task_id=f"task-{number // 5}",
        lease_id=f"lease-{number}",
        attempt_id=f"att-{number}",
        holder="spiffe://example.org/agent/a",
        data={"n": number, "upstream": f"läse-{number}{said}", "actions": ["read"], "nested": {"on": True}},
    )


@dataclass
class Author:
    """Writes a trail as a broker does: chained, and signed by ``keys`` after every ``every`` records."""

    keys: Sequence[Ed25519PrivateKey] = (KEY,)
    every: int = 10
    origin: str = ORIGIN
    tenant: str = TENANT
    writer: str = WRITER
    bodies: list[bytes] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    head: bytes = GENESIS
    log: bytes = b""
    previous: bytes = FIRST

    def write(self, what: AuditEvent) -> None:
        seq = len(self.bodies) + 1
        body = encode(what._replace(tenant=self.tenant), seq=seq, at_ms=1000 * seq, writer=self.writer, prev=self.head)
        self.head = link(self.head, body)
        self.log = self.log or self.head
        self.bodies.append(body)

    def said(self, **changes: Any) -> Checkpoint:
        """What the next checkpoint says."""
        count = len(self.bodies)
        said = Checkpoint(
            self.origin, count, self.head, self.log, self.writer, self.tenant, 1000 * count + 500, self.previous
        )
        return replace(said, **changes)

    def sign(self, said: Checkpoint | None = None) -> None:
        """Write a checkpoint into the trail, and send it to the witness."""
        text = checkpoints.text(said or self.said())
        self.carry(note.sign(text, self.origin, self.keys))
        self.previous = checkpoints.digest(text)

    def carry(self, signed: str) -> None:
        """Write this note into the trail, and send it."""
        self.notes.append(signed)
        self.write(AuditEvent(EventType.AUDIT_CHECKPOINT, "broker", Vouch.BROKER, data={"note": signed}))

    def go_on(self, upto: int, said: str = "") -> Author:
        """Until there are ``upto`` records; a checkpoint is every tenth record and the last."""
        while len(self.bodies) < upto:
            number = len(self.bodies) + 1
            if number % self.every == 0 or number == upto:
                self.sign()
            else:
                self.write(event(number, said))
        return self

    def trail(self, *keys: Ed25519PrivateKey) -> Trail:
        trusted = tuple(key.public_key() for key in (keys or self.keys))
        return Trail(tuple(self.bodies), tuple(self.notes), trusted, self.origin)


def written(upto: int = 60, **how: Any) -> Trail:
    """An honest one: checkpoints are records 10, 20, ... and cover all before them."""
    return Author(**how).go_on(upto).trail()


def rewritten(trail: Trail, from_seq: int, bodies: Sequence[bytes]) -> Trail:
    """The records from ``from_seq`` on are ``bodies``, quotations and numbers made to fit; checkpoints as they are."""
    kept, head = list(trail.bodies[: from_seq - 1]), GENESIS
    for body in kept:
        head = link(head, body)
    for body in bodies:
        fields = {**json.loads(body), "seq": len(kept) + 1, "prev": head.hex()}
        kept.append(canonical_json(fields))
        head = link(head, kept[-1])
    return replace(trail, bodies=tuple(kept))
