"""The yardstick: an RPC that does nothing, over mTLS, in a process of its own.

``python -m bench.bare ADDRESS CHAIN KEY BUNDLE`` serves it until its standard input ends. What it takes is what gRPC in
Python takes on this machine, before a broker does anything; rates of different machines are to be compared by it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc
import uvloop

SERVICE, METHOD = "bench.Bare", "Nothing"
# Said once it serves.
SERVING = "serving\n"


async def serve(address: str, chain: Path, key: Path, bundle: Path) -> None:
    """Until standard input ends."""
    server = grpc.aio.server()
    handlers = {METHOD: grpc.unary_unary_rpc_method_handler(_nothing)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    credentials = grpc.ssl_server_credentials(
        ((key.read_bytes(), chain.read_bytes()),), root_certificates=bundle.read_bytes(), require_client_auth=True
    )
    server.add_secure_port(address, credentials)
    await server.start()
    print(SERVING, end="", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)


async def _nothing(request: bytes, _: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    return request


def main(arguments: Sequence[str]) -> None:
    """As brokerd does it: on uvloop."""
    address, *files = arguments
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(address, *map(Path, files)))


if __name__ == "__main__":
    main(sys.argv[1:])
