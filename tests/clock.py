"""Time and chance as the tests want them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 1, tzinfo=UTC)


class ManualClock:
    """Stands still until told."""

    def __init__(self, now: datetime = START) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> datetime:
        self._now += by
        return self._now


class CountingRng:
    """Ids in order, jitter in the middle."""

    def __init__(self) -> None:
        self._count = 0

    def id(self) -> str:
        self._count += 1
        return f"{self._count:026d}".replace("0", "a").replace("1", "b").replace("8", "c").replace("9", "d")

    def fraction(self) -> float:
        return 0.5
