"""The operations port: /livez, /readyz and /metrics over plain HTTP, for probes and scrapers.

Nothing here changes anything or names an agent; it listens on loopback unless configured otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from broker.errors import BrokerError


class Operations:
    """Serves the three pages.

    ``problems`` says why grants are stopped (empty: ready), ``warnings`` what will stop them unless somebody looks.
    """

    def __init__(
        self,
        problems: Callable[[], Sequence[str]],
        warnings: Callable[[], Sequence[str]],
        metrics: Callable[[], Awaitable[bytes]],
    ) -> None:
        self._problems = problems
        self._warnings = warnings
        self._metrics = metrics
        app = web.Application()
        app.add_routes(
            [web.get("/livez", self._livez), web.get("/readyz", self._readyz), web.get("/metrics", self._scrape)]
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen (port 0: any, then see ``port``). Raises OSError if it is taken."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        for address in self._runner.addresses:
            self.port = address[1]

    async def stop(self) -> None:
        """Close the port."""
        await self._runner.cleanup()

    async def _livez(self, request: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def _readyz(self, request: web.Request) -> web.Response:
        problems = list(self._problems())
        told = {"ready": not problems, "problems": problems, "warnings": list(self._warnings())}
        text = json.dumps(told) + "\n"
        return web.Response(text=text, status=503 if problems else 200, content_type="application/json")

    async def _scrape(self, request: web.Request) -> web.Response:
        try:
            body = await self._metrics()
        except BrokerError as failure:
            return web.Response(text=f"{failure}\n", status=503)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
