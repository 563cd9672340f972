"""What witnesses are elsewhere: a web service that keeps notes, and a syslog collector."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


class Keeper:
    """A web service that keeps notes, and fails on request. Its newest is what came last."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.fail: int | None = None
        self.tokens: set[str] = set()

    async def post(self, request: web.Request) -> web.Response:
        self.tokens.add(request.headers.get("authorization", ""))
        if self.fail is not None:
            return web.Response(status=self.fail, headers={"location": "/elsewhere"})
        self.notes.append(await request.text())
        return web.Response(status=201)

    async def get(self, request: web.Request) -> web.Response:
        self.tokens.add(request.headers.get("authorization", ""))
        if self.fail is not None:
            return web.Response(status=self.fail)
        return web.Response(text=self.notes[-1]) if self.notes else web.Response(status=404)


@asynccontextmanager
async def keeper() -> AsyncIterator[tuple[Keeper, str]]:
    """One that runs, and its address; notes are kept at ``/notes`` there."""
    kept = Keeper()
    app = web.Application()
    app.add_routes([web.post("/notes", kept.post), web.get("/notes", kept.get)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield kept, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """The address of what answers everything with these bytes."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


class Collector:
    """Of syslog messages over TCP, framed by their length. It answers nothing, and ends a connection in order."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.read(reader)
        writer.close()

    async def read(self, reader: asyncio.StreamReader) -> None:
        length = await reader.readuntil(b" ")
        self.taken.append(await reader.readexactly(int(length)))


@asynccontextmanager
async def collecting(collector: Collector, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """While it runs; its port."""
    server = await asyncio.start_server(collector.take, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]
