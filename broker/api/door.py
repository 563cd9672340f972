"""The door: what happens to every RPC, whatever it is about.

One wrapper serves unary and streaming methods alike: identity, authorization, size, parsing, field
rules, the handler, error mapping, the refusal's audit event, a log line, a measurement. A handler
never sees an unauthenticated caller, and nothing leaves without passing here.

Requests are parsed here and not by gRPC, so that one that is too large or malformed gets a reason
and a trace instead of a bare transport error.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any, Protocol

import grpc
import protovalidate
import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc import aio

from broker.api import authorization
from broker.api.bearer import Metadata
from broker.api.errors import status_code, to_status, unexpected
from broker.api.redaction import redacted
from broker.api.streams import rechecked
from broker.api.tls import MAX_MESSAGE_BYTES
from broker.errors import BrokerError, Defect, InvalidInput, NotReady, Reason
from broker.identity.agent import Peer
from broker.issuance.caller import Caller
from broker.issuance.refusals import RefusalBudget, refusal
from broker.ports import Clock, DeploySource, LeaseStore, Rng

log = structlog.get_logger("broker.api")

# Of gRPC's auth context and the call's metadata.
Identify = Callable[[Mapping[str, Any], Metadata], Peer]
ANONYMOUS = "anonymous"
DENIED = "denied"


class Measure(Protocol):
    """Where the door reports each finished RPC."""

    def rpc(self, method: str, outcome: str, seconds: float) -> None:
        """``outcome`` is OK or the reason of the refusal."""
        ...


class Door:
    """Wraps handlers. ``identify`` turns auth context and metadata into a validated peer or raises.

    Each listener has a door of its own, which differs in ``identify`` and in nothing else.
    """

    def __init__(
        self,
        identify: Identify,
        deploy: DeploySource,
        store: LeaseStore,
        budget: RefusalBudget,
        measure: Measure,
        clock: Clock,
        rng: Rng,
        tenant: str,
    ) -> None:
        self._identify = identify
        self._deploy = deploy
        self._store = store
        self._budget = budget
        self._measure = measure
        self._clock = clock
        self._rng = rng
        self._tenant = tenant

    def handlers(self, service: ServiceDescriptor, implementation: object) -> grpc.GenericRpcHandler:
        """The handlers of ``service``: for each of its methods, ``implementation`` has one of that name."""
        table = {}
        for method in service.methods:
            path = f"/{service.full_name}/{method.name}"
            authorization.allowed(path)
            table[method.name] = self._wrap(path, method, getattr(implementation, method.name))
        return grpc.method_handlers_generic_handler(service.full_name, table)

    def check_svid(self, context: aio.ServicerContext[Any, Any]) -> Peer:
        """Who is at the other end, valid now. Raises :class:`Unauthenticated`."""
        return self._identify(context.auth_context(), tuple(context.invocation_metadata() or ()))

    def still_welcome(self, context: aio.ServicerContext[Any, Any], caller: Caller) -> None:
        """For streams, again and again: what let ``caller`` in would do so now, with today's bundles and rules.

        Raises :class:`Unauthenticated` or :class:`Denied`.
        """
        peer = self.check_svid(context)
        if peer.spiffe_id != caller.agent.spiffe_id:
            raise Defect(Reason.INTERNAL, "a connection has changed its identity.")
        self.check_denied(peer)
        self._deploy.current.registry.find(peer.spiffe_id)

    def check_denied(self, peer: Peer) -> None:
        """Raises :class:`Denied` (AGENT_DENIED) for whom operators have denied."""
        self._deploy.current.denied.check(peer, self._clock.now())

    # ------------------------------------------------------------------ wrapping

    def _wrap(self, path: str, method: MethodDescriptor, handler: Callable[..., Any]) -> Any:
        parse = _parser(method)
        serialize = GetMessageClass(method.output_type).SerializeToString

        async def unary(raw: bytes, context: aio.ServicerContext[Any, Any]) -> Message:
            started = time.perf_counter()
            principal = counted = ANONYMOUS
            try:
                peer = self.check_svid(context)
                principal = str(peer.spiffe_id)
                caller = self._caller(peer)
                counted = caller.agent.principal
                request = parse(raw)
                authorization.check_request_id(path, request, peer.delivery)
                if log.is_enabled_for(logging.DEBUG):
                    log.debug("request", method=path, principal=principal, body=redacted(request))
                response: Message = await handler(request, caller, context)
                # Denied while it was under way: what was issued is not delivered, and is ended (daemon/reloading.py).
                self.check_denied(peer)
            except BaseException as failure:
                await self._refuse(failure, path, principal, counted, started, context)
                raise
            self._done(path, principal, "OK", started)
            return response

        async def stream(raw: bytes, context: aio.ServicerContext[Any, Any]) -> AsyncIterator[Message]:
            started = time.perf_counter()
            principal = counted = ANONYMOUS
            try:
                peer = self.check_svid(context)
                principal = str(peer.spiffe_id)
                caller = self._caller(peer)
                counted = caller.agent.principal
                request = parse(raw)
                authorization.check_request_id(path, request, peer.delivery)
                async for response in rechecked(
                    handler(request, caller, context), partial(self.still_welcome, context, caller)
                ):
                    yield response
            except BaseException as failure:
                await self._refuse(failure, path, principal, counted, started, context)
                raise
            self._done(path, principal, "OK", started)

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, None, serialize)
        return grpc.unary_unary_rpc_method_handler(unary, None, serialize)

    def _caller(self, peer: Peer) -> Caller:
        deploy, now = self._deploy.current, self._clock.now()
        deploy.denied.check(peer, now)
        return Caller(self._tenant, deploy.registry.find(peer.spiffe_id), peer, deploy, now)

    async def _refuse(
        self,
        failure: BaseException,
        path: str,
        principal: str,
        counted: str,
        started: float,
        context: aio.ServicerContext[Any, Any],
    ) -> None:
        """Answer a failure; returns only for what is not an answer (cancellation, an abort under way).

        ``principal`` is who asked; ``counted`` is in whose budget the refusal is: all workloads of one registry
        entry share one, and so do all that are not registered.
        """
        if isinstance(failure, aio.AbortError) or not isinstance(failure, Exception):
            self._done(path, principal, "CANCELLED", started)
            return
        if not isinstance(failure, BrokerError):
            request_id = self._rng.id()
            log.error("unexpected failure", method=path, request_id=request_id, exc_info=failure)
            failure = unexpected(request_id)
        await self._record(failure, path, principal, counted)
        self._done(path, principal, failure.reason, started)
        await context.abort_with_status(to_status(failure))

    async def _record(self, failure: BrokerError, path: str, principal: str, counted: str) -> None:
        """The refusal's own event, within its budget. Its failing changes no answer."""
        if isinstance(failure, NotReady):
            return
        now = self._clock.now()
        # One budget for all that are denied, so that no flood of strangers hides them.
        whose = DENIED if failure.reason is Reason.AGENT_DENIED else counted
        _, alone = self._budget.admit(whose, failure.reason, now)
        if not alone:
            return
        metadata = {**failure.metadata, "status": status_code(failure).name}
        event = refusal(self._tenant, principal, path, failure.reason, failure.message, metadata, failure.evidence)
        try:
            await self._store.append([event], now)
        except BrokerError as lost:
            log.error("a refusal could not be recorded", method=path, principal=principal, reason=lost.reason)

    def _done(self, path: str, principal: str, outcome: str, started: float) -> None:
        seconds = time.perf_counter() - started
        self._measure.rpc(path, outcome, seconds)
        log.info("rpc", method=path, principal=principal, outcome=outcome, ms=round(seconds * 1000, 2))


