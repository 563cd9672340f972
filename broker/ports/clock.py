"""Clock and chance."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Wall-clock time. Whoever decides asks once per decision and passes the answer on."""

    def now(self) -> datetime:
        """The present, aware, UTC, truncated to the millisecond."""
        ...


class Rng(Protocol):
    """Chance, for ids and jitter."""

    def id(self) -> str:
        """Letters and digits, at most 40: 128 bits of them random, from a cryptographic source."""
        ...

    def fraction(self) -> float:
        """A number in [0, 1), for jitter only."""
        ...
