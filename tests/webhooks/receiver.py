"""A real HTTP server that takes webhooks, and misbehaves on request."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook as Verifier

from tests.patience import PATIENCE

SECRET = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"  # 27 bytes
HANG = -1


@dataclass
class Receiver:
    """Answers each request with the next of ``answers`` (200 when there are none); ``HANG`` never answers."""

    answers: deque[tuple[int, dict[str, str]]] = field(default_factory=deque)
    seen: list[dict[str, Any]] = field(default_factory=list)  # what was answered with 2xx, verified
    tries: int = 0
    elsewhere: int = 0  # requests to where redirects point
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    tls: ssl.SSLContext | None = None
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        where = f"http://127.0.0.1:{self.port}" if self.tls is None else f"https://localhost:{self.port}"
        return f"{where}/hook?token=in-the-query"

    def answer(self, *statuses: int, **headers: str) -> None:
        self.answers.extend((status, {k.replace("_", "-"): v for k, v in headers.items()}) for status in statuses)

    async def start(self) -> None:
        """Serve, on the same port again after :meth:`stop`."""
        app = web.Application()
        app.router.add_post("/hook", self._take)
        app.router.add_route("*", "/elsewhere", self._elsewhere)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True, ssl_context=self.tls)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def until(self, count: int) -> list[dict[str, Any]]:
        """The events taken, once there are so many."""
        async with asyncio.timeout(PATIENCE):
            while len(self.seen) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.seen

    async def _take(self, request: web.Request) -> web.Response:
        self.tries += 1
        body = await request.read()
        Verifier(SECRET).verify(body, dict(request.headers))
        assert request.headers["content-type"] == "application/cloudevents+json"
        status, headers = self.answers.popleft() if self.answers else (200, {})
        if status == HANG:
            await asyncio.sleep(3600)
        if 200 <= status < 300:
            event = json.loads(body)
            assert request.headers["webhook-id"] == event["id"]
            self.seen.append(event)
        self.changed.set()
        return web.Response(status=status, headers=headers)

    async def _elsewhere(self, request: web.Request) -> web.Response:
        self.elsewhere += 1
        return web.Response()
