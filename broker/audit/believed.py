"""From a note that somebody shows to a checkpoint, and whether to believe it: a known key signed it, under its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker.audit import checkpoint as checkpoints
from broker.audit import note as notes
from broker.audit.checkpoint import Checkpoint
from broker.errors import Tampered


@dataclass(frozen=True, slots=True)
class Shown:
    """A note, read: what it says, and why it is not believed (empty if it is)."""

    checkpoint: Checkpoint | None  # None where it does not even say anything
    digest: bytes
    doubt: str


def read(note: str, keys: Sequence[Ed25519PublicKey]) -> Shown:
    """What ``note`` says, and whether one of ``keys`` has signed it. Never raises."""
    try:
        found = notes.parse(note)
        said = checkpoints.parse(found.text)
    except Tampered as failure:
        return Shown(None, b"", failure.message)
    return Shown(said, checkpoints.digest(found.text), _doubt(found, said, keys))


def _doubt(note: notes.Note, said: Checkpoint, keys: Sequence[Ed25519PublicKey]) -> str:
    if any(each.name != said.origin for each in note.signatures):
        return "it is signed under another name than its own"
    try:
        by = notes.signers(note, keys)
    except Tampered as failure:
        return failure.message
    return "" if by else "no key that you gave has signed it"
