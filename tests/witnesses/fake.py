"""A witness that can be down, and that remembers; a store with checkpoints in it; a broker's keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.audit import checkpoint, note
from broker.audit.checkpoint import Checkpoint
from broker.ports.trail import OutgoingCheckpoint
from broker.references import resolve
from broker.witnesses.signing import CheckpointKeys
from broker.witnesses.times import later_than, newest_of
from tests.audit.trail import KEY, ORIGIN


class FakeWitness:
    """Keeps what it is sent, in order. While ``down`` is set, everything fails with it."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.down: OSError | None = None
        self.asked = 0

    async def add(self, checkpoint: OutgoingCheckpoint) -> None:
        self.asked += 1
        if self.down is not None:
            raise self.down
        self.notes.append(checkpoint.note)

    async def newest(self, after_ms: int) -> str | None:
        if self.down is not None:
            raise self.down
        newest = newest_of(self.notes)
        return newest if newest is not None and later_than(newest, after_ms) else None

    async def close(self) -> None:
        pass


def signing_key(path: Path, key: object = KEY) -> str:
    """``key`` in a file; its reference."""
    assert hasattr(key, "private_bytes")
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return f"file:{path}"


def keys(directory: Path) -> CheckpointKeys:
    return CheckpointKeys([signing_key(directory / "checkpoint.key")], resolve)


def outgoing(count: int, at_ms: int | None = None, keys: Sequence[Ed25519PrivateKey] = (KEY,)) -> OutgoingCheckpoint:
    """A checkpoint about ``count`` records, at that second."""
    when = 1000 * count if at_ms is None else at_ms
    said = Checkpoint(ORIGIN, count, bytes(32), bytes(32), "w", "default", when, bytes(32))
    return OutgoingCheckpoint(count + 1, count, when, note.sign(checkpoint.text(said), ORIGIN, keys))
