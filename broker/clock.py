"""The real clock and real chance: the only place that asks the machine for either."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from broker.timekeeping import Certain, Timekeeper

if TYPE_CHECKING:  # agents' installations have not what the ports are about
    from broker.ports.clock import Clock

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


class KeptClock:
    """Broker time (:mod:`broker.timekeeping`): the wall clock's, but never back, and known to be doubtful when it is.

    ``wall`` and ``running`` are whole milliseconds: since 1970, and since whenever, asleep or awake. ``source`` has the
    wall clock, where it is not this machine's.
    """

    def __init__(
        self,
        wall: Callable[[], int] | None = None,
        running: Callable[[], int] | None = None,
        source: Clock | None = None,
    ) -> None:
        self.source = source
        self.keeper = Timekeeper()
        self._wall = wall or _milliseconds
        self._running = running or _running_milliseconds
        self._looking = threading.Lock()
        self._last = (0, _EPOCH)

    def now(self) -> datetime:
        """The present; it never goes back."""
        present, last = self.keeper.at(self._wall()), self._last
        if present is None:
            present = self._looked()
        if last[0] != present:
            last = self._last = (present, _EPOCH + timedelta(milliseconds=present))
        return last[1]

    def look(self) -> datetime:
        """The present, after both clocks were compared."""
        self._looked()
        return self.now()

    def resume(self, mark: datetime) -> None:
        """Begin anew, at ``mark`` at the least, and compare the clocks with that."""
        self.keeper.resume((mark - _EPOCH) // timedelta(milliseconds=1))
        self.look()

    def not_before(self, seen: datetime) -> None:
        """Go on at ``seen`` at the least, and compare the clocks with that: others on the same ledger were told so."""
        with self._looking:
            self.keeper.not_before((seen - _EPOCH) // timedelta(milliseconds=1), self._running())
        self.look()

    def certain(self) -> Certain:
        """What can be said of the time although it may be doubted."""
        self._looked()
        return self.keeper.certain(self._wall(), self._running())

    def wall_in_doubt(self) -> datetime | None:
        """What the wall clock says, while the time is doubted and that is behind it; else None."""
        present, wall = self._looked(), self._wall()
        if self.keeper.doubt is None or wall >= present:
            return None
        return _EPOCH + timedelta(milliseconds=wall)

    def behind(self) -> timedelta:
        """How far the wall clock is behind broker time."""
        return timedelta(milliseconds=self.keeper.behind_ms(self._wall()))

    def _looked(self) -> int:
        with self._looking:  # files are read, and with them times are asked for, on other threads, too
            return self.keeper.look(self._wall(), self._running())


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


def running_seconds() -> float:
    """Of the clock that nobody sets. On Linux it goes on while the machine sleeps; elsewhere sleep is a jump."""
    return _running_nanoseconds() / 1e9


def _running_milliseconds() -> int:
    return _running_nanoseconds() // 1_000_000


def _running_nanoseconds() -> int:
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
