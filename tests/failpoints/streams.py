"""What the broker tells on its streams, by the real handlers and the SDK's own readers: each event once, and no gap.

Two tasks are held. One is completed; of the other, whoever holds it goes away, and so it ends, and what it has with it.
Between handler and reader there is no gRPC, but a queue for each stream, with points before and after each message.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from broker.api.agents import AgentService
from broker.api.streams import rechecked
from broker.api.v1 import task_pb2
from broker.client.hold import Hold
from broker.client.watch import watch, watch_requests
from broker.errors import BrokerError, NotReady, Reason
from tests.failpoints.errand import Daemon, Errand
from tests.failpoints.points import Armed, Fault
from tests.issuance.world import ALICE, TENANT
from tests.simulation.process import Dead

_GRACE = timedelta(seconds=10)
_HOLDER = str(ALICE.spiffe_id)


class _Broken(grpc.aio.AioRpcError):
    """A stream that ended with an error."""

    def __init__(self, error: BrokerError) -> None:
        super().__init__(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
        self.error = error


def _cut() -> _Broken:
    return _Broken(NotReady(Reason.BROKER_UNREACHABLE, "the connection broke."))


class _Call:
    """One stream, as its reader has it."""

    def __init__(self, story: Streams, rpc: str, request: Any) -> None:
        self._story = story
        self._arrived: asyncio.Queue[Any] = asyncio.Queue()
        daemon = story.daemon
        if daemon is None or not daemon.process.alive or daemon.own is None:
            self._arrived.put_nowait(_cut())
            self._serving = None
        else:
            self._serving = daemon.process.start(self._serve(daemon, rpc, request))

    async def read(self) -> Any:
        """The next message, as grpc.aio's calls give it; keepalive ends what hangs."""
        reading = asyncio.ensure_future(self._arrived.get())
        hanging = asyncio.ensure_future(self._story.points_hang())
        try:
            await asyncio.wait({reading, hanging}, return_when=asyncio.FIRST_COMPLETED)
            arrived = reading.result() if reading.done() else _cut()
        finally:
            reading.cancel()
            hanging.cancel()
        if isinstance(arrived, _Broken):
            raise arrived
        return arrived

    def cancel(self) -> None:
        """The reader is gone."""
        if self._serving is not None:
            self._serving.cancel()

    async def _serve(self, daemon: Daemon, rpc: str, request: Any) -> None:
        """The handler, until it ends, breaks, or nobody reads any more."""
        messages = rechecked(getattr(daemon.own, rpc)(request, self._story.caller(), None), lambda: None)
        try:
            async with contextlib.aclosing(messages):
                async for message in messages:
                    await self._pass(daemon, f"send {rpc} {_kind(message)}", message)
            self._arrived.put_nowait(grpc.aio.EOF)
        except BrokerError as refused:
            self._arrived.put_nowait(_Broken(refused))
        except (Dead, asyncio.CancelledError, _Broken):
            self._arrived.put_nowait(_cut())
            raise

    async def _pass(self, daemon: Daemon, send: str, message: Any) -> None:
        points = daemon.ledger.points
        await self._happen(points.meet(f"{send} before"))
        self._arrived.put_nowait(message)
        await self._happen(points.meet(f"{send} after"))

    async def _happen(self, fault: Fault | None) -> None:
        if fault is Fault.CRASH:
            raise Dead
        if fault is Fault.ERROR:
            raise _cut()
        if fault is Fault.HANG:
            await self._story.points.stand_still()


def _kind(message: Any) -> str:
    """What a message tells, without what is chosen anew."""
    if hasattr(message, "task"):
        return str(task_pb2.Task.State.Name(message.task.state))
    return message.type or "heartbeat"


class _Line:
    """What the SDK's readers need of their connection: a stub, and what a broken call means."""

    def __init__(self, story: Streams) -> None:
        self.connection = self
        self.tokens = None
        self.stub = self
        self.retired = asyncio.Event()
        self._story = story

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[_Line]:
        yield self

    async def error_of(self, failure: _Broken, generation: Any) -> BrokerError:
        return failure.error

    def __getattr__(self, rpc: str) -> Any:
        return lambda request, metadata=None: _Call(self._story, rpc, request)


