"""A witness that is a file: on another machine's file system, or on a medium that cannot be rewritten.

Notes one after the other, each followed by an empty line, so that it is read with any pager and checked with OpenSSL.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from broker.audit import note as notes
from broker.files.durable import sync_directory
from broker.ports.trail import OutgoingCheckpoint
from broker.witnesses.times import later_than, newest_of

# More than the longest note and its neighbour.
_TAIL = 4 * notes.MOST_CHARACTERS


class FileWitness:
    """A :class:`broker.ports.trail.Witness`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def add(self, checkpoint: OutgoingCheckpoint) -> None:
        """Append and sync. What a crash or a full disk cut short is removed first."""
        await asyncio.to_thread(self._append, checkpoint.note)

    async def newest(self, after_ms: int) -> str | None:
        """The latest of the last notes in it."""
        note = await asyncio.to_thread(self._latest)
        return None if note is None or not later_than(note, after_ms) else note

    async def close(self) -> None:
        """Nothing is held open."""

    def _append(self, note: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        try:
            last = _repair(descriptor)
            data = f"{note}\n".encode() if note != last else b""
            written = 0
            while written < len(data):
                written += os.write(descriptor, data[written:])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(self._path.parent)

    def _latest(self) -> str | None:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            found = _tail(descriptor)
        finally:
            os.close(descriptor)
        return newest_of(found)


def _repair(descriptor: int) -> str | None:
    """Cut off what does not end as a note does; the last note that stands there."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - _TAIL)
    tail = os.pread(descriptor, size - start, start)
    # A whole note ends in a signature line and an empty line; an empty line also stands inside of one.
    end = len(tail)
    while end and not _whole(tail[:end]):
        end = max(tail.rfind(b"\n\n", 0, end - 1) + 2, 0) if tail.rfind(b"\n\n", 0, end - 1) >= 0 else 0
    if end == 0 and start > 0:
        raise OSError("the witness file holds something that is no checkpoint")
    if end < len(tail):
        os.ftruncate(descriptor, start + end)
    found = _tail(descriptor)
    return found[-1] if found else None


def _whole(tail: bytes) -> bool:
    lines = tail.split(b"\n")
    return len(lines) >= 3 and lines[-2:] == [b"", b""] and lines[-3].startswith("— ".encode())


def _tail(descriptor: int) -> list[str]:
    size = os.fstat(descriptor).st_size
    text = os.pread(descriptor, _TAIL, max(0, size - _TAIL)).decode("utf-8", "replace")
    return list(notes.split(text.splitlines(keepends=True)))
