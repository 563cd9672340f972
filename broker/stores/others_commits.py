"""Hearing of what other daemons commit to the ledger, for whoever waits for it to change.

The database tells, at once, where it can (``wake``); what it did not tell is found by looking, so that a word that is
lost costs no more than ``EVERY``. Nothing is read from what is told: that something changed is all that is believed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from broker.errors import BrokerError

log = structlog.get_logger("broker.stores")

# In seconds: how late it is at most.
EVERY = 1.0
# Words that come one after the other are looked into together.
_PAUSE = 0.005

Sleep = Callable[[float], Awaitable[None]]


class OthersCommits:
    """``head`` reads where the audit trail ends; ``tell`` is told, on the event loop, whenever it was looked at."""

    def __init__(
        self,
        head: Callable[[], Awaitable[int]],
        tell: Callable[[int], None],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._head = head
        self._tell = tell
        self._sleep = sleep
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Somebody committed, or may have. To be called on the event loop."""
        self._woken.set()

    async def run(self) -> None:
        """Look when woken, and now and then, until cancelled."""
        while True:
            await self._rest()
            self._woken.clear()
            try:
                self._tell(await self._head())
            except BrokerError as failure:
                log.warning("the ledger could not be asked whether others committed", reason=failure.reason)
            await self._sleep(_PAUSE)

    async def _rest(self) -> None:
        """Until woken, or for ``EVERY``."""
        woken = asyncio.ensure_future(self._woken.wait())
        rested = asyncio.ensure_future(self._sleep(EVERY))
        try:
            await asyncio.wait({woken, rested}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            rested.cancel()
