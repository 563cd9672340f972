"""The people's gRPC server: AdminService behind a door of its own, on a port of its own; and automation's.

Apart from the agents' server, so that no number of agents keeps an operator from stopping them. Neither health
nor reflection is here: who looks for this port knows what is behind it.
"""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc import aio

from broker.api import authorization, connections
from broker.api.door import Door
from broker.api.server import methods_of
from broker.api.tls import SERVER_OPTIONS
from broker.api.v1 import admin_service_pb2
from broker.issuance.caller import OperatorCaller

ADMIN_SERVICE: ServiceDescriptor = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"]

# An ID token alone may have 12 KiB; what is a little larger shall be told so by us, not dropped by the transport.
_OPTIONS = (
    *(option for option in SERVER_OPTIONS if not option[0].endswith("metadata_size")),
    ("grpc.max_metadata_size", 32 * 1024),
    ("grpc.absolute_max_metadata_size", 64 * 1024),
)


class AdminServer:
    """Serves people on one address until stopped. Each of ``parts`` has some of the service's methods."""

    def __init__(self, door: Door[Any, OperatorCaller], *parts: object, max_concurrent_rpcs: int) -> None:
        self._door = door
        options = [*_OPTIONS, connections.capped(connections.OTHERS)]
        self._server = aio.server(options=options, maximum_concurrent_rpcs=connections.at_once(max_concurrent_rpcs))
        authorization.check_complete(methods_of(ADMIN_SERVICE))
        self._server.add_generic_rpc_handlers((door.handlers(ADMIN_SERVICE, *parts),))

    def bind(self, address: str, credentials: grpc.ServerCredentials) -> int:
        """Listen on ``host:port`` (port 0: any); the port. Raises RuntimeError if it is taken."""
        return self._server.add_secure_port(address, credentials)

    async def start(self) -> None:
        """Serve."""
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Refuse new RPCs at once; let those under way finish for ``grace`` seconds. Streams end within one."""
        self._door.close()
        await self._server.stop(grace)
