"""A checkpoint: what the broker vouches for with its signature about the trail so far.

The text of a signed note (:mod:`broker.audit.note`) in the form of c2sp.org/tlog-checkpoint: whose log, how many
records, and the hash that stands for all of them, which here is the hash of the last record and not a Merkle root. The
lines after these are ours::

    example.org/jit-broker/default
    1042
    <hash of record 1042, base64>
    log <hash of record 1, hex: which log this is>
    writer <the broker that signs>
    tenant default
    time 2027-01-31T12:00:00.000Z
    previous <SHA-256 of the text of the checkpoint before, hex; zeros in the first>

Records are numbered 1, 2, ... without gaps, so the number of records is the sequence number of the last.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from broker.audit.note import invalid

# How many records may follow a checkpoint's last before the record that carries it: it is signed while others write.
# Whoever verifies remembers so many hashes, whatever the length of the trail.
REACH = 16_384
FIRST = bytes(32)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORM = re.compile(
    r"(?P<origin>[!-*,-~]{1,512})\n"
    r"(?P<count>[1-9][0-9]{0,17})\n"
    r"(?P<head>[A-Za-z0-9+/]{43}=)\n"
    r"log (?P<log>[0-9a-f]{64})\n"
    r"writer (?P<writer>[!-~]{1,128})\n"
    r"tenant (?P<tenant>[a-z0-9-]{1,63})\n"
    r"time (?P<time>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z)\n"
    r"previous (?P<previous>[0-9a-f]{64})\n",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """``origin``'s trail begins with record hash ``log`` and has ``count`` records, the last with hash ``head``."""

    origin: str
    count: int
    head: bytes
    log: bytes
    writer: str
    tenant: str
    at_ms: int  # above that of the checkpoint before
    previous: bytes  # digest of the text of the checkpoint before; FIRST in the first


def text(checkpoint: Checkpoint) -> str:
    """What is signed."""
    at = (_EPOCH + timedelta(milliseconds=checkpoint.at_ms)).isoformat(timespec="milliseconds")
    return (
        f"{checkpoint.origin}\n{checkpoint.count}\n{base64.b64encode(checkpoint.head).decode()}\n"
        f"log {checkpoint.log.hex()}\nwriter {checkpoint.writer}\ntenant {checkpoint.tenant}\n"
        f"time {at.removesuffix('+00:00')}Z\nprevious {checkpoint.previous.hex()}\n"
    )


def parse(said: str) -> Checkpoint:
    """The checkpoint that is spelt so. Raises :class:`Tampered` (CHECKPOINT_INVALID) for anything else."""
    fields = _FORM.fullmatch(said)
    if fields is None:
        raise invalid("its lines are not those of a checkpoint")
    try:
        at = datetime.fromisoformat(fields["time"])
    except ValueError:
        raise invalid("its time is none") from None
    found = Checkpoint(
        origin=fields["origin"],
        count=int(fields["count"]),
        head=base64.b64decode(fields["head"]),
        log=bytes.fromhex(fields["log"]),
        writer=fields["writer"],
        tenant=fields["tenant"],
        at_ms=milliseconds(at),
        previous=bytes.fromhex(fields["previous"]),
    )
    if text(found) != said:
        raise invalid("it is not spelt as a checkpoint is")
    return found


def milliseconds(at: datetime) -> int:
    """A time as checkpoints count it, rounded down."""
    return (at - _EPOCH) // timedelta(milliseconds=1)


def digest(said: str) -> bytes:
    """What the next checkpoint quotes of this one's text."""
    return hashlib.sha256(said.encode()).digest()
