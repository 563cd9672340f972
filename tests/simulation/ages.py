"""How long things live by the truth, whatever the clocks say that brokers go by (docs/time-and-disk.md).

Broker time never runs slower than nine tenths of the truth, so what was to live for nine minutes is being ended after
ten. A broker that is away cannot do that; so what counts is the time in which there is one: where nothing is committed
for a while, a few seconds of it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from broker.lease.machine import State
from tests.clock import START
from tests.simulation.broken import Broken
from tests.simulation.restored import Known

_SLOWEST = 0.9
# A broker that works commits as often: its time's mark, if nothing else.
_PAUSE = 6.0
# Ticks and workers that wait for an upstream that hangs, a slow disk, writes that fail.
_GRACE = 90.0


class Ages:
    """Of one world; in seconds, while there is a broker."""

    def __init__(self) -> None:
        self._worked = 0.0
        self._last = START
        self._due: list[tuple[float, str]] = []

    def intended(self, attempt: str, lives: timedelta) -> float:
        """By when it is being ended at the latest."""
        over_by = self._worked + lives.total_seconds() / _SLOWEST + _GRACE
        heapq.heappush(self._due, (over_by, attempt))
        return over_by

    def put_back(self, attempts: Iterable[Known]) -> None:
        """The ledger says of these what it said before."""
        for known in attempts:
            if _lives(known):
                known.over_by = max(known.over_by, self._worked + _GRACE)
                heapq.heappush(self._due, (known.over_by, known.name))

    def look(self, attempts: Mapping[str, Known], now: datetime) -> None:
        """After a commit, at ``now`` by the truth. Raises Broken."""
        self._worked += min((now - self._last).total_seconds(), _PAUSE)
        self._last = now
        while self._due and self._due[0][0] < self._worked:
            known = attempts.get(heapq.heappop(self._due)[1])
            if known is not None and _lives(known) and known.over_by < self._worked:
                raise Broken(f"I1: {known.name} lives on, long after its time by the truth")


def _lives(known: Known) -> bool:
    return known.state in (State.ISSUING, State.ACTIVE)