def _parser(method: MethodDescriptor) -> Callable[[bytes], Message]:
    message_class = GetMessageClass(method.input_type)

    def parse(raw: bytes) -> Message:
        if len(raw) > MAX_MESSAGE_BYTES:
            raise InvalidInput(
                Reason.MESSAGE_TOO_LARGE,
                f"the request has {len(raw)} bytes; at most {MAX_MESSAGE_BYTES} are read.",
                hint="Shorten prompt, tool call or plan; their digests are what is kept.",
                metadata={"bytes": str(len(raw)), "limit": str(MAX_MESSAGE_BYTES)},
            )
        try:
            message: Message = message_class.FromString(raw)
        except DecodeError:
            raise InvalidInput(
                Reason.MESSAGE_MALFORMED,
                f"the request is not a {method.input_type.full_name}.",
                hint="Use the client generated from the published protos.",
            ) from None
        violations = protovalidate.collect_violations(message)
        if violations:
            raise _violated(violations)
        return message

    return parse


def _violated(violations: list[Any]) -> InvalidInput:
    found = [violation.proto for violation in violations]
    fields = [".".join(part.field_name for part in each.field.elements) for each in found]
    told = "; ".join(f"{name}: {each.message}" for name, each in zip(fields, found, strict=True))
    return InvalidInput(
        Reason.FIELD_INVALID,
        f"the request is not valid: {told}.",
        hint="The limits of each field stand in protos/broker/api/v1/broker_service.proto.",
        metadata={"fields": ",".join(fields)},
    )
