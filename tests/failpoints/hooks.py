"""The trail on its way to a webhook: in order, at least once, whatever happens to either end or the way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from aiohttp import web

from broker.audit.cloud_event import cloud_event, wanted
from broker.audit.record import decode
from broker.clock import SystemClock, SystemRng
from broker.config import Webhook
from broker.issuance.tasks import TaskOrder
from broker.secret import Secret
from broker.webhooks.pump import Pump
from broker.webhooks.sender import Sender
from tests.failpoints.errand import Daemon, Errand
from tests.failpoints.points import Armed, Fault, Points
from tests.issuance.world import TENANT
from tests.webhooks.receiver import SECRET, Receiver

_PATTERNS = ("task.*",)
_SOURCE = "//test"


class PointedReceiver(Receiver):
    """With points before and after each event is taken; what it has taken it has, whatever becomes of its answer."""

    points: Points

    async def _take(self, request: web.Request) -> web.Response:
        call = self.points.numbered("call POST /hook")
        if await self._meet(f"{call} before"):
            return _cut(request)
        answer = await super()._take(request)
        return _cut(request) if await self._meet(f"{call} after") else answer

    async def _meet(self, point: str) -> bool:
        """Whether the connection ends there."""
        fault = self.points.meet(point)
        if fault is Fault.HANG:
            await self.points.stand_still()
        if fault is Fault.ERROR and point.endswith("before"):
            self.answer(500)
        return fault is Fault.CRASH or (fault is Fault.ERROR and point.endswith("after"))


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


class Webhooks(Errand):
    """A task begins and ends."""

    differing: ClassVar[Mapping[str, int]] = {"webhook_delivered": 2}  # from where on it hears; what it has heard

    def __init__(self, directory: Path, armed: Armed | None, impatient: float) -> None:
        super().__init__(directory, armed, impatient)
        self.receiver = PointedReceiver()

    async def tell(self) -> None:
        """See Errand."""
        await self.receiver.start()
        try:
            await super().tell()
        finally:
            self.points.release()
            await self.receiver.stop()

    async def prepare(self) -> None:
        """See Errand."""
        await self.world.task(name="before")  # which a new destination does not hear of

    async def wake(self, daemon: Daemon) -> None:
        """See Errand."""
        self.receiver.points = daemon.ledger.points
        webhook = Webhook.model_construct(
            url=self.receiver.url,
            secrets=("env:A",),
            events=_PATTERNS,
            timeout=timedelta(seconds=self.timeout),
            ca_file=None,
        )
        sender = Sender(webhook, lambda reference: Secret(SECRET), SystemClock())
        daemon.own = sender
        clock, rng = self.world.clock, SystemRng()
        pump = Pump("soc", _PATTERNS, _SOURCE, sender.send, daemon.store, clock, rng, TENANT, _no_time)
        await pump.start()
        assert set(await self._due(daemon, pump.tally.position)) <= self._taken(), "it is marked, and was never taken"
        self._pump, self._pumping = pump, daemon.process.start(pump.run())

    async def let_go(self, daemon: Daemon) -> None:
        """See Errand."""
        if daemon.own is not None:
            await daemon.own.close()

    async def turn(self, daemon: Daemon) -> None:
        """See Errand."""
        order = TaskOrder("start-1", "testing", timedelta(hours=1), [], "", "")
        await self.once("start", self._start(daemon, order))
        await self.once("complete", daemon.tasks.complete(self.caller(), self.task, timedelta(0)))
        await self._heard(daemon)
        self._pumping.cancel()  # as at SIGTERM: what was delivered is marked
        with contextlib.suppress(asyncio.CancelledError):
            await self._pumping

    async def _heard(self, daemon: Daemon) -> None:
        """The pump knows that everything was taken."""
        while await self._due(daemon) != await self._due(daemon, self._pump.tally.position):
            await asyncio.sleep(0.002)

    async def _start(self, daemon: Daemon, order: TaskOrder) -> None:
        self.task = (await daemon.tasks.start(self.caller(), order)).id

    async def _due(self, daemon: Daemon, upto: int = 2**62) -> list[str]:
        """The ids of what it has to be told, in their order."""
        records = map(decode, await daemon.store.audit_since(self._prepared, 1_000))
        return [cloud_event(r, _SOURCE).id for r in records if r.seq <= upto and wanted(_PATTERNS, r.type)]

    def _taken(self) -> set[str]:
        return {each["id"] for each in self.receiver.seen}

    async def check(self) -> None:
        """See Errand."""
        due = [cloud_event(each, _SOURCE).id for each in self.news("task")]
        assert len(due) == 2
        first = list(dict.fromkeys(each["id"] for each in self.receiver.seen))
        assert first == due, "each at least once, in order, and nothing else"
        assert self.faulty or len(self.receiver.seen) == len(due)
        ((position,),) = self.ask("SELECT upto FROM webhook_positions")
        assert position >= max(each.seq for each in self.news("task"))


async def _no_time(seconds: Any) -> None:
    await asyncio.sleep(0.002)
