"""Whether a ledger's files are still where they were opened.

A file that was removed or replaced beneath a broker goes on for who has it open: commits succeed, and are gone with the
process. Nothing of it is seen by SQLite, so it is looked for.
"""

from __future__ import annotations

from pathlib import Path


class LedgerPlace:
    """The file and its write-ahead log, by what their names meant when this process opened them."""

    def __init__(self, ledger: Path) -> None:
        """``ledger`` is open, under the lock of who may."""
        self._files = (ledger, ledger.with_name(f"{ledger.name}-wal"))
        self._known: dict[Path, tuple[int, int]] = {}
        self.displaced()

    def displaced(self) -> str:
        """The name of the one that is not what it was; empty: both are."""
        for path in self._files:
            try:
                facts = path.lstat()
            except FileNotFoundError:
                if path in self._known:
                    return path.name
                continue  # the log comes with the first write
            except OSError:  # a disk that fails is told by whoever writes to it
                continue
            found = (facts.st_dev, facts.st_ino)
            if self._known.setdefault(path, found) != found:
                return path.name
        return ""
