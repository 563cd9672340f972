"""Broker time, wired: it begins at the ledger's mark, is looked at every second, and its doubts are told."""

from __future__ import annotations

from datetime import datetime

import structlog

from broker.audit.event import BROKER, AuditEvent, EventType, Vouch
from broker.clock import KeptClock
from broker.errors import BrokerError
from broker.issuance.gate import Gate
from broker.metrics import TimeFigures
from broker.ports.ledger import Ledger
from broker.scope.canonical import JsonValue
from broker.timekeeping import Doubt

log = structlog.get_logger("broker.time")


class TimeWatch:
    """Closes the gate while time is doubted: the gate asks the clock's keeper itself, so not a second later."""

    def __init__(self, clock: KeptClock, gate: Gate, tenant: str) -> None:
        gate.keeper = clock.keeper
        self._clock = clock
        self._tenant = tenant
        self._store: Ledger | None = None
        self._told: Doubt | None = None
        self._doubts = 0

    async def resume(self, store: Ledger) -> None:
        """At start, before anything is judged by the time: not earlier than the ledger has seen. Raises BrokerError."""
        self._store = store
        # A first batch, of nothing: where the time is the database's, it is read with it.
        await store.append([], self._clock.now())
        mark = await store.high_water()
        if not mark.intact:
            log.error("the ledger's high-water mark was changed by something else; the trail's last record counts")
        if mark.at is not None:
            self._clock.resume(mark.at)

    def hear(self, seen: datetime) -> None:
        """Others on this ledger were told that it is ``seen``: it is not earlier here.

        They have read of the server's clock what this one has missed. What they grant by it ends by it, and who is
        alive is told by one time.
        """
        self._clock.not_before(seen)

    async def tick(self) -> None:
        """Compare the clocks, and tell what became of it. Raises BrokerError where that could not be recorded."""
        self._clock.look()
        doubt, told = self._clock.keeper.doubt, self._told
        if doubt is told:
            return
        self._told = doubt
        self._doubts += doubt is not None
        try:
            await self._tell(doubt)
        except BrokerError:
            self._told = told
            self._doubts -= doubt is not None
            raise

    async def keep(self) -> None:
        """Write the mark, for when nothing else does. Raises BrokerError."""
        if self._store is not None:
            await self._store.keep_time(self._clock.now())

    def figures(self) -> TimeFigures:
        """For /metrics."""
        behind = self._clock.behind().total_seconds()
        return TimeFigures(self._clock.keeper.doubt is not None, behind, self._doubts)

    async def _tell(self, doubt: Doubt | None) -> None:
        about: dict[str, JsonValue] = {}
        if doubt is None:
            log.warning("the wall clock is believed again: grants resume")
        else:
            about = {"why": doubt.why.value, "by_ms": doubt.by_ms, "since_ms": doubt.since_ms}
            hint = "Set the machine's clock right; grants resume by themselves. docs/time-and-disk.md"
            log.error("the wall clock is doubted: nothing is granted, revocation goes on", **about, hint=hint)
        if self._store is not None:
            type_ = EventType.CLOCK_BELIEVED if doubt is None else EventType.CLOCK_DOUBTED
            event = AuditEvent(type_, BROKER, Vouch.BROKER, tenant=self._tenant, data=about)
            await self._store.append([event], self._clock.now())
