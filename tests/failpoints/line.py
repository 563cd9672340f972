"""The wire between one agent and whichever broker runs, with points before and after each message is sent and read.

The SDK's streams are at one end, the servicer behind ``rechecked`` at the other. One message is on its way at a time,
so that who does not read holds up who sends. What is cut is cut at both ends at once, as by a reset.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import Message

from broker.api.streams import rechecked
from broker.errors import BrokerError, NotReady, Reason
from tests.failpoints.points import Fault, Points
from tests.simulation.process import Process

# What a message is called in the name of a point; None: it has none.
Label = Callable[[str, Message, Message], str | None]
# What the servicer of the broker that runs answers: (rpc, request).
Serve = Callable[[str, Message], AsyncIterator[Message]]


class AgentGone(BaseException):
    """The agent's process ends there, and takes its streams along."""


class Line:
    """What the SDK takes for its connection and its calls."""

    tokens = None

    def __init__(self, points: Points, label: Label) -> None:
        self.points = points
        self._label = label
        self._there: tuple[Process, Points, Serve] | None = None
        self.open: set[asyncio.Task[None]] = set()  # streams that a broker is at
        self.retired = asyncio.Event()  # no SVID rotates here

    def lead_to(self, process: Process, points: Points, serve: Serve) -> None:
        """From now on, this broker answers."""
        self._there = (process, points, serve)

    # ------------------------------------------------------------------ as the SDK sees it

    @property
    def connection(self) -> Line:
        return self

    @property
    def stub(self) -> Line:
        return self

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Line]:
        yield self

    async def anew(self, generation: Line) -> None:
        """There is one wire."""

    async def error_of(self, failure: Cut, generation: Line) -> BrokerError:
        """What the SDK tells of it."""
        return failure.told

    def __getattr__(self, rpc: str) -> Callable[..., _Call]:
        return lambda request, metadata: _Call(self, rpc, request, self._there)

    def label(self, rpc: str, request: Message, message: Message) -> str | None:
        """See Label."""
        said = self._label(rpc, request, message)
        return None if said is None else f"{rpc} {said}"


class Cut(grpc.aio.AioRpcError):
    """The stream ended otherwise than in order."""

    def __init__(self, told: BrokerError | None = None) -> None:
        nothing = grpc.aio.Metadata()
        self.told = told or NotReady(Reason.BROKER_UNREACHABLE, "there is no broker.")
        super().__init__(grpc.StatusCode.UNAVAILABLE, nothing, nothing, self.told.message)


class _Call:
    """One stream."""

    def __init__(self, line: Line, rpc: str, request: Message, there: tuple[Process, Points, Serve] | None) -> None:
        self._line = line
        self._rpc = rpc
        self._request = request
        self._arriving: asyncio.Queue[Message] = asyncio.Queue(1)
        self._read: str | None = None  # the label of what was read last
        self._serving: asyncio.Task[None] | None = None
        if there is not None and there[0].alive:
            process, points, serve = there
            self._serving = process.start(self._served(points, serve))
            line.open.add(self._serving)
            self._serving.add_done_callback(line.open.discard)

    async def _served(self, points: Points, serve: Serve) -> None:
        async for message in rechecked(serve(self._rpc, self._request), lambda: None):
            label = self._line.label(self._rpc, self._request, message)
            await _pass(points, label and f"send {label} before")
            await self._arriving.put(message)
            await _pass(points, label and f"send {label} after")

    async def read(self) -> Any:
        """The next message, or EOF. Raises Cut."""
        await self._passes("after")
        if self._serving is None:
            raise Cut
        arriving = asyncio.ensure_future(self._arriving.get())
        try:
            await asyncio.wait({arriving, self._serving}, return_when=asyncio.FIRST_COMPLETED)
            if not arriving.done() and not self._arriving.empty():
                await asyncio.wait({arriving})
        finally:
            if not arriving.done():
                arriving.cancel()
        if not arriving.done():
            return self._end()
        message = arriving.result()
        self._read = self._line.label(self._rpc, self._request, message)
        await self._passes("before")
        return message

    def _end(self) -> Any:
        assert self._serving is not None
        if self._serving.cancelled():
            raise Cut
        failure = self._serving.exception()
        if failure is None:
            return grpc.aio.EOF
        raise Cut(failure if isinstance(failure, BrokerError) else None)

    async def _passes(self, side: str) -> None:
        point = self._read and f"read {self._read} {side}"
        try:
            await _pass(self._line.points, point, AgentGone)
        except (Cut, AgentGone):
            self.cancel()
            raise

    def cancel(self) -> None:
        """Nobody reads any more."""
        if self._serving is not None:
            self._serving.cancel()


async def _pass(points: Points, point: str | None, gone: type[BaseException] | None = None) -> None:
    """``gone``: what a crash is, where it is not the broker's."""
    if point is None:
        return
    match points.meet(point, None if gone is None else lambda: None):
        case Fault.CRASH:
            raise (gone or asyncio.CancelledError)()
        case Fault.ERROR:
            raise Cut
        case Fault.HANG:
            await points.stand_still()
