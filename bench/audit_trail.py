"""How fast somebody checks an audit trail: a million records as a broker writes them, on one core.

``python -m bench.audit_trail DIRECTORY`` verifies what :func:`write` has put there, as ``broker audit verify`` does,
and prints what it took. It is a process of its own, so that its memory is the verification's.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.audit import checkpoint as checkpoints
from broker.audit import note
from broker.audit.chain import GENESIS, link
from broker.audit.checkpoint import FIRST, Checkpoint
from broker.audit.event import AuditEvent, EventType, Vouch
from broker.audit.offline import Audit
from broker.audit.record import encode
from broker.cli.audit_offline import public_keys, records, witness

RECORDS = 1_000_000
EVERY = 10_000  # records between checkpoints
_EARLY = 100_000  # the memory at this record is what the memory at the end is held against
_ORIGIN = "bench.example.org/jit-broker/bench"


@dataclass(frozen=True, slots=True)
class Verified:
    """One verification."""

    records: int
    seconds: float  # of processor time
    growth_mib: float  # of memory, from an early record to the last
    findings: int

    @property
    def per_second(self) -> float:
        """Records per second of processor time: on one core."""
        return self.records / self.seconds


def write(directory: Path, count: int = RECORDS) -> None:
    """An export of ``count`` records, what a witness has of it, and the public key."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (directory / "public.pem").write_bytes(public)
    head, log, previous = GENESIS, b"", FIRST
    with (directory / "export.jsonl").open("wb") as export, (directory / "witness").open("w") as shown:
        for seq in range(1, count + 1):
            event = _event(seq)
            if seq % EVERY == 0:
                said = Checkpoint(_ORIGIN, seq - 1, head, log, "bench", "bench", 1_800_000_000_000 + seq, previous)
                text = checkpoints.text(said)
                signed, previous = note.sign(text, _ORIGIN, [key]), checkpoints.digest(text)
                shown.write(f"{signed}\n")
                event = AuditEvent(
                    EventType.AUDIT_CHECKPOINT, "broker", Vouch.BROKER, tenant="bench", data={"note": signed}
                )
            body = encode(event, seq=seq, at_ms=1_800_000_000_000 + seq, writer="bench", prev=head)
            head = link(head, body)
            log = log or head
            export.write(body + b"\n")


def _event(seq: int) -> AuditEvent:
    """An issued lease, as :mod:`broker.stores.moves` tells of it."""
    agent = f"spiffe://bench.example.org/agent/{seq % 1000}"
    data = {
        "from": "ISSUING",
        "to": "ACTIVE",
        "expires_ms": 1_800_000_300_000 + seq,
        "upstream": f"database/creds/orders/{seq:026d}",
        "observed": {"lease_id": f"{seq:026d}", "lease_ms": 300_000},
    }
    return AuditEvent(
        EventType.LEASE_ISSUED,
        agent,
        Vouch.BROKER,
        tenant="bench",
        task_id=f"task-{seq // 50:026d}",
        lease_id=f"lease-{seq:026d}",
        attempt_id=f"att-{seq:026d}",
        holder=agent,
        data=data,
    )


def measure(directory: Path, count: int = RECORDS) -> Verified:
    """Write, then verify in a process of its own."""
    write(directory, count)
    command = (sys.executable, "-m", "bench.audit_trail", str(directory))
    ended = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    return Verified(**json.loads(ended.stdout))


def verify(directory: Path) -> Verified:
    """What the process does."""
    keys = public_keys([directory / "public.pem"])
    audit = Audit(keys, [witness(directory / "witness", keys)])
    memory: list[int] = []
    began = time.process_time()
    findings = sum(1 for _ in audit.verify(_watched(records([directory / "export.jsonl"]), memory)))
    seconds = time.process_time() - began
    growth = (_resident() - memory[0]) / 1024 if memory else 0.0
    return Verified(audit.records, seconds, growth, findings)


def _watched(bodies: Iterator[bytes], memory: list[int]) -> Iterator[bytes]:
    for number, body in enumerate(bodies):
        if number == _EARLY:
            memory.append(_resident())
        yield body


def _resident() -> int:
    """The most memory this process ever had, in KiB (getrusage(2), Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    print(json.dumps(asdict(verify(Path(sys.argv[1])))))
