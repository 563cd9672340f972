"""Clocks of machines: they are set, they run fast or stand still, and nobody tells the broker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from broker.timekeeping import TOLERANCE_MS
from tests.clock import START
from tests.simulation.virtual import VirtualLoop

_START_MS = int(START.timestamp()) * 1000


class TrueClock:
    """What time it is in the simulation, to the millisecond as the port says. Upstreams go by it."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> datetime:
        return START + timedelta(milliseconds=int(self._loop.time() * 1000))


class WallClock:
    """One machine's: right when it is made, but for ``off`` seconds."""

    def __init__(self, loop: VirtualLoop, off: float = 0.0) -> None:
        self._loop = loop
        self._since = loop.time()
        self._at = self._since + off
        self._rate = 1.0
        self.jumped_at = -1.0  # when it was set last, by more than a broker tolerates
        self.touched_at = -1e9  # when anybody did anything to it

    def milliseconds(self) -> int:
        """Since 1970."""
        return _START_MS + int(self._reading() * 1000)

    def now(self) -> datetime:
        """A :class:`broker.ports.clock.Clock`."""
        return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=self.milliseconds())

    @property
    def runs_wrong(self) -> bool:
        """Whether it is not as fast as time."""
        return self._rate != 1

    def ahead(self) -> float:
        """Of the truth, in seconds."""
        return self._reading() - self._loop.time()

    def untouched_for(self) -> float:
        """Since so many seconds nobody has done anything to it."""
        return self._loop.time() - self.touched_at

    def jump(self, seconds: float) -> None:
        """It is set, forwards or back."""
        self._at, self._since = self._reading() + seconds, self._loop.time()
        self.touched_at = self._since
        if abs(seconds) > TOLERANCE_MS / 1000:
            self.jumped_at = self._loop.time()

    def run(self, rate: float) -> None:
        """From now on so fast; 0: it stands still."""
        self.jump(0)
        self._rate = rate

    def put_right(self) -> None:
        """As NTP does it at last."""
        self._at = self._since = self.touched_at = self._loop.time()
        self._rate = 1.0

    def _reading(self) -> float:
        return self._at + (self._loop.time() - self._since) * self._rate


class RunningClock:
    """One machine's that nobody sets: it began at some time, and is off by as little as NTP lets it be."""

    def __init__(self, loop: VirtualLoop, began: float, rate: float) -> None:
        self._loop = loop
        self._began = began
        self._rate = rate

    def seconds(self) -> float:
        """Since whenever."""
        return self._began + self._loop.time() * self._rate

    def milliseconds(self) -> int:
        """The same."""
        return int(self.seconds() * 1000)
