"""A proxy that ends TLS: agents connect to it, it connects to brokerd as itself and passes their calls on.

It keeps every byte that goes by, as a proxy's memory or debug log would, and can change what it passes on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc import aio

from tests.api.proxied import EAST, proxy_channel
from tests.api.served import CA, Served, svid
from tests.forge import Forged

STREAMS = ("HoldTask", "WatchLeases")
Change = Callable[[str, bytes], bytes]


class EndingProxy(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, onward: aio.Channel) -> None:
        self._onward = onward
        self.port = 0
        self.seen: list[bytes] = []
        self.tokens: list[str] = []
        self.change_request: Change = lambda method, data: data
        self.change_answer: Change = lambda method, data: data

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        method: str = details.method
        name = method.rpartition("/")[2]

        def passed(context: Any) -> tuple[tuple[str, str], ...]:
            found = tuple((key, value) for key, value in context.invocation_metadata() if key == "authorization")
            self.tokens.extend(value for _, value in found)
            return found

        def request_of(raw: bytes) -> bytes:
            self.seen.append(raw)
            return self.change_request(name, raw)

        def answer_of(raw: bytes) -> bytes:
            self.seen.append(raw)
            return self.change_answer(name, raw)

        async def unary(raw: bytes, context: Any) -> bytes:
            try:
                return answer_of(await self._onward.unary_unary(method)(request_of(raw), metadata=passed(context)))
            except aio.AioRpcError as error:
                await _pass_on(error, context)
                raise

        async def stream(raw: bytes, context: Any) -> AsyncIterator[bytes]:
            call = self._onward.unary_stream(method)(request_of(raw), metadata=passed(context))
            try:
                async for answer in call:
                    yield answer_of(answer)
            except aio.AioRpcError as error:
                await _pass_on(error, context)
            finally:
                call.cancel()

        if name in STREAMS:
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)


async def _pass_on(error: aio.AioRpcError, context: Any) -> None:
    context.set_trailing_metadata(tuple(error.trailing_metadata() or ()))
    await context.abort(error.code(), error.details() or "")


@asynccontextmanager
async def ending_proxy(
    served: Served, identity: Forged | str = EAST, roots: bytes = CA.pem
) -> AsyncIterator[EndingProxy]:
    made = svid(identity, dns=["localhost"]) if isinstance(identity, str) else identity
    proxy = EndingProxy(proxy_channel(served, made, roots))
    server = aio.server()
    server.add_generic_rpc_handlers((proxy,))
    credentials = grpc.ssl_server_credentials([(made.key_pem, made.pem)], roots, require_client_auth=True)
    proxy.port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield proxy
    finally:
        await server.stop(0)
