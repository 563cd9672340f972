"""The database server's time, for brokers that share a ledger: what is due for one is due for all.

Each batch of the writer reads the server's clock on its way; between two readings this machine's running clock goes
on from the last good one. A reading that was long under way is worth little: it is off by that time at most.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from broker.ports.clock import Clock

# A reading that took less is always taken; one that took longer, when the last one is so old that it may be off as far.
_SHARP = 0.05
_DRIFT = 200e-6  # seconds per second: what a monotonic clock may be off by (NTP slews at 500 ppm at most)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ServerClock:
    """A :class:`broker.ports.clock.Clock`. Before the first reading it tells this machine's time.

    ``running``: seconds of a clock that nobody sets; one that goes on while the machine sleeps, as the server's does.
    """

    def __init__(self, until_read: Clock, running: Callable[[], float] = time.monotonic) -> None:
        self._until_read = until_read
        self.running = running
        self._lock = threading.Lock()
        # Running time, the server's time (ms) at it, and by how many seconds that may be off.
        self._reading: tuple[float, float, float] | None = None

    def now(self) -> datetime:
        """The server's present, truncated to the millisecond."""
        return _EPOCH + timedelta(milliseconds=self.milliseconds())

    def milliseconds(self) -> int:
        """The same, since 1970."""
        reading = self._reading
        if reading is None:
            return (self._until_read.now() - _EPOCH) // timedelta(milliseconds=1)
        at, server_ms, _ = reading
        return int(server_ms + (self.running() - at) * 1000)

    def observe(self, sent: float, server_ms: int) -> None:
        """The server said ``server_ms`` to a question of the running time ``sent``; the answer is here now."""
        received = self.running()
        off = received - sent
        with self._lock:
            if self._reading is not None and off > _SHARP:
                at, _, known = self._reading
                if known + (received - at) * _DRIFT < off:
                    return
            # Read last in a series, after any wait: nearer to the answer than to the question.
            self._reading = (received, float(server_ms), off)

    @property
    def skew(self) -> timedelta:
        """How far the server is ahead of this machine's own clock; zero before the first reading."""
        return self.now() - self._until_read.now()
