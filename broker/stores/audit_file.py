"""Audit records in a file of their own: the AuditSink that comes with the broker.

One canonical record per line, appended and synced to a 0600 file, which a log shipper takes further.
The pump may repeat records (it marks them as exported only afterwards), so the file's last complete
line decides what is new; a line that a crash cut short is removed first and comes again.

What is repeated must be what the file has. Where it is not, the ledger was put back to an earlier state, or is another
one, and has gone on from there: the file is then kept beside, as the evidence that it is, and a new one is begun, so
that nothing that the ledger says now is taken for exported and is not.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import structlog

from broker.files.durable import sync_directory

log = structlog.get_logger("broker.audit")

# How much is read at a time when looking backwards for the last line.
_BLOCK = 64 * 1024


class AuditFile:
    """A :class:`broker.ports.trail.AuditSink` on one file. A file that was moved away is begun anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._one_at_a_time = asyncio.Lock()

    async def write(self, records: Sequence[bytes]) -> None:
        """Durably append what the file does not have yet. Raises OSError."""
        async with self._one_at_a_time:
            await asyncio.to_thread(self._append, records)

    def _append(self, records: Sequence[bytes]) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        try:
            line = last_line(descriptor)
            last = _sequence(line) if line else 0
            repeated = [record for record in records if _sequence(record) <= last]
            # Each covers all before it, by its ``prev``.
            if repeated and not _holds(descriptor, repeated[-1]):
                self._keep_beside(line, last)
                self._append(records)
                return
            fresh = b"".join(record + b"\n" for record in records if _sequence(record) > last)
            written = 0
            while written < len(fresh):
                written += os.write(descriptor, fresh[written:])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(self._path.parent)

    def _keep_beside(self, line: bytes, last: int) -> None:
        """Out of the way, under a name that says where it ends; over nothing. Raises OSError."""
        kept = self._path.with_name(f"{self._path.name}.{last}-{hashlib.sha256(line).hexdigest()[:8]}")
        if kept.exists():
            raise FileExistsError(f"{kept} is there already")
        self._path.rename(kept)
        log.error(
            "the audit export has records that are not the ledger's: it is kept, and a new one is begun",
            kept=str(kept),
            hint="The ledger was put back, or is another one. If that was nobody of yours, it is an intrusion.",
        )


def _holds(descriptor: int, record: bytes) -> bool:
    """Whether the line with its sequence number is this record."""
    wanted = _sequence(record)
    for line in _backwards(descriptor):
        if line == record:
            return True
        try:
            if _sequence(line) <= wanted:
                return False
        except OSError:  # no record: somebody has been at the file, which is for its verifier to say
            continue
    return False


def _backwards(descriptor: int) -> Iterator[bytes]:
    """Its complete lines, the last one first."""
    start, rest = os.fstat(descriptor).st_size, b""
    while start > 0:
        begin = max(0, start - _BLOCK)
        rest, *lines = (os.pread(descriptor, start - begin, begin) + rest).split(b"\n")
        start = begin
        yield from (line for line in reversed(lines) if line)
    if rest:
        yield rest


def last_line(descriptor: int) -> bytes:
    """Cut off an incomplete last line; the last complete one, empty in an empty file. Raises OSError."""
    size = os.fstat(descriptor).st_size
    tail, start = b"", size
    while start > 0 and tail.count(b"\n") < 2:
        begin = max(0, start - _BLOCK)
        tail = os.pread(descriptor, start - begin, begin) + tail
        start = begin
    complete = tail.rfind(b"\n") + 1
    if complete < len(tail):
        os.ftruncate(descriptor, size - (len(tail) - complete))
    if not complete:
        return b""
    return tail[tail.rfind(b"\n", 0, complete - 1) + 1 : complete - 1]


def _sequence(record: bytes) -> int:
    """The sequence number of a record. Raises OSError for a line that is none: the file is not ours to append to."""
    try:
        return int(orjson.loads(record)["seq"])
    except (ValueError, KeyError, TypeError):
        raise OSError("the audit file holds a line that is no audit record") from None
