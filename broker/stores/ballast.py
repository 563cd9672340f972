"""Room kept for revocations on a disk that fills up: a file beside the ledger, given up when a commit finds no space.

From then on grants stop (the gate asks :attr:`Ballast.held`), and what the disk gave back is for ends: they commit.
It is made again once there is room for it and for as much again, so that it does not come and go.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

from broker.files.durable import sync_directory

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
# Free space below which an input/output error is taken for a want of space: not every path reports that by name.
_SCARCE = 1024 * 1024


class Ballast:
    """``size`` bytes, really taken. Methods raise OSError for what is not a want of space."""

    def __init__(self, ledger: Path, size: int) -> None:
        self.path = ledger.with_name(f"{ledger.name}.ballast")
        self.size = size
        self.held = False

    def restore(self) -> bool:
        """Have it, or make it if there is room; whether it is there now."""
        new = not self.path.exists()
        descriptor = os.open(self.path, _FLAGS, 0o600)
        try:
            missing = self.size - os.fstat(descriptor).st_size
            if missing > 0 and self.free() < missing + self.size:
                return False
            os.posix_fallocate(descriptor, 0, self.size)
            os.ftruncate(descriptor, self.size)  # where it was made larger than is wanted now
            os.fsync(descriptor)
        except OSError as failure:
            if failure.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            os.ftruncate(descriptor, 0)
            return False
        finally:
            os.close(descriptor)
        if new:
            sync_directory(self.path.parent)
        self.held = True
        return True

    def make_room(self, error: Exception) -> bool:
        """Give it up, if ``error`` is for want of space and it is held; then what failed may be tried once more.

        Called on the writer's thread.
        """
        if not self.relevant(error):
            return False
        self.held = False
        try:
            os.truncate(self.path, 0)
        except OSError:  # it is not there, or cannot be had: no room was made
            return False
        return True

    def relevant(self, error: Exception) -> bool:
        """Whether giving it up could help."""
        return self.held and (_full(error) or (_input_output(error) and self.free() < _SCARCE))

    def free(self) -> int:
        """Bytes that this process may still take on the disk."""
        facts = os.statvfs(self.path.parent)
        return facts.f_bavail * facts.f_frsize


def _full(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def _input_output(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
