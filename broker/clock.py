"""The real clock and real chance: the only place that asks the machine for either."""

from __future__ import annotations

import base64
import random
import secrets
from datetime import UTC, datetime


class SystemClock:
    """Wall-clock time in UTC, truncated to the millisecond (what stores keep)."""

    def now(self) -> datetime:
        """The present."""
        present = datetime.now(UTC)  # noqa: TID251 - this is the clock adapter
        return present.replace(microsecond=present.microsecond // 1000 * 1000)


class SystemRng:
    """Ids from the operating system's cryptographic source; jitter from a fast generator."""

    def id(self) -> str:
        """26 characters of lower-case base32 (RFC 4648): 128 random bits."""
        return base64.b32encode(secrets.token_bytes(16)).decode().rstrip("=").lower()

    def fraction(self) -> float:
        """A number in [0, 1)."""
        return random.random()  # noqa: S311 - jitter, not a secret
