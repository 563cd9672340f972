"""The agents' gRPC server: BrokerService, health and reflection behind one door on one port."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from broker.api import authorization, connections
from broker.api.agents import AgentService
from broker.api.door import Door
from broker.api.errors import to_status
from broker.api.streams import rechecked, while_welcome
from broker.api.tls import SERVER_OPTIONS
from broker.api.v1 import broker_service_pb2
from broker.errors import BrokerError
from broker.identity.agent import Peer
from broker.issuance.caller import Caller

BROKER_SERVICE: ServiceDescriptor = broker_service_pb2.DESCRIPTOR.services_by_name["BrokerService"]


class AgentServer:
    """Serves agents on one address until stopped; ``options`` replace the transport's usual ones."""

    def __init__(
        self,
        door: Door[Peer, Caller],
        service: AgentService,
        *,
        max_concurrent_rpcs: int,
        options: Sequence[tuple[str, int]] = (),
    ) -> None:
        self._door = door
        share = connections.capped(connections.AGENTS)
        transport = [*dict([*SERVER_OPTIONS, share, *options]).items()]
        self._server = aio.server(options=transport, maximum_concurrent_rpcs=connections.at_once(max_concurrent_rpcs))
        self._health = health.aio.HealthServicer()
        self._server.add_generic_rpc_handlers((door.handlers(BROKER_SERVICE, service),))
        guarded = _Guarded(self._server, door)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, guarded)
        names = (BROKER_SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflection.aio.ReflectionServicer(names), guarded)
        authorization.check_complete([*guarded.methods, *methods_of(BROKER_SERVICE)])

    def bind(self, address: str, credentials: grpc.ServerCredentials) -> int:
        """Listen on ``host:port`` (port 0: any); the port. Raises RuntimeError if it is taken."""
        return self._server.add_secure_port(address, credentials)

    async def start(self) -> None:
        """Serve, and say so to health checks."""
        await self._server.start()
        await self.set_serving(True)

    async def set_serving(self, serving: bool) -> None:
        """What health checks answer."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", BROKER_SERVICE.full_name):
            await self._health.set(name, status)

    async def stop(self, grace: float) -> None:
        """Refuse new RPCs at once; let those under way finish for ``grace`` seconds. Streams end within one."""
        self._door.close()
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)


def methods_of(service: ServiceDescriptor) -> list[str]:
    """The full path of each method."""
    return [f"/{service.full_name}/{method.name}" for method in service.methods]


class _Guarded:
    """Stands in for the server while ready-made servicers register, and puts the door's check before them."""

    def __init__(self, server: aio.Server, door: Door[Peer, Caller]) -> None:
        self._server = server
        self._door = door
        self.methods: list[str] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Newer generated code also calls :meth:`add_registered_method_handlers`, which has the same handlers."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Register the handlers of ``service``, each behind a check of the caller's SVID."""
        guarded = {name: self._guard(handler) for name, handler in handlers.items()}
        self.methods.extend(f"/{service}/{name}" for name in handlers)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, guarded),))

    def _guard(self, handler: Any) -> Any:
        halves = (handler.request_streaming, handler.response_streaming)
        kind = "_".join("stream" if streaming else "unary" for streaming in halves)
        behavior = getattr(handler, kind)

        async def generator(request: Any, context: Any) -> AsyncIterator[Any]:
            async with self._let_in(context) as check:
                async for response in rechecked(behavior(request, context), check):
                    yield response

        async def coroutine(request: Any, context: Any) -> Any:
            # A stream may be a coroutine that writes by itself, too (Health.Watch).
            async with self._let_in(context) as check:
                return await while_welcome(behavior(request, context), check)

        wrap = getattr(grpc, f"{kind}_rpc_method_handler")
        guarded = generator if inspect.isasyncgenfunction(behavior) else coroutine
        return wrap(guarded, handler.request_deserializer, handler.response_serializer)

    @asynccontextmanager
    async def _let_in(self, context: aio.ServicerContext[Any, Any]) -> AsyncIterator[Callable[[], None]]:
        def check() -> None:
            self._door.check_welcome(context)

        try:
            check()
            yield check
        except BrokerError as failure:
            await context.abort_with_status(to_status(failure))
