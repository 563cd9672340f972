"""Carrying checkpoints to one witness: in order, at least once, for ever; none is skipped.

The ledger is the queue, so nothing is lost by a crash and nothing waits in memory. No grant and no revocation waits for
a witness; how far it is behind is told to the gate, which stops grants when that passes its bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from broker.errors import BrokerError
from broker.lease import backoff
from broker.ports.clock import Clock, Rng
from broker.ports.trail import OutgoingCheckpoint, TrailStore, Witness, WitnessLag

log = structlog.get_logger("broker.witnesses")

BATCH = 50
# The outbox is looked at so often (seconds); a checkpoint is due once a minute.
LOOK = 1.0

Sleep = Callable[[float], Awaitable[None]]


@dataclass(slots=True)
class WitnessTally:
    """What /metrics tells of one witness."""

    delivered: int = 0
    failed: int = 0
    failing_since: datetime | None = None
    lag: WitnessLag = field(default_factory=lambda: WitnessLag(0, timedelta(0)))


class WitnessPump:
    """One witness. :meth:`run` works until it is cancelled; ``may_send`` says whether anything goes out now."""

    def __init__(
        self,
        name: str,
        witness: Witness,
        store: TrailStore,
        clock: Clock,
        rng: Rng,
        tenant: str,
        may_send: Callable[[], bool],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._name = name
        self._witness = witness
        self._store = store
        self._clock = clock
        self._rng = rng
        self._tenant = tenant
        self._may_send = may_send
        self._sleep = sleep
        self._failures = 0
        self.tally = WitnessTally()

    async def run(self) -> None:
        """Send what there is, look again, for ever."""
        while True:
            await self._sleep(LOOK if await self.step() else self._wait())

    async def step(self) -> bool:
        """Send what waits; False if that failed and should be tried again later."""
        try:
            done = await self._send_waiting() if self._may_send() else True
        except OSError as failure:
            self._failed(str(failure))
            done = False
        except BrokerError as failure:
            log.error("the ledger could not be read for a witness", witness=self._name, reason=failure.reason)
            done = False
        else:
            self._failures, self.tally.failing_since = 0, None
        return done

    async def measure(self) -> WitnessLag:
        """How far it is behind. Raises BrokerError."""
        upto = await self._store.witness_position(self._tenant, self._name)
        self.tally.lag = await self._store.witness_lag(upto, self._clock.now())
        return self.tally.lag

    async def _send_waiting(self) -> bool:
        upto = await self._store.witness_position(self._tenant, self._name)
        while waiting := await self._store.checkpoints_since(upto, BATCH):
            for each in waiting:
                await self._send(each)
                upto = each.seq
        return True

    async def _send(self, checkpoint: OutgoingCheckpoint) -> None:
        await self._witness.add(checkpoint)
        await self._store.witnessed(self._tenant, self._name, checkpoint.seq)
        self.tally.delivered += 1

    def _failed(self, why: str) -> None:
        self._failures += 1
        self.tally.failed += 1
        self.tally.failing_since = self.tally.failing_since or self._clock.now()
        level = log.error if self._failures >= backoff.STUCK_AFTER else log.warning
        level("a witness did not take a checkpoint", witness=self._name, why=why, failures=self._failures)

    def _wait(self) -> float:
        return backoff.delay(self._failures, self._rng.fraction()).total_seconds()
