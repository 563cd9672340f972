"""What really happened upstream: the upstream's own log, one JSON object a line, on the disk before anybody is answered.

It is the truth that a ledger is held against, so nothing of the broker writes it or is asked for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path


class What(StrEnum):
    """What became of one thing upstream."""

    TOKEN = "token"
    TOKEN_ENDED = "token_ended"
    LOGIN = "login"  # made: what an agent could use
    LOGIN_SHORTENED = "login_shortened"  # its end was set, to ``until_ms``
    LOGIN_ENDED = "login_ended"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. Times in milliseconds since the epoch, UTC; ``name`` is the token's accessor or the login's lease id."""

    at_ms: int
    what: What
    name: str
    attempt: str
    until_ms: int = 0  # of what was made: when it ends by itself
    why: str = ""  # of what ended
    # Of what was made: whether the ledger, asked before it was made, had the attempt, and had noted what comes before.
    intended: bool = False


class UpstreamLog:
    """The log as the upstream writes it."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def append(self, entry: Entry) -> None:
        """Returns when it is on the disk."""
        os.write(self._descriptor, json.dumps(asdict(entry)).encode() + b"\n")
        os.fdatasync(self._descriptor)


def read(path: Path) -> Iterator[Entry]:
    """Everything that was written, in its order."""
    with path.open() as lines:
        for line in lines:
            said = json.loads(line)
            yield Entry(**{**said, "what": What(said["what"])})
