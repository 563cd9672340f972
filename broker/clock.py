"""The real clock and real chance: the only place that asks the machine for either."""

from __future__ import annotations

import random
import secrets
from datetime import UTC, datetime

# RFC 4648 section 7 (base32hex), in lower case: the alphabet whose order is the order of the values.
_BASE32HEX = "0123456789abcdefghijklmnopqrstuv"
_PAIRS = [first + second for first in _BASE32HEX for second in _BASE32HEX]
_RANDOM_BITS = 128
_WIDTH = 170  # 40 bits of time, 128 of chance, 2 to fill the last pair
_SHIFTS = range(_WIDTH - 10, -1, -10)
_IDS_SINCE = datetime(2025, 1, 1, tzinfo=UTC)


class SystemClock:
    """Wall-clock time in UTC, truncated to the millisecond (what stores keep)."""

    def now(self) -> datetime:
        """The present."""
        present = datetime.now(UTC)  # noqa: TID251 - this is the clock adapter
        return present.replace(microsecond=present.microsecond // 1000 * 1000)


class SystemRng:
    """Ids from the operating system's cryptographic source; jitter from a fast generator."""

    def id(self) -> str:
        """34 characters of lower-case base32hex: milliseconds since 2025, then 128 random bits.

        The time in front keeps neighbours in time neighbours in every index of the ledger; nothing
        relies on it, and it wraps after 34 years. What cannot be guessed is the rest.
        """
        present = datetime.now(UTC)  # noqa: TID251 - this is the clock adapter
        milliseconds = int((present - _IDS_SINCE).total_seconds() * 1000) & 0xFF_FFFF_FFFF
        bits = (milliseconds << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)) << 2
        # Two characters at a time: four times as fast as base64.b32hexencode and the tidying after it.
        return "".join([_PAIRS[bits >> shift & 1023] for shift in _SHIFTS])

    def fraction(self) -> float:
        """A number in [0, 1)."""
        return random.random()  # noqa: S311 - jitter, not a secret
