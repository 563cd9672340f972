"""The state directory: one at a time may use it, and what it holds is private to its owner."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import BinaryIO

from broker.dev.files import append_private, private_directory
from broker.errors import InvalidInput, Reason


class StateDirectory:
    """``path``, locked from :meth:`acquire` to :meth:`release`. The lock dies with its process, however it dies."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: BinaryIO | None = None

    def acquire(self) -> None:
        """Make the directory if absent and take it. Raises :class:`InvalidInput` while another process has it.

        Twice is the same as once.
        """
        if self._lock is not None:
            return
        # Root's PostgreSQL runs as another account and must be able to pass through to its own part.
        private_directory(self.path, others_may_pass=os.geteuid() == 0)
        lock = append_private(self.path / "lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise InvalidInput(
                Reason.CONFIG_INVALID,
                f"The state directory {self.path} is in use by another process.",
                hint="Stop the other `broker dev`, or name another directory.",
                metadata={"directory": str(self.path)},
            ) from None
        self._lock = lock

    def release(self) -> None:
        """Give it back. Twice is the same as once."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()
