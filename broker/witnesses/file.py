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
from broker.witnesses.times import later_than, newest_of, tells_later

# More than the longest note and its neighbour.
_TAIL = 4 * notes.MOST_CHARACTERS


class FileWitness:
    """A :class:`broker.ports.trail.Witness`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def add(self, checkpoint: OutgoingCheckpoint) -> None:
        """Append and sync. What a crash or a full disk cut short is removed first; what is later stays the last."""
        await asyncio.to_thread(self._append, checkpoint.note, checkpoint.at_ms)

    async def newest(self, after_ms: int) -> str | None:
        """The latest of the last notes in it."""
        note = await asyncio.to_thread(self._latest)
        return None if note is None or not later_than(note, after_ms) else note

    async def close(self) -> None:
        """Nothing is held open."""

    def _append(self, note: str, at_ms: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        try:
            there = _repair(descriptor, note)
            added = [note] if there[-1:] != [note] else []
            # Of a ledger that was put back under its broker, more may come again than is read of the file's end.
            newest = newest_of(there)
            if added and newest is not None and tells_later(newest, at_ms):
                added.append(newest)
            data = "".join(f"{each}\n" for each in added).encode()
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


def _repair(descriptor: int, note: str) -> list[str]:
    """Cut off what does not end as a note does; the last notes that stand there. ``note`` is what comes next."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - _TAIL)
    tail = os.pread(descriptor, size - start, start)
    # A whole note ends in a signature line and an empty line; an empty line also stands inside of one.
    end = len(tail)
    while end and not _whole(tail[:end]):
        end = max(tail.rfind(b"\n\n", 0, end - 1) + 2, 0) if tail.rfind(b"\n\n", 0, end - 1) >= 0 else 0
    if end == 0 and (start > 0 or not _begins(tail, note)):
        raise OSError("the witness file holds something that is no checkpoint")
    if end < len(tail):
        os.ftruncate(descriptor, start + end)
    return _tail(descriptor)


def _begins(tail: bytes, note: str) -> bool:
    """Whether ``tail`` can be the beginning of a note of the same log; a crash may leave zeros behind it."""
    first, found = note.partition("\n")[0].encode() + b"\n", tail.rstrip(b"\0")
    return found.startswith(first) or first.startswith(found)


def _whole(tail: bytes) -> bool:
    lines = tail.split(b"\n")
    return len(lines) >= 3 and lines[-2:] == [b"", b""] and lines[-3].startswith("— ".encode())


def _tail(descriptor: int) -> list[str]:
    """The last notes; what is none comes out as it stands there."""
    start = max(0, os.fstat(descriptor).st_size - _TAIL)
    text = os.pread(descriptor, _TAIL, start).decode("utf-8", "replace")
    found = list(notes.split(text.splitlines(keepends=True)))
    # The first was cut in two by where reading began, unless that is all there is.
    return found[1:] or found if start else found
