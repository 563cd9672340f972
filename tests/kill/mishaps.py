"""What goes wrong between the broker and the upstream while the daemon is killed anyway: seeded, and over at a word."""

from __future__ import annotations

import random
import threading
from enum import StrEnum


class Mishap(StrEnum):
    """Of one request."""

    NONE = "none"
    REFUSED = "refused"  # 500, and nothing was done
    LOST = "lost"  # done, and the answer is lost
    LATE = "late"  # the connection is cut, and it is done a moment later


class Mishaps:
    """Safe from any thread. ``rate``: of all requests, how many meet one; ``slowest``: seconds that one takes at most."""

    LATEST = 1.0  # seconds until what is done late is done: well within twice what an issue is allowed

    def __init__(self, seed: int, rate: float, slowest: float) -> None:
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._rate = rate
        self._slowest = slowest

    def calm(self) -> None:
        """From now on nothing goes wrong."""
        self._rate = self._slowest = 0.0

    def next(self) -> Mishap:
        """What becomes of the next request."""
        with self._lock:
            if self._random.random() >= self._rate:
                return Mishap.NONE
            return self._random.choice((Mishap.REFUSED, Mishap.LOST, Mishap.LATE))

    def takes(self) -> float:
        """Seconds that the next request takes."""
        with self._lock:
            return self._random.uniform(0, self._slowest)

    def late(self) -> float:
        """Seconds until the next late request is carried out."""
        with self._lock:
            return self._random.uniform(0, self.LATEST)
