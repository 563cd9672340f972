"""Somebody who is told: a receiver of signed webhooks on loopback, for the demo."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook as Verifier

from broker.dev.files import write_private
from broker.dev.loopback import LOOPBACK


class WebhookReceiver:
    """Keeps each event whose signature holds. ``secret_file`` is written by :meth:`start`."""

    def __init__(self, secret_file: Path) -> None:
        self.secret_file = secret_file
        self._secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        self._seen: list[dict[str, Any]] = []
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Where it takes them."""
        return f"http://{LOOPBACK}:{self._port}/"

    async def start(self) -> None:
        """Serve, on any free port."""
        write_private(self.secret_file, self._secret + "\n")
        application = web.Application()
        application.router.add_post("/", self._take)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, 0).start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Let go of the port. Twice is the same as once."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def event(self, wanted: Callable[[dict[str, Any]], bool], seconds: float) -> dict[str, Any] | None:
        """The first event that is ``wanted``; None if none came in time."""
        try:
            async with asyncio.timeout(seconds):
                while not (found := [each for each in self._seen if wanted(each)]):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return None
        return found[0]

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        try:
            Verifier(self._secret).verify(body, dict(request.headers))
        except Exception:  # noqa: BLE001 - whatever is wrong with it, it is not the broker's
            return web.Response(status=401)
        self._seen.append(json.loads(body))
        self._changed.set()
        return web.Response()
