"""Room on the ledger's disk, wired: losing the ballast closes the gate; a tick has it back, and tells."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from broker.audit.event import BROKER, AuditEvent, EventType, Vouch
from broker.errors import BrokerError
from broker.issuance.gate import Gate
from broker.metrics import RoomFigures
from broker.ports.clock import Clock
from broker.ports.ledger import Ledger
from broker.stores.ballast import Ballast

log = structlog.get_logger("broker.room")

HINT = "Make room on the disk of the state directory; grants resume by themselves. docs/time-and-disk.md"


class Room:
    """``size`` bytes of ballast; None: none is kept, and a full disk stops revocations, too."""

    def __init__(self, ledger: Path, size: int | None, gate: Gate, clock: Clock, tenant: str) -> None:
        self.ballast = None if size is None else Ballast(ledger, size)
        self._clock = clock
        self._tenant = tenant
        self._told_full = False
        self.store: Ledger | None = None  # once it is open
        gate.reserve = self.ballast

    async def tick(self) -> None:
        """Have the ballast back if there is room, and tell what became of it. Raises BrokerError."""
        if self.ballast is None or self.store is None:
            return
        full = not self.ballast.held
        if full:
            full = not await asyncio.to_thread(self._restored, self.ballast)
        if full != self._told_full:
            await self._tell(self.store, self.ballast, full)

    def figures(self) -> RoomFigures | None:
        """For /metrics."""
        return None if self.ballast is None else RoomFigures(not self.ballast.held, self.ballast.free())

    @staticmethod
    def _restored(ballast: Ballast) -> bool:
        try:
            return ballast.restore()
        except OSError as failure:
            log.error("the ballast cannot be made", file=str(ballast.path), error=str(failure))
            return False

    async def _tell(self, store: Ledger, ballast: Ballast, full: bool) -> None:
        about = {"free": ballast.free(), "ballast": ballast.size}
        self._told_full = full
        if full:
            log.error("the ledger's disk is full: nothing is granted, revocation goes on", **about, hint=HINT)
        else:
            log.warning("there is room on the ledger's disk again: grants resume", **about)
        type_ = EventType.LEDGER_FULL if full else EventType.LEDGER_ROOM
        event = AuditEvent(type_, BROKER, Vouch.BROKER, tenant=self._tenant, data=dict(about))
        try:
            await store.append([event], self._clock.now())
        except BrokerError:
            self._told_full = not full
            raise
