"""Time and chance as the tests want them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from broker.clock import KeptClock, SystemClock

START = datetime(2026, 1, 1, tzinfo=UTC)
# The smallest step of the Clock port (broker/clock.py).
TICK = timedelta(milliseconds=1)


class ManualClock:
    """Stands still until told."""

    def __init__(self, now: datetime = START) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> datetime:
        self._now += by
        return self._now


class StoppableClock:
    """The present, until it is stopped: then it stands at that moment, whatever the machine does, until it goes on.

    For a broker whose other end, TLS, lives in the present.
    """

    def __init__(self) -> None:
        self._at: datetime | None = None

    def now(self) -> datetime:
        return SystemClock().now() if self._at is None else self._at

    def stop_at(self, moment: datetime) -> None:
        self._at = moment

    def go_on(self) -> None:
        self._at = None


class Clocks:
    """A machine's two clocks, in milliseconds: those of this machine, as long as nobody sets them."""

    def __init__(self) -> None:
        self._real, self.set_by, self.slept = KeptClock(), timedelta(0), timedelta(0)

    def wall(self) -> int:
        return self._real._wall() + self.set_by // TICK + self.slept // TICK

    def running(self) -> int:
        return self._real._running() + self.slept // TICK

    def kept(self) -> KeptClock:
        """A broker's clock on this machine."""
        return KeptClock(self.wall, self.running)


class CountingRng:
    """Ids in order, jitter in the middle."""

    def __init__(self) -> None:
        self._count = 0

    def id(self) -> str:
        self._count += 1
        return f"{self._count:026d}".replace("0", "a").replace("1", "b").replace("8", "c").replace("9", "d")

    def fraction(self) -> float:
        return 0.5