class Streams(Errand):
    """One agent, that listens from the beginning."""

    def __init__(self, directory: Path, armed: Armed | None, impatient: float) -> None:
        super().__init__(directory, armed, impatient)
        self._line: Any = _Line(self)
        self._listening: list[asyncio.Task[None]] = []
        self.leases: list[int] = []
        self.requests: list[int] = []
        self._left = False

    async def tell(self) -> None:
        """See Errand."""
        try:
            await super().tell()
        finally:
            for each in self._listening:
                each.cancel()
            await asyncio.gather(*self._listening, return_exceptions=True)

    async def prepare(self) -> None:
        """See Errand."""
        world = self.world
        self.tasks = []
        for name in ("completed", "left"):
            task = await world.task(name=f"task-{name}")
            grant = await world.grant(task, name=f"request-{name}")
            assert grant.lease is not None
            await world.leases.confirm(world.caller(), grant.lease.id, grant.lease.attempt_id)
            self.tasks.append(task.id)
        await world.approve(await world.file(task, name="asked"))

    async def points_hang(self) -> None:
        """Until something has hung for so long that the agent gives it up."""
        while not self.points.hanging.is_set() or self._given_up:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.03)
        self._given_up = True

    _given_up = False

    async def wake(self, daemon: Daemon) -> None:
        """See Errand."""
        nothing: Any = None
        desks = (daemon.issuer, daemon.tasks, daemon.leases, daemon.requests, nothing, nothing)
        daemon.own = AgentService(*desks, lambda name: None)

    async def turn(self, daemon: Daemon) -> None:
        """See Errand."""
        if not self._listening:
            self._begin()
        completed, left = self._holds
        while not (completed.task and left.task and await self._heard(daemon)):
            await asyncio.sleep(0.002)
        await self.once("complete", daemon.tasks.complete(self.caller(), self.tasks[0], timedelta(0)))
        await self._until_over(daemon)
        await completed.ended.wait()
        if not self._left:
            await left.release()
            self._left = True
            self.world.clock.advance(2 * _GRACE)
        await daemon.upkeep.tick()
        await self._until_over(daemon)

    async def _until_over(self, daemon: Daemon) -> None:
        await self.settled(daemon)
        while not await self._heard(daemon):
            await asyncio.sleep(0.002)

    def _begin(self) -> None:
        """The agent, which is no part of the broker's process."""
        grace = Duration(seconds=int(_GRACE.total_seconds()))
        self._holds = [Hold(self._line, task, grace, _at_once, f"hold-{task}") for task in self.tasks]
        for hold in self._holds:
            hold._held = asyncio.get_running_loop().create_future()
            hold._holding = self._agents(hold._hold())
        for heard, events in (
            (self.leases, watch(self._line, 0, _at_once)),
            (self.requests, watch_requests(self._line, 0, _at_once)),
        ):
            self._agents(self._listen(heard, events))

    def _agents(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.Task(work)  # not by the factory: whose it is is not asked
        self._listening.append(task)
        return task

    @staticmethod
    async def _listen(heard: list[int], events: Any) -> None:
        async for event in events:
            heard.append(event.sequence)  # noqa: PERF401 - looked at meanwhile

    async def _heard(self, daemon: Daemon) -> bool:
        return await self._happened(daemon) == (self.leases, self.requests)

    async def _happened(self, daemon: Daemon) -> tuple[list[int], list[int]]:
        store = daemon.store
        leases = await store.lease_events(TENANT, _HOLDER, 0, 1_000)
        requests = await store.access_request_events(TENANT, _HOLDER, 0, 1_000)
        return [each.sequence for each in leases], [each.sequence for each in requests]

    async def done(self, daemon: Daemon) -> bool:
        """See Errand."""
        return self._left and not self.world.upstream.alive

    async def check(self) -> None:
        """See Errand."""
        assert not self.world.upstream.alive
        assert {row[0] for row in self.ask("SELECT state FROM attempts")} == {"REVOKED"}
        over = [(each.type, each.task_id) for each in self.news("task.completed", "task.ended")]
        assert over == list(zip(("task.completed", "task.ended"), self.tasks, strict=True)), "each once"
        for heard in (self.leases, self.requests):
            assert heard
            assert heard == sorted(set(heard)), "each event once, in order"
        assert next(each.type for each in self.trail if each.seq in self.requests) == "access.requested"
        given_up = [each for each in self._listening if each.done() and not each.cancelled() and each.exception()]
        assert not given_up, "a reader was given up by its SDK"


def _at_once() -> float:
    return -0.45
