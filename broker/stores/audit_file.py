"""Audit records in a file of their own: the AuditSink that comes with the broker.

One canonical record per line, appended and synced to a 0600 file, which a log shipper takes further.
The pump may repeat records (it marks them as exported only afterwards), so the file's last complete
line decides what is new; a line that a crash cut short is removed first and comes again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import orjson

from broker.files.durable import sync_directory

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
            fresh = b"".join(record + b"\n" for record in records if _sequence(record) > last)
            written = 0
            while written < len(fresh):
                written += os.write(descriptor, fresh[written:])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(self._path.parent)


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
