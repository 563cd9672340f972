"""A container-credentials endpoint on loopback: what AWS SDKs ask by ``AWS_CONTAINER_CREDENTIALS_FULL_URI``.

Whoever knows the token gets the credential, and nobody else: the token is compared in constant time before anything
else of a request is looked at. A slow or endless client holds a place for seconds at most, and there are only so many
places. What goes wrong is an answer that SDKs put into their own errors, "task ended" among them.

Only the piece of HTTP that is needed: GET, one answer, and the connection is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import http.client
import io
import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from types import TracebackType
from typing import Self

from broker.client.forms import container_answer
from broker.client.model import Grant
from broker.errors import BrokerError, NotReady, UpstreamFailed
from broker.secret import Secret

LOOPBACK = "127.0.0.1"
PATH = "/credentials"
_MOST_BYTES = 16 * 1024
_MOST_CONNECTIONS = 64
_READ_SECONDS = 5.0


class ContainerEndpoint:
    """Serves what ``current`` yields to who sends ``token``, inside an ``async with`` block."""

    def __init__(self, current: Callable[[], Awaitable[Grant]], token: Secret, port: int = 0) -> None:
        """``port`` 0: any that is free. Nothing listens yet."""
        self._current = current
        self._token = token.reveal().encode("ascii")
        self._port = port
        self._connections = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Raises OSError where the port is taken."""
        self._server = await asyncio.start_server(self._connected, LOOPBACK, self._port, limit=_MOST_BYTES)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()

    @property
    def uri(self) -> str:
        """For ``AWS_CONTAINER_CREDENTIALS_FULL_URI``."""
        return f"http://{LOOPBACK}:{self._port}{PATH}"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= _MOST_CONNECTIONS:
                async with asyncio.timeout(_READ_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(*await self._answer(head)))
                async with asyncio.timeout(_READ_SECONDS):
                    await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, ConnectionError):
            pass  # it sent no request, or does not read; the connection is closed
        finally:
            self._connections -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, head: bytes) -> tuple[HTTPStatus, str]:
        line, _, rest = head.partition(b"\r\n")
        try:
            sent = http.client.parse_headers(io.BytesIO(rest)).get_all("Authorization", [])
        except http.client.HTTPException:
            return HTTPStatus.BAD_REQUEST, _error("BadRequest", "the headers cannot be read")
        if len(sent) != 1 or not hmac.compare_digest(sent[0].encode("utf-8", "replace"), self._token):
            return HTTPStatus.UNAUTHORIZED, _error("Unauthorized", "the Authorization header does not hold the token")
        method, path, *_ = [*line.split(b" "), b"", b""]
        if path != PATH.encode():
            return HTTPStatus.NOT_FOUND, _error("NotFound", f"there is only {PATH}")
        if method != b"GET":
            return HTTPStatus.METHOD_NOT_ALLOWED, _error("MethodNotAllowed", "only GET")
        return await self._credentials()

    async def _credentials(self) -> tuple[HTTPStatus, str]:
        try:
            return HTTPStatus.OK, container_answer(await self._current())
        except (NotReady, UpstreamFailed) as error:
            return HTTPStatus.SERVICE_UNAVAILABLE, _error(error.reason, error.message)
        except BrokerError as error:
            return HTTPStatus.FORBIDDEN, _error(error.reason, error.message)


def _error(code: str, message: str) -> str:
    return json.dumps({"code": code, "message": message})


def _response(status: HTTPStatus, body: str) -> bytes:
    content = body.encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + content
