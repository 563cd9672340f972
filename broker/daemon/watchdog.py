"""Starts the ticks again where they have stopped: a scheduler whose timer is lost, or a tick that never returns.

Grants stop without it: the gate judges by the age of the heartbeat, and nobody needs to notice. This brings them back.
It stands on the event loop alone, and its time is the loop's, which nobody sets: APScheduler plans by the wall clock,
and where that is set back by an hour, all it has planned is an hour away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

log = structlog.get_logger("broker.watchdog")

EVERY = 1.0


class Watchdog:
    """``patience``: seconds without a tick after which ``restart`` is called, and then again."""

    def __init__(self, ticking: Callable[[], float], patience: float, restart: Callable[[], None]) -> None:
        self._ticking = ticking
        self._patience = patience
        self._restart = restart
        self._last = ticking()
        self.restarts = 0

    def ticked(self) -> None:
        """A tick has begun and ended, whatever came of it."""
        self._last = self._ticking()

    def look(self) -> None:
        """Restart what has not ticked for too long."""
        silent = self._ticking() - self._last
        if silent <= self._patience:
            return
        log.error("the ticks have stopped and are started again; nothing was granted meanwhile", seconds=int(silent))
        self.restarts += 1
        self._last = self._ticking()
        self._restart()

    def forgive(self, stood: float) -> None:
        """The whole process stood still for so many seconds: nobody could tick in that time."""
        if stood > EVERY:
            self._last += stood

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            before = self._ticking()
            await asyncio.sleep(EVERY)
            self.forgive(self._ticking() - before - EVERY)
            self.look()
