"""The real clock and real chance: the only place that asks the machine for either."""

from __future__ import annotations

import os
import random
import time
from datetime import UTC, datetime, timedelta

# RFC 4648 section 7 (base32hex), in lower case: the alphabet whose order is the order of the values.
_BASE32HEX = "0123456789abcdefghijklmnopqrstuv"
_PAIRS = [first + second for first in _BASE32HEX for second in _BASE32HEX]
_RANDOM_BITS = 128
_WIDTH = 170  # 40 bits of time, 128 of chance, 2 to fill the last pair
_SHIFTS = range(_WIDTH - 10, -1, -10)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_IDS_SINCE_MS = 1_735_689_600_000  # 2025-01-01T00:00:00Z


class SystemClock:
    """Wall-clock time in UTC, truncated to the millisecond (what stores keep)."""

    def __init__(self) -> None:
        # A request asks some eight times, and those that are answered together ask within one millisecond.
        self._last = (0, _EPOCH)

    def now(self) -> datetime:
        """The present."""
        present, last = _milliseconds(), self._last
        if last[0] != present:
            last = self._last = (present, _EPOCH + timedelta(milliseconds=present))
        return last[1]


class SystemRng:
    """Ids from the operating system's cryptographic source; jitter from a fast generator."""

    def id(self) -> str:
        """34 characters of lower-case base32hex: milliseconds since 2025, then 128 random bits.

        The time in front keeps neighbours in time neighbours in every index of the ledger; nothing
        relies on it, and it wraps after 34 years. What cannot be guessed is the rest.
        """
        milliseconds = (_milliseconds() - _IDS_SINCE_MS) & 0xFF_FFFF_FFFF
        chance = int.from_bytes(os.urandom(_RANDOM_BITS // 8), "big")
        bits = (milliseconds << _RANDOM_BITS | chance) << 2
        # Two characters at a time: four times as fast as base64.b32hexencode and the tidying after it.
        return "".join([_PAIRS[bits >> shift & 1023] for shift in _SHIFTS])

    def fraction(self) -> float:
        """A number in [0, 1)."""
        return random.random()  # nosec B311 # noqa: S311 - jitter, not a secret


def _milliseconds() -> int:
    """Of Unix time."""
    return time.time_ns() // 1_000_000  # noqa: TID251 - this is the clock adapter
