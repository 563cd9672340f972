"""Planted bugs that only show where the server of a shared ledger has a wrong clock; see ``bugs.py``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from broker.clock import KeptClock
from broker.daemon.timekeeping import TimeWatch
from broker.stores.postgres_clock import ServerClock

Patch = pytest.MonkeyPatch


def servers_time_goes_back(patch: Patch) -> None:
    """The server's clock is believed, whatever it said before."""
    now = KeptClock.now

    def as_it_says(self: KeptClock) -> datetime:
        now(self)
        return now(self) if self.source is None else self.source.now()

    patch.setattr(KeptClock, "now", as_it_says)


def deaf_to_others_time(patch: Patch) -> None:
    """Each goes by what it has read itself."""
    patch.setattr(TimeWatch, "hear", lambda self, seen: None)


def readings_however_late(patch: Patch) -> None:
    """What the server said is the time, however long ago it said so."""

    def observe(self: ServerClock, sent: float, server_ms: int) -> None:
        self._reading = (self.running(), float(server_ms), 0.0)

    patch.setattr(ServerClock, "observe", observe)


def machines_time_counts(patch: Patch) -> None:
    """Each goes by the clock of its own machine."""

    def own(self: ServerClock) -> int:
        return (self._until_read.now() - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)

    patch.setattr(ServerClock, "milliseconds", own)


OF_CLOCKS: dict[str, Callable[[Patch], None]] = {
    each.__name__.replace("_", "-"): each
    for each in (
        servers_time_goes_back,
        deaf_to_others_time,
        readings_however_late,
        machines_time_counts,
    )
}
