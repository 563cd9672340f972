"""Clocks of machines: they are set, they run fast or stand still, and nobody tells the broker."""

from __future__ import annotations

from datetime import datetime, timedelta

from broker.timekeeping import TOLERANCE_MS
from tests.clock import START
from tests.simulation.virtual import VirtualLoop

_START_MS = int(START.timestamp()) * 1000


class TrueClock:
    """What time it is in the simulation, to the millisecond as the port says. Upstreams go by it, and databases."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> datetime:
        return START + timedelta(milliseconds=int(self._loop.time() * 1000))


class WallClock:
    """One machine's: right when it is made."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._at = self._since = loop.time()
        self._rate = 1.0
        self.jumped_at = -1.0  # when it was set last, by more than a broker tolerates

    def milliseconds(self) -> int:
        """Since 1970."""
        return _START_MS + int(self._reading() * 1000)

    def jump(self, seconds: float) -> None:
        """It is set, forwards or back."""
        self._at, self._since = self._reading() + seconds, self._loop.time()
        if abs(seconds) > TOLERANCE_MS / 1000:
            self.jumped_at = self._loop.time()

    def run(self, rate: float) -> None:
        """From now on so fast; 0: it stands still."""
        self.jump(0)
        self._rate = rate

    def put_right(self) -> None:
        """As NTP does it at last."""
        self._at = self._since = self._loop.time()
        self._rate = 1.0

    def _reading(self) -> float:
        return self._at + (self._loop.time() - self._since) * self._rate
