"""A proxy that ends TLS: agents talk to it, it talks to the broker's proxies' listener with an SVID of its own.

``proxy.py LISTENER SERVER-NAME SEEN``: every message that passes, either way, is also appended to the file SEEN,
because that is what a proxy sees. It prints its port, and goes on until its standard input ends. Requests, answers,
metadata and refusals pass unchanged.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe import WorkloadApiClient

from broker.dev.loopback import LOOPBACK

Context = grpc.aio.ServicerContext[bytes, bytes]
# What HTTP/2 and gRPC say hop by hop.
_OF_THE_HOP = ("grpc-", "user-agent", "te", "content-type")


class Forwarder(grpc.GenericRpcHandler):
    """Any method of any service, bytes for bytes."""

    def __init__(self, channel: grpc.aio.Channel, see: Callable[[bytes], object]) -> None:
        self._channel = channel
        self._see = see

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method

        async def forward(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
            metadata = [pair for pair in context.invocation_metadata() or () if not pair[0].startswith(_OF_THE_HOP)]
            onward: Any = self._channel.stream_stream(method)
            try:
                async for answer in onward(self._noted(requests), metadata=metadata):
                    self._see(answer)
                    yield answer
            except grpc.aio.AioRpcError as refusal:
                await context.abort(refusal.code(), refusal.details() or "", tuple(refusal.trailing_metadata()))

        return grpc.stream_stream_rpc_method_handler(forward)

    async def _noted(self, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for request in requests:
            self._see(request)
            yield request


async def main(listener: str, server_name: str, seen: Path) -> None:
    with WorkloadApiClient() as client:
        context = client.fetch_x509_context(timeout=60.0)
    svid = context.default_svid
    bundle = context.x509_bundle_set.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    assert bundle is not None
    roots = b"".join(root.public_bytes(Encoding.PEM) for root in bundle.x509_authorities)
    chain = b"".join(each.public_bytes(Encoding.PEM) for each in svid.cert_chain)
    key = svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    upstream = grpc.aio.secure_channel(
        listener,
        grpc.ssl_channel_credentials(roots, key, chain),
        options=[("grpc.ssl_target_name_override", server_name)],
    )
    with seen.open("ab", buffering=0) as file:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((Forwarder(upstream, file.write),))
        port = server.add_secure_port(f"{LOOPBACK}:0", grpc.ssl_server_credentials([(key, chain)]))
        await server.start()
        print(port, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await server.stop(1.0)
        await upstream.close()


asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
