"""A proxy before OpenBao that keeps one kind of answer to itself: the world as a crash finds it.

Everything passes, but for the answer to ``GET /v1/MOUNT/creds/ROLE``: OpenBao has made the login and said so,
and nobody has heard it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from aiohttp import ClientSession, web

from broker.dev.loopback import LOOPBACK

# RFC 9110, 7.6.1: for one connection only. Lengths and encodings are made anew.
_NOT_PASSED_ON = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
    | {"host", "content-length"}
)


class HoldingProxy:
    """An asynchronous context manager; listens on a free port of 127.0.0.1 for requests to ``upstream``.

    ``held`` is set once OpenBao has answered a request for a login of ``role``, and the answer is kept back.
    """

    def __init__(self, upstream: str, mount: str, role: str) -> None:
        self._upstream = upstream
        self._path = f"/v1/{mount}/creds/{role}"
        self._client: ClientSession | None = None
        self._runner: web.ServerRunner | None = None
        self._over = asyncio.Event()
        self.held = asyncio.Event()
        self.passed = 0
        self.address = ""

    async def __aenter__(self) -> Self:
        # As it came: not decompressed; no cookies; no proxy of the environment before loopback.
        self._client = ClientSession(auto_decompress=False, trust_env=False)
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOOPBACK, 0)
        await site.start()
        self.address = f"http://{LOOPBACK}:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._client is not None:
            await self._client.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._client is None:
            raise RuntimeError("the proxy is opened by entering its `with` block")
        async with self._client.request(
            request.method,
            self._upstream + request.raw_path,
            headers=_passed_on(request.headers),
            data=await request.read(),
            allow_redirects=False,
        ) as answer:
            body = await answer.read()
            headers = _passed_on(answer.headers)
        if request.method == "GET" and request.path == self._path and answer.ok:
            self.held.set()
            await self._over.wait()
        self.passed += 1
        return web.Response(status=answer.status, headers=headers, body=body)


def _passed_on(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items() if name.lower() not in _NOT_PASSED_ON]
