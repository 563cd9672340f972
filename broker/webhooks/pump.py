"""Carrying the audit trail to one destination: in order, at least once, for ever.

The trail itself is the queue: a destination has a position in it, kept in the ledger, and everything after that is
still to be told. So nothing is lost by a crash, nothing waits in memory, and no grant and no revocation waits for a
receiver. An event that cannot be delivered holds up the ones behind it, and its age is an alarm; it is never skipped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from broker.audit.cloud_event import CloudEvent, cloud_event, wanted
from broker.audit.record import Record, decode
from broker.errors import BrokerError, Tampered
from broker.lease import backoff
from broker.ports.clock import Clock, Rng
from broker.ports.lease_store import LeaseStore
from broker.webhooks.sender import NotDelivered

log = structlog.get_logger("broker.webhooks")

BATCH = 200
# How long the ledger is left alone after it could not be read.
_LEDGER_WAIT = 1.0

Send = Callable[[CloudEvent], Awaitable[None]]
Sleep = Callable[[float], Awaitable[None]]


@dataclass(slots=True)
class Tally:
    """What /metrics tells of one destination."""

    delivered: int = 0
    failed: int = 0
    position: int = 0  # everything up to this sequence is delivered, or not wanted there
    waiting_since: datetime | None = None  # when the event that is being tried happened, while it fails


class Pump:
    """One destination. :meth:`run` works until it is cancelled."""

    def __init__(
        self,
        name: str,
        patterns: tuple[str, ...],
        source: str,
        send: Send,
        store: LeaseStore,
        clock: Clock,
        rng: Rng,
        tenant: str,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._name = name
        self._patterns = patterns
        self._source = source
        self._send = send
        self._store = store
        self._clock = clock
        self._rng = rng
        self._tenant = tenant
        self._sleep = sleep
        self._marked = 0
        self.tally = Tally()

    async def start(self) -> None:
        """Find the position. A destination that is new hears what happens from now on, not the past."""
        position = await self._store.webhook_position(self._tenant, self._name)
        if position is None:
            position = await self._store.changed(-1)
            await self._store.webhook_delivered(self._tenant, self._name, position)
        self._marked = self.tally.position = position

    async def run(self) -> None:
        """Deliver what there is, wait for more, for ever. What was delivered is marked, also when this is cancelled."""
        try:
            while True:
                await self._step()
        finally:
            await self._mark()

    async def _step(self) -> None:
        try:
            records = await self._store.audit_since(self.tally.position, BATCH)
            if records:
                await self._carry(records)
            else:
                await self._store.changed(self.tally.position)
        except BrokerError as failure:
            log.error("the ledger could not be read for a webhook", destination=self._name, reason=failure.reason)
            await self._sleep(_LEDGER_WAIT)

    async def _carry(self, records: Sequence[bytes]) -> None:
        for body in records:
            record = self._read(body)
            if record is not None and wanted(self._patterns, record.type):
                await self._deliver(record)
            self.tally.position = self.tally.position + 1 if record is None else record.seq
        await self._mark()

    def _read(self, body: bytes) -> Record | None:
        try:
            return decode(body)
        except Tampered:
            # For verification to tell; what it says is not to be passed on.
            log.error("an audit record is damaged", destination=self._name, sequence=self.tally.position + 1)
            return None

    async def _deliver(self, record: Record) -> None:
        event, failures = cloud_event(record, self._source), 0
        while True:
            try:
                await self._send(event)
            except NotDelivered as failure:
                failures += 1
                self.tally.failed += 1
                self.tally.waiting_since = datetime.fromtimestamp(record.at_ms / 1000, self._clock.now().tzinfo)
                wait = max(backoff.delay(failures, self._rng.fraction()), failure.retry_after or timedelta(0))
                self._tell(failure, failures, wait)
                await self._mark()
                await self._sleep(wait.total_seconds())
            else:
                self.tally.delivered += 1
                self.tally.waiting_since = None
                return

    def _tell(self, failure: NotDelivered, failures: int, wait: timedelta) -> None:
        level = log.error if failures >= backoff.STUCK_AFTER else log.warning
        level(
            "a webhook was not delivered",
            destination=self._name,
            why=failure.why,
            failures=failures,
            again_in=round(wait.total_seconds(), 1),
        )

    async def _mark(self) -> None:
        if self.tally.position == self._marked:
            return
        try:
            await self._store.webhook_delivered(self._tenant, self._name, self.tally.position)
        except BrokerError as failure:
            # What was delivered comes again after a restart; receivers know it by its id.
            log.error("a webhook's position could not be kept", destination=self._name, reason=failure.reason)
        else:
            self._marked = self.tally.position
